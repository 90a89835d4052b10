// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the fuzzers start from: programs and requests that are known to lead somewhere, kept as
//! files and run here.

use virtio_gpu_s3::Rect;
use virtio_gpu_s3::protocol::{COMMANDS, CommandId};
use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};
use virtio_gpu_s3_testing::{GuestBuffer, Step, request, run_program, run_requests};

use virtio_gpu_s3_testing::kept::check;

/// A likely command: what it takes, and its fence.
fn likely(command: CommandId, takes: &[u8], fence: u8) -> Vec<u8> {
    let mut commands = COMMANDS.iter();
    let index = commands.position(|info| info.id == command).unwrap();
    let mut bytes = vec![Step::Likely(u8::try_from(index).unwrap()).byte()];
    bytes.extend_from_slice(takes);
    bytes.push(fence);
    bytes
}

fn steps(steps: &[Step]) -> Vec<u8> {
    steps.iter().map(|step| step.byte()).collect()
}

/// Resource 1: a picture of 32 × 32 on four pages, shown and flushed.
fn picture() -> Vec<u8> {
    [
        // Id, no cursor, sides less one, format.
        likely(CommandId::RESOURCE_CREATE_2D, &[1, 1, 31, 31, 1], 0),
        // Id, entries less one, a page of each.
        likely(CommandId::RESOURCE_ATTACH_BACKING, &[1, 3, 9, 7, 5, 3], 0),
        transfer(),
        likely(CommandId::SET_SCANOUT, &[1, 0, 0, 0, 15, 15], 0),
        flush(),
    ]
    .concat()
}

fn transfer() -> Vec<u8> {
    // Id, rectangle, offset.
    likely(CommandId::TRANSFER_TO_HOST_2D, &[1, 0, 0, 15, 15, 0], 0)
}

fn flush() -> Vec<u8> {
    likely(CommandId::RESOURCE_FLUSH, &[1, 0, 0, 15, 15], 0)
}

/// Context 1 with texture 2, which a stream fills.
fn rendering(fence: u8) -> Vec<u8> {
    [
        likely(CommandId::CTX_CREATE, &[0, 0], 0),
        likely(CommandId::RESOURCE_CREATE_3D, &[2, 1, 1, 15, 15, 0, 0], 0),
        likely(CommandId::RESOURCE_ATTACH_BACKING, &[2, 0, 11], 0),
        likely(CommandId::CTX_ATTACH_RESOURCE, &[2], 0),
        likely(CommandId::SUBMIT_3D, &[2, 7], fence),
    ]
    .concat()
}

/// Blob 3 of the host, mapped.
fn blob() -> Vec<u8> {
    [
        likely(CommandId::RESOURCE_CREATE_BLOB, &[3, 1, 1], 0),
        likely(CommandId::RESOURCE_MAP_BLOB, &[3, 2], 0),
    ]
    .concat()
}

/// A program, how many frozen resets its last device sees, and whether all is answered well.
#[derive(Clone)]
struct Life {
    name: &'static str,
    program: Vec<u8>,
    frozen: u64,
    well: bool,
}

fn life(name: &'static str, frozen: u64, parts: &[Vec<u8>]) -> Life {
    Life {
        name,
        program: parts.concat(),
        frozen,
        well: true,
    }
}

fn lives_2d() -> Vec<Life> {
    let freeze = [
        picture(),
        steps(&[Step::Freeze]),
        flush(),
        steps(&[Step::Reset]),
        vec![0],
        steps(&[Step::Unfreeze]),
        transfer(),
        flush(),
        steps(&[Step::Reset]),
        picture(),
    ];
    let moves = steps(&[Step::SaveAndRestore, Step::Sleep]);
    let anew = steps(&[Step::SleepAndReboot]);
    let resize = steps(&[Step::Resize]);
    vec![
        life(
            "sleep",
            1,
            &[picture(), steps(&[Step::Sleep]), transfer(), flush()],
        ),
        life("sleep-and-reboot", 1, &[picture(), anew, picture()]),
        life("freeze", 1, &freeze),
        life(
            "save-and-restore",
            1,
            &[picture(), moves, transfer(), flush()],
        ),
        life("resize", 0, &[resize, vec![9, 9, 1], picture()]),
    ]
}

fn lives_3d() -> Vec<Life> {
    let fences = [
        steps(&[Step::HoldFences]),
        rendering(1),
        steps(&[Step::Freeze, Step::ReleaseFences, Step::Freeze]),
        likely(CommandId::SUBMIT_3D, &[2, 7], 0xc3),
        steps(&[Step::Reset]),
        vec![1],
        rendering(1),
    ];
    let moves = steps(&[Step::Remap, Step::Sleep, Step::Remap, Step::FullReset]);
    let over = steps(&[Step::Sleep, Step::FullReset]);
    let fails = steps(&[Step::Fail]);
    vec![
        life("freeze-waits-for-a-fence", 1, &fences),
        life("memory-moves", 1, &[rendering(0), moves]),
        life("blob-mapped-over-a-sleep", 1, &[rendering(0), blob(), over]),
        Life {
            well: false,
            ..life("renderer-fails", 0, &[fails, vec![2], rendering(1), blob()])
        },
    ]
}

