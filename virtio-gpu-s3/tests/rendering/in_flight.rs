// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands whose calls the renderer answers later.

use std::collections::BTreeMap;

use virtio_gpu_s3::protocol::{CommandId, Queue, ResponseType};
use virtio_gpu_s3::{Activation, ErrorKind, ResetKind, Token};
use virtio_gpu_s3_testing::{Answer, GpuDriver, RendererControl, WithFence, request};

use super::{OK, UNSPEC, WHOLE, WHOLE_TRANSFER, fill, limited, with_texture};

/// A stream that the renderer refuses.
fn nonsense() -> Vec<u8> {
    request::submit_3d(&[77])
}

fn begin(driver: &mut GpuDriver, request: Vec<u8>) -> Token {
    driver.ctx_id = 1;
    let token = driver.send(Queue::Control, request).unwrap_err();
    driver.ctx_id = 0;
    token
}

fn completed(driver: &mut GpuDriver) -> Vec<(Token, ResponseType)> {
    let done = driver.gpu().take_completed();
    done.map(|done| (done.token, Answer::parse(done.response.bytes()).type_()))
        .collect()
}

#[test]
fn in_a_pipeline_each_error_reaches_its_own_command() {
    let (mut driver, control, _, _) = with_texture();
    control.hold_answers();
    let to = request::transfer_3d(CommandId::TRANSFER_TO_HOST_3D, 10, &WHOLE_TRANSFER);
    let requests = [fill(10, 1), nonsense(), to, nonsense(), fill(10, 2)];
    let tokens = requests.map(|request| begin(&mut driver, request));
    assert_eq!(control.in_flight(), 5);
    assert_eq!(completed(&mut driver), []);
    control.answer(3);
    let [a, b, c, d, e] = tokens;
    assert_eq!(completed(&mut driver), [(a, OK), (b, UNSPEC), (c, OK)]);
    control.answer(9);
    assert_eq!(completed(&mut driver), [(d, UNSPEC), (e, OK)]);
    let errors = driver.gpu().status().counters.errors;
    assert_eq!(errors.get(ErrorKind::Host), 2);
}

#[test]
fn a_freeze_waits_for_calls_in_flight() {
    let (mut driver, control, _, _) = with_texture();
    control.hold_answers();
    let token = begin(&mut driver, fill(10, 1));
    assert_eq!(driver.quiesce().unwrap_err().fences, 1);
    control.answer(1);
    // Not before its answer was taken.
    assert_eq!(driver.quiesce().unwrap_err().fences, 1);
    assert_eq!(completed(&mut driver), [(token, OK)]);
    driver.quiesce().unwrap();
}

#[test]
fn a_renderer_that_dies_fails_all_in_flight_and_what_comes_after() {
    let (mut driver, control, _, _) = with_texture();
    control.hold_answers();
    let alone = begin(&mut driver, fill(10, 1));
    let fence = WithFence {
        id: 7,
        ctx_id: 1,
        ring_idx: None,
    };
    let fenced = driver.fenced(fence, fill(10, 2)).unwrap_err();
    control.crash("a test said so");
    assert_eq!(completed(&mut driver), [(alone, UNSPEC), (fenced, UNSPEC)]);
    let after = begin(&mut driver, fill(10, 3));
    assert_eq!(completed(&mut driver), [(after, UNSPEC)]);
    driver.gpu().reset(ResetKind::Full);
    assert_eq!(driver.gpu().renderer_failure(), None);
    assert_eq!(driver.gpu().status().pending_fences, 0);
}

#[test]
fn an_answer_that_comes_after_a_reset_means_nothing() {
    let (mut driver, control, _, _) = with_texture();
    control.hold_answers();
    begin(&mut driver, nonsense());
    driver.gpu().reset(ResetKind::Full);
    control.answer(1);
    assert_eq!(completed(&mut driver), []);
    let features = driver.gpu().device_features();
    driver.gpu().activate(features, Activation::Fresh);
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    let token = begin(&mut driver, request::submit_3d(&[0]));
    control.answer(1);
    assert_eq!(completed(&mut driver), [(token, OK)]);
}

#[test]
fn a_guest_that_takes_no_answer_cannot_make_more_than_the_limit_wait() {
    let (mut driver, control) = limited("max_fences", 3);
    assert_eq!(driver.in_context(1, request::ctx_create(2)), OK);
    control.hold_answers();
    for _ in 0..3 {
        begin(&mut driver, request::submit_3d(&[0]));
    }
    // Answered at once, by who waits for it.
    for _ in 0..20 {
        let answer = driver.in_context(1, request::submit_3d(&[0]));
        assert_eq!(answer, OK);
    }
    assert_eq!(control.in_flight(), 3);
    driver.gpu().assert_consistent();
    control.answer(3);
    assert_eq!(completed(&mut driver).len(), 3);
}

/// Sends what `seed` says, and lets go of answers and fences when it says. What became of each command, and the picture.
fn run(mut seed: u32, is_pipelined: bool) -> (BTreeMap<u32, ResponseType>, Vec<u8>) {
    let (mut driver, control, _, _) = with_texture();
    assert_eq!(driver.set_scanout(0, 10, WHOLE), OK);
    if is_pipelined {
        control.hold_answers();
    }
    let (mut waiting, mut answers) = (BTreeMap::new(), BTreeMap::new());
    for number in 0..300 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let choice = seed >> 8;
        driver.ctx_id = 1;
        driver.fence = (choice & 1 == 0).then_some(WithFence {
            id: number.into(),
            ctx_id: 1,
            ring_idx: (choice & 6 != 0).then_some(u8::try_from(choice & 3).unwrap()),
        });
        let transfer = |id| request::transfer_3d(id, 10, &WHOLE_TRANSFER);
        let request = match choice >> 4 & 7 {
            0 => nonsense(),
            1 => transfer(CommandId::TRANSFER_TO_HOST_3D),
            2 => transfer(CommandId::TRANSFER_FROM_HOST_3D),
            3 => request::resource_flush(10, WHOLE),
            4 => request::resource_unref(number + 100),
            _ => fill(10, number),
        };
        match driver.send(Queue::Control, request) {
            Ok(answer) => drop(answers.insert(number, answer.type_())),
            Err(token) => drop(waiting.insert(token, number)),
        }
        driver.ctx_id = 0;
        control.hold_fences(choice >> 8 & 1 == 0);
        if is_pipelined {
            control.answer((choice >> 9 & 7) as usize);
        }
        collect(&mut driver, &mut waiting, &mut answers);
    }
    finish(&mut driver, &control);
    collect(&mut driver, &mut waiting, &mut answers);
    assert!(waiting.is_empty());
    assert_eq!(driver.flush(10, WHOLE), OK);
    let image = driver.scanout_image(0, false).unwrap();
    (answers, image.pixels)
}

fn finish(driver: &mut GpuDriver, control: &RendererControl) {
    control.answer(usize::MAX);
    control.hold_fences(false);
    driver.gpu().assert_consistent();
}

fn collect(
    driver: &mut GpuDriver,
    waiting: &mut BTreeMap<Token, u32>,
    answers: &mut BTreeMap<u32, ResponseType>,
) {
    for (token, answer) in completed(driver) {
        answers.insert(waiting.remove(&token).unwrap(), answer);
    }
}

#[test]
fn random_programs_are_answered_the_same_at_once_and_in_a_pipeline() {
    for seed in 0..40 {
        let seed = seed * 7919 + 1;
        assert_eq!(run(seed, true), run(seed, false), "{seed}");
    }
}
