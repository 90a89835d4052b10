// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Channels to a compositor that any bytes drive: what their fuzzer starts from, and random programs. By itself, as the
//! process's open files are counted.

use std::sync::{Mutex, MutexGuard, PoisonError};

use proptest::collection::vec;
use proptest::prelude::*;
use virtio_gpu_s3_testing::{ChannelStep, run_channels};

use virtio_gpu_s3_testing::kept::check;

/// Nobody else opens or closes files meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn step(step: ChannelStep, takes: &[u8]) -> Vec<u8> {
    [&[step.byte()], takes].concat()
}

/// A step of context 1 with a resource.
fn with(id: u8, of: ChannelStep, takes: &[u8]) -> Vec<u8> {
    step(of, &[&[id, 0], takes].concat())
}

const SEND: ChannelStep = ChannelStep::Command(0);
const POLL: ChannelStep = ChannelStep::Command(1);
const INIT: ChannelStep = ChannelStep::Command(2);
const WRITE: ChannelStep = ChannelStep::Command(3);
const IMAGE: ChannelStep = ChannelStep::Command(4);
/// A length: 19 000 bytes.
const MANY: u8 = 210;
/// Of files that the compositor sends.
const MEMORY: u8 = 0;
const KEYMAP: u8 = 1;
const PIPE: u8 = 4;

/// A blob of the guest in context 1: one page, whole.
fn ring(id: u8, page: u8) -> Vec<u8> {
    let blob = with(id, ChannelStep::Ring, &[0, 0, page, 0, 0]);
    [blob, with(id, ChannelStep::Attach, &[0])].concat()
}

/// Context 1 with a channel, its rings in resources 1 and 2.
fn connected(takes: &[Vec<u8>]) -> Vec<u8> {
    let context = with(0, ChannelStep::Context, &[0]);
    let init = with(0, INIT, &[1, 2, 0, 0]);
    let start = [vec![0], context, ring(1, 3), ring(2, 5), init];
    [start.concat(), takes.concat()].concat()
}

/// Another context, by its number less one, with a channel and the rings of the first.
fn another(context: u8) -> Vec<u8> {
    [
        step(ChannelStep::Context, &[0, context, 0]),
        step(ChannelStep::Attach, &[1, context, 0]),
        step(ChannelStep::Attach, &[2, context, 0]),
        step(INIT, &[0, context, 1, 2, 0, 0]),
    ]
    .concat()
}

/// POLL with a fence that waits.
fn poll() -> Vec<u8> {
    with(0, POLL, &[128])
}

fn take() -> Vec<u8> {
    step(ChannelStep::Take, &[])
}

fn speak(bytes: u8, kinds: &[u8]) -> Vec<u8> {
    let count = u8::try_from(kinds.len()).unwrap();
    step(ChannelStep::Speak, &[&[0, bytes, count], kinds].concat())
}

/// Resource 3, as a file to send.
const BLOB: &[u8] = &[0, 3];
/// A pipe that the guest is to read.
const READ_PIPE: &[u8] = &[128];

fn send(bytes: u8, files: &[&[u8]]) -> Vec<u8> {
    let count = u8::try_from(files.len()).unwrap();
    with(
        0,
        SEND,
        &[&[bytes, count], &files.concat()[..], &[0]].concat(),
    )
}

/// Resource 3: a picture or a file, by its number.
fn blob(number: u8) -> Vec<u8> {
    [
        with(3, ChannelStep::Blob, &[number, 0]),
        with(3, ChannelStep::Attach, &[0]),
        with(3, ChannelStep::Map, &[0, 2]),
        step(ChannelStep::Access, &[3, 0, 17]),
    ]
    .concat()
}

/// A picture that the compositor gets.
fn window() -> Vec<u8> {
    let image = with(0, IMAGE, &[16, 16, 0, 0]);
    [image, blob(1), send(9, &[BLOB]), hear()].concat()
}

fn hear() -> Vec<u8> {
    step(ChannelStep::Hear, &[0, 191])
}

fn close(what: u8) -> Vec<u8> {
    step(ChannelStep::Close, &[what, 0])
}

fn plain(of: ChannelStep) -> Vec<u8> {
    step(of, &[])
}

/// A program, how many frozen resets it has, and whether all is answered well.
#[derive(Clone)]
struct Talk {
    name: &'static str,
    program: Vec<u8>,
    frozen: u64,
    well: bool,
}

fn talk(name: &'static str, parts: &[Vec<u8>]) -> Talk {
    Talk {
        name,
        program: connected(parts),
        frozen: 0,
        well: true,
    }
}