/// Requests one after the other, on the control queue, with all features and room.
fn ring(requests: &[Vec<u8>]) -> Vec<u8> {
    let framed = requests.iter().flat_map(|request| {
        let [low, high] = u16::try_from(request.len()).unwrap().to_le_bytes();
        [vec![0, low, high], request.clone()].concat()
    });
    framed.collect()
}

fn in_context(request: Vec<u8>) -> Vec<u8> {
    request::in_context(1, request)
}

const TEXTURE: Resource3d = request::texture(16, 16);

fn requests_2d() -> Vec<Vec<u8>> {
    let page = GuestBuffer::of(&[(0x3000, 4096)]);
    let rect = Rect::sized(16, 16);
    let layout = request::layout(16, 16);
    vec![
        request::get_display_info(),
        request::get_edid(0),
        request::resource_create_2d(1, 2, 16, 16),
        request::resource_attach_backing(1, page.entries()),
        request::transfer_to_host_2d(1, rect, 0),
        request::set_scanout(0, 1, rect),
        request::resource_flush(1, rect),
        request::resource_assign_uuid(1),
        request::resource_create_blob(2, 1, 0, 4096, page.entries()),
        request::set_scanout_blob(1, 2, rect, &layout),
        request::resource_flush(2, rect),
        request::resource_detach_backing(1),
        request::resource_unref(1),
    ]
}

fn requests_3d() -> Vec<Vec<u8>> {
    let page = GuestBuffer::of(&[(0x3000, 4096)]);
    let whole = Transfer3d {
        stride: 64,
        ..request::whole(&TEXTURE)
    };
    vec![
        request::get_capset_info(0),
        request::get_capset(2, 1),
        in_context(request::ctx_create(2)),
        request::resource_create_3d(1, &TEXTURE),
        request::resource_attach_backing(1, page.entries()),
        in_context(request::ctx_attach_resource(1)),
        in_context(request::transfer_3d(
            CommandId::TRANSFER_TO_HOST_3D,
            1,
            &whole,
        )),
        in_context(request::submit_3d(&[0, 1, 1, 0xff])),
        in_context(request::resource_create_blob(2, 2, 1, 4096, &[])),
        request::resource_map_blob(2, 0),
        request::resource_unmap_blob(2),
        in_context(request::ctx_detach_resource(1)),
        in_context(request::ctx_destroy()),
    ]
}

/// Streams of virgl, which are read as such beside the device.
fn streams() -> Vec<Vec<u8>> {
    let of = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut transfer = vec![43 | 13 << 16, 2, 0, 0, 256, 0, 0, 0, 0, 64, 64, 1, 0, 1];
    let copy = [45 | 14 << 16, 2, 1, 0, 0, 0, 0, 0, 0, 32, 32, 1, 3, 64, 1];
    let mut write = vec![9 | 15 << 16, 2, 2, 0, 0, 0, 0, 0, 0, 2, 2, 1];
    write.extend([0; 4]);
    transfer.extend(copy);
    let create = [
        29 | 1 << 16,
        1,
        48 | 11 << 16,
        2,
        1,
        2,
        8,
        8,
        1,
        1,
        0,
        0,
        0,
        5,
    ];
    vec![of(&transfer), of(&write), of(&create)]
}

fn rings() -> Vec<(&'static str, Vec<u8>)> {
    let mut cursor = ring(&[
        request::resource_create_2d(1, 1, 64, 64),
        request::update_cursor(0, 1, 3, -4, 1, 1),
        request::move_cursor(0, 5, 6),
    ]);
    // The cursor's own requests go to its queue.
    let second = 3 + 40;
    cursor[second] = 1;
    cursor[second + 3 + 56] = 1;
    vec![
        ("2d", ring(&requests_2d())),
        ("3d", ring(&requests_3d())),
        ("cursor", cursor),
        ("streams", ring(&streams())),
        // One of each command, and nothing in it.
        (
            "empty",
            ring(
                &COMMANDS
                    .iter()
                    .map(|info| request::empty(info.id))
                    .collect::<Vec<_>>(),
            ),
        ),
    ]
}

#[test]
fn the_kept_lives_lead_where_they_should() {
    let lives = [lives_2d(), lives_3d()].concat();
    let seeds: Vec<_> = lives
        .iter()
        .map(|it| (it.name, it.program.clone()))
        .collect();
    check("gpu_lifecycle", &seeds);
    for life in lives {
        let counters = run_program(&life.program);
        assert_eq!(counters.frozen_resets, life.frozen, "{}", life.name);
        let well = counters.errors.total() == 0;
        assert_eq!(well, life.well, "{}: {:?}", life.name, counters.errors);
    }
}

#[test]
fn the_kept_requests_are_answered_as_they_should() {
    let seeds = rings();
    check("gpu_command", &seeds);
    for (name, requests) in seeds {
        let counters = run_requests(&requests);
        let well = !["streams", "empty"].contains(&name);
        assert_eq!(counters.errors.total() == 0, well, "{name}: {counters:?}");
    }
}
