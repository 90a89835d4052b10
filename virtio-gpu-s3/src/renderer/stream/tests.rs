// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use super::*;
use crate::command_error::CommandError;
use crate::renderer::RendererError;
use crate::status::ErrorKind;

/// The numbers as a stream has them.
mod command {
    use super::Number;

    pub(super) const INLINE_WRITE: u32 = Number::RESOURCE_INLINE_WRITE.0 as u32;
    pub(super) const CREATE_SUB_CONTEXT: u32 = Number::CREATE_SUB_CTX.0 as u32;
    pub(super) const DESTROY_SUB_CONTEXT: u32 = Number::DESTROY_SUB_CTX.0 as u32;
    pub(super) const TRANSFER3D: u32 = Number::TRANSFER3D.0 as u32;
    pub(super) const COPY_TRANSFER3D: u32 = Number::COPY_TRANSFER3D.0 as u32;
    pub(super) const CREATE_RESOURCE: u32 = Number::PIPE_RESOURCE_CREATE.0 as u32;
}

const TEXTURE: Resource3d = Resource3d {
    target: 2,
    format: 1,
    bind: 2,
    width: 64,
    height: 64,
    depth: 1,
    array_size: 1,
    last_level: 0,
    nr_samples: 0,
    flags: 0,
};

/// Resource 10 is a texture with its memory, 11 is memory alone, 12 is a blob without.
fn target(id: u32) -> Option<Target<'static>> {
    let of = |params, backing| Some(Target { params, backing });
    match id {
        10 => of(Some(&TEXTURE), 64 * 64 * 4),
        11 => of(None, 100),
        12 => of(None, 0),
        _ => None,
    }
}

fn run(stream: &[u32]) -> Result<(), StreamError> {
    check(stream, target, &mut Growth::default())
}

fn with(number: u32, body: &[u32]) -> Vec<u32> {
    let mut stream = vec![number | u32::try_from(body.len()).unwrap() << 16];
    stream.extend_from_slice(body);
    stream
}

/// Resource, level, usage, strides, box of the whole texture.
const WHOLE: [u32; 11] = [10, 0, 0, 0, 0, 0, 0, 0, 64, 64, 1];

fn transfer(head: [u32; 11], offset: u32) -> Vec<u32> {
    let mut body = head.to_vec();
    body.extend([offset, 1]);
    with(command::TRANSFER3D, &body)
}

fn copy_transfer(head: [u32; 11], staging: u32, offset: u32) -> Vec<u32> {
    let mut body = head.to_vec();
    body.extend([staging, offset, 1]);
    with(command::COPY_TRANSFER3D, &body)
}

fn inline_write(head: [u32; 11], data: usize) -> Vec<u32> {
    let mut body = head.to_vec();
    body.extend(vec![0; data]);
    with(command::INLINE_WRITE, &body)
}

/// [`WHOLE`] with some fields changed.
fn changed<const N: usize>(changes: [(usize, u32); N]) -> [u32; 11] {
    let mut head = WHOLE;
    for (at, value) in changes {
        head[at] = value;
    }
    head
}

#[test]
fn what_drivers_send_is_given_as_it_is() {
    let mut stream = with(0, &[]);
    stream.extend(with(7, &[4, 0, 0, 0, 0, 0, 0, 0]));
    stream.extend(transfer(WHOLE, 0));
    stream.extend(copy_transfer(changed([(9, 1)]), 11, 0));
    stream.extend(inline_write(changed([(8, 4), (9, 4)]), 16));
    stream.extend(with(command::CREATE_SUB_CONTEXT, &[1]));
    assert_eq!(run(&stream), Ok(()));
    assert_eq!(run(&[]), Ok(()));
}

#[test]
fn a_command_longer_than_its_stream_is_refused() {
    for (stream, left) in [(vec![7 | 8 << 16, 4], 1), (vec![8 | 0xffff << 16], 0)] {
        let error = run(&stream).unwrap_err();
        assert!(
            matches!(error, StreamError::Truncated { left: found, .. } if found == left),
            "{error}"
        );
    }
}