fn talks() -> Vec<Talk> {
    let writes = step(ChannelStep::PeerWrites, &[0, 150]);
    let reads = step(ChannelStep::PeerReads, &[0, 255]);
    let write = |end, bytes| with(0, WRITE, &[1, end, bytes, 0]);
    let waits = [poll(), speak(9, &[]), plain(ChannelStep::Wait)].concat();
    let paste = [send(9, &[READ_PIPE]), hear(), writes.clone()].concat();
    let pasted = [poll(), take(), close(2), poll(), take()].concat();
    let copy = [speak(4, &[PIPE]), poll(), take(), write(0, 200)].concat();
    let copied = [reads.clone(), write(255, 9), reads, close(1)].concat();
    let keymap = speak(4, &[KEYMAP, MEMORY]);
    // More than a socket takes, and no more than is kept beside.
    let more = send(MANY, &[]).repeat(12);
    let late = step(ChannelStep::Hear, &[0, 255]).repeat(5);
    let later = [send(9, &[]), late.clone()].concat();
    vec![
        talk("said", &[waits, speak(9, &[]), poll(), take()]),
        talk("window", &[window(), writes]),
        talk("paste", &[paste, pasted]),
        talk("copy", &[copy, copied]),
        talk("keymap", &[keymap, poll(), take(), blob(1)]),
        Talk {
            well: false,
            ..talk("nobody-hears", &[more.repeat(2), poll(), late.clone()])
        },
        Talk {
            well: false,
            ..talk("a-channel-more", &[another(1), another(2)])
        },
        Talk {
            well: false,
            ..talk("a-pipe-more", &[send(9, &[READ_PIPE; 3]).repeat(14)])
        },
        talk("heard-late", &[more, late, later]),
        Talk {
            well: false,
            ..talk(
                "hung-up",
                &[poll(), close(0), take(), send(9, &[]), send(9, &[])],
            )
        },
    ]
}

fn sleeps() -> Vec<Talk> {
    let wake = |how| step(ChannelStep::Wake, &[how]);
    let meanwhile = [plain(ChannelStep::Sleep), speak(9, &[MEMORY])].concat();
    let frozen = [plain(ChannelStep::Freeze), speak(9, &[])].concat();
    let after = [poll(), take(), send(9, &[BLOB])].concat();
    let anew = [
        plain(ChannelStep::FullReset),
        connected(&[window()])[1..].to_vec(),
    ]
    .concat();
    let moved = [
        poll(),
        plain(ChannelStep::Remap),
        speak(9, &[]),
        plain(ChannelStep::Wait),
    ];
    let gone = with(2, ChannelStep::Backing, &[0]);
    let back = with(2, ChannelStep::Backing, &[1, 0, 7, 0]);
    let before = [window(), poll()].concat();
    let slept = |talk: Talk| Talk { frozen: 1, ..talk };
    vec![
        slept(talk(
            "sleep",
            &[before.clone(), meanwhile.clone(), wake(0), after.clone()],
        )),
        slept(talk(
            "sleep-and-queues-anew",
            &[before.clone(), meanwhile, wake(1), after],
        )),
        talk(
            "freeze",
            &[before.clone(), frozen, plain(ChannelStep::Wait)],
        ),
        talk("full-reset", &[before, anew]),
        talk("memory-moves", &moved),
        talk(
            "ring-goes-and-comes",
            &[
                poll(),
                gone,
                speak(9, &[]),
                plain(ChannelStep::Wait),
                back,
                take(),
            ],
        ),
        Talk {
            program: [vec![1], connected(&[window()])[1..].to_vec()].concat(),
            ..talk("beside", &[])
        },
    ]
}

#[test]
fn the_kept_talks_lead_where_they_should() {
    let _alone = alone();
    let talks = [talks(), sleeps()].concat();
    let seeds: Vec<_> = talks
        .iter()
        .map(|it| (it.name, it.program.clone()))
        .collect();
    check("cross_domain", &seeds);
    for Talk {
        name,
        program,
        frozen,
        well,
    } in talks
    {
        let counters = run_channels(&program);
        assert_eq!(counters.frozen_resets, frozen, "{name}");
        let errors = counters.errors;
        assert_eq!(errors.total() == 0, well, "{name}: {errors:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn random_talks_break_nothing(
        is_connected in any::<bool>(),
        program in vec(any::<u8>(), 0..1500)
    ) {
        let _alone = alone();
        run_channels(&if is_connected { connected(&[program]) } else { program });
    }
}