#[test]
fn a_command_that_no_version_has_is_refused() {
    assert_eq!(run(&[64]), Ok(()));
    for number in [65, 0xff] {
        let error = run(&[0, number]).unwrap_err();
        let expected = StreamError::Unknown {
            command: number,
            at: 1,
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_transfer_of_too_few_dwords_is_refused() {
    for (number, needed) in [
        (command::INLINE_WRITE, 12),
        (command::TRANSFER3D, 13),
        (command::COPY_TRANSFER3D, 14),
        (command::CREATE_RESOURCE, 11),
        (command::CREATE_SUB_CONTEXT, 1),
        (command::DESTROY_SUB_CONTEXT, 1),
    ] {
        for length in 0..needed {
            let error = run(&with(number, &vec![10; length])).unwrap_err();
            let expected = StreamError::Short {
                command: number,
                at: 0,
                length,
                needed,
            };
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn a_transfer_of_no_resource_is_refused() {
    let unknown = changed([(0, 99)]);
    for stream in [
        transfer(unknown, 0),
        copy_transfer(unknown, 11, 0),
        copy_transfer(changed([(9, 1)]), 99, 0),
        inline_write(unknown, 1),
    ] {
        let error = run(&stream).unwrap_err();
        assert!(
            matches!(error, StreamError::NoSuchResource { id: 99, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_mistake_in_a_stream_is_the_guests_and_has_the_answer_of_its_kind() {
    let many = (0..1025).flat_map(|id| with(command::CREATE_SUB_CONTEXT, &[id]));
    for (stream, answer) in [
        (vec![0xff], ResponseType::ERR_UNSPEC),
        (vec![7 | 8 << 16, 4], ResponseType::ERR_INVALID_PARAMETER),
        (
            with(command::TRANSFER3D, &[10]),
            ResponseType::ERR_INVALID_PARAMETER,
        ),
        (
            transfer(changed([(0, 99)]), 0),
            ResponseType::ERR_INVALID_RESOURCE_ID,
        ),
        (
            transfer(changed([(8, 65)]), 0),
            ResponseType::ERR_INVALID_PARAMETER,
        ),
        (many.collect(), ResponseType::ERR_OUT_OF_MEMORY),
    ] {
        let error = RendererError::from(run(&stream).unwrap_err());
        let error = CommandError::from(error);
        assert_eq!(error.response(), answer, "{error}");
        assert_eq!(error.kind(), ErrorKind::Stream, "{error}");
    }
}

#[test]
fn boxes_outside_their_resource_are_refused_in_every_command() {
    // CVE-2019-18389 to 18391: boxes that are negative, huge, or of another level.
    let max = u32::MAX;
    for head in [
        changed([(5, 1)]),
        changed([(6, 1)]),
        changed([(7, 1)]),
        changed([(8, 65)]),
        changed([(9, max)]),
        changed([(10, 2)]),
        changed([(5, max), (8, 2)]),
        changed([(6, 1 << 31), (9, 1 << 31)]),
        changed([(1, 1)]),
        changed([(1, max)]),
    ] {
        for stream in [
            transfer(head, 0),
            copy_transfer(head, 10, 0),
            inline_write(head, 4096),
        ] {
            let error = run(&stream).unwrap_err();
            assert!(
                matches!(error, StreamError::Outside { id: 10, .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn rows_outside_their_memory_are_refused_whatever_wraps_in_32_bits() {
    let max = u32::MAX;
    for stream in [
        transfer(WHOLE, 64 * 64 * 4 + 1),
        transfer(WHOLE, max),
        transfer(changed([(3, max)]), 0),
        transfer(changed([(3, 1 << 31)]), 0),
        transfer(changed([(3, 0x0410_4105)]), 0),
        copy_transfer(changed([(9, 2), (3, 101)]), 11, 0),
        copy_transfer(changed([(9, 1)]), 11, 101),
        copy_transfer(changed([(9, 1)]), 12, 1),
        inline_write(changed([(9, 2), (3, 256)]), 1),
        inline_write(changed([(3, max)]), 4096),
    ] {
        let error = run(&stream).unwrap_err();
        assert!(
            matches!(error, StreamError::Outside { id: 10, .. }),
            "{error}"
        );
    }
    // A blob's kind is its context's to know, its volume is not.
    let error = run(&transfer(changed([(0, 12), (8, 1 << 20), (9, 1 << 20)]), 0));
    assert!(matches!(error, Err(StreamError::Outside { id: 12, .. })));
}

#[test]
fn a_context_has_so_many_sub_contexts_and_no_more() {
    let mut growth = Growth::default();
    let begin = |id| with(command::CREATE_SUB_CONTEXT, &[id]);
    let all: Vec<u32> = (0..1024).flat_map(begin).collect();
    assert_eq!(check(&all, target, &mut growth), Ok(()));
    let error = check(&begin(5000), target, &mut growth).unwrap_err();
    assert!(matches!(error, StreamError::TooMuch { asked: 1025, .. }));
    let end = with(command::DESTROY_SUB_CONTEXT, &[7]);
    assert_eq!(check(&end, target, &mut growth), Ok(()));
    assert_eq!(check(&begin(5000), target, &mut growth), Ok(()));
}

#[test]
fn resources_made_in_a_stream_are_counted_until_a_blob_takes_them() {
    let mut growth = Growth::default();
    let make = |blob_id, side| {
        let body = [2, 1, 2, side, side, 1, 1, 0, 0, 0, blob_id];
        with(command::CREATE_RESOURCE, &body)
    };
    // 1 GiB and no byte more.
    let mut stream = make(1, 16_384);
    assert_eq!(check(&stream, target, &mut growth), Ok(()));
    let error = check(&make(2, 1), target, &mut growth).unwrap_err();
    assert!(matches!(error, StreamError::TooMuch { .. }), "{error}");
    // The same number again frees nothing.
    check(&make(1, 1), target, &mut growth).unwrap_err();
    growth.take(1);
    assert_eq!(check(&make(2, 1), target, &mut growth), Ok(()));
    growth.take(u64::MAX);
    growth.take(2);
    // What is refused at its end changed nothing.
    stream.push(0xff);
    check(&stream, target, &mut growth).unwrap_err();
    assert_eq!((growth.untaken.len(), growth.untaken_bytes), (0, 0));
    let many: Vec<u32> = (0..1025).flat_map(|id| make(id, 1)).collect();
    check(&many, target, &mut growth).unwrap_err();
}
