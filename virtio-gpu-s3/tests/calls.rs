// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What goes between the device and its renderer: data of the wrong kind is refused, and a guest learns whose blame an
//! error is.

use virtio_gpu_s3::protocol::{CommandId, ResponseType};
use virtio_gpu_s3::renderer::{
    Answer, Backing, BlobMapping, Data, Operation, Renderer, StreamError, StreamSource,
};
use virtio_gpu_s3::{CrossDomainError, GuestError, NullRenderer, RendererError};
use vm_memory::VolatileSlice;

const EFAULT: i32 = 14;
const EINVAL: i32 = 22;

/// A stream in guest memory that a VMM takes away.
struct Unmapped;

impl StreamSource for Unmapped {
    fn len(&self) -> usize {
        8
    }

    fn copy_to(&self, _: &VolatileSlice<'_>) -> Result<(), GuestError> {
        Err(GuestError::ShortRequest {
            command: CommandId::SUBMIT_3D,
            len: 0,
            needed: 8,
        })
    }
}

fn code<T>(result: Result<T, RendererError>) -> Option<i32> {
    result.err().and_then(|error| match error {
        RendererError::Refused { code, .. } => Some(code),
        _ => None,
    })
}

#[test]
fn data_of_another_kind_than_the_calls_is_refused() {
    let stream: &[u8] = &[1, 2, 3, 4];
    let mut room = [0; 4];
    assert_eq!(code(Data::Bytes(stream).room()), Some(EINVAL));
    assert_eq!(code(Data::Bytes(stream).pages()), Some(EINVAL));
    assert_eq!(code(Data::Bytes(stream).stream_bytes()), Some(EINVAL));
    assert_eq!(code(Data::None.words(&mut Vec::new())), Some(EINVAL));
    assert_eq!(code(Data::Room(&mut room).bytes()), Some(EINVAL));
    assert_eq!(Data::None.bytes(), Ok(&[][..]));
    assert_eq!(Data::Bytes(stream).bytes(), Ok(stream));
    assert_eq!(Data::Room(&mut room).room().map(|room| room.len()), Ok(4));
}

#[test]
fn a_stream_comes_out_the_same_from_where_it_lay() {
    let stream: &[u8] = &[1, 0, 0, 0, 2, 0, 0, 0];
    let mut words = [1u32.to_le(), 2u32.to_le()];
    let mut buffer = vec![7; 5];
    let copied = Data::Stream(&stream).words(&mut buffer);
    assert_eq!(copied.as_deref(), Ok(&words[..]));
    assert_eq!(Data::Stream(&stream).stream_bytes(), Ok(stream.to_vec()));
    assert_eq!(Data::Words(&mut words).stream_bytes(), Ok(stream.to_vec()));
}

#[test]
fn a_stream_of_no_whole_dwords_or_of_memory_that_is_gone_is_refused() {
    let stream: &[u8] = &[1, 0, 0, 0, 2];
    assert!(!stream.is_empty());
    let refused = Data::Stream(&stream).words(&mut Vec::new()).err();
    let expected = RendererError::Stream(StreamError::NoDwords { bytes: 5 });
    assert_eq!(refused, Some(expected));
    assert_eq!(
        code(Data::Stream(&Unmapped).words(&mut Vec::new())),
        Some(EFAULT)
    );
    assert_eq!(code(Data::Stream(&Unmapped).stream_bytes()), Some(EFAULT));
}

#[test]
fn a_log_shows_the_kind_and_length_of_data_and_none_of_its_bytes() {
    let stream: &[u8] = &[0xaa; 8];
    let shown = |data: Data<'_>| format!("{data:?}");
    assert_eq!(shown(Data::None), "None(0)");
    assert_eq!(shown(Data::Bytes(stream)), "Bytes(8)");
    assert_eq!(shown(Data::Room(&mut [0xaa; 3])), "Room(3)");
    assert_eq!(shown(Data::Stream(&stream)), "Stream(8)");
    assert_eq!(shown(Data::Words(&mut [0xaa; 2])), "Words(8)");
}

#[test]
fn an_answer_of_another_kind_is_refused() {
    assert_eq!(code(Answer::Done.capset()), Some(EINVAL));
    assert_eq!(code(Answer::Capset(vec![1]).mapped()), Some(EINVAL));
    assert_eq!(Answer::Capset(vec![1]).capset(), Ok(vec![1]));
    let mapping = BlobMapping {
        resource_id: 5,
        file: None,
        address: None,
        size: 4096,
        map_info: 1,
    };
    let mapped = Answer::Mapped(mapping).mapped();
    assert_eq!(mapped.map(|it| (it.resource_id, it.size)), Ok((5, 4096)));
}

#[test]
fn what_ends_with_a_renderer_and_what_has_guest_memory_is_known_of_each_operation() {
    let resource_id = 3;
    let ends = Operation::DestroyResource { resource_id };
    assert!(ends.is_an_end());
    assert_eq!(ends.backing(), Some((3, Backing::Ends)));
    let begins = Operation::AttachBacking { resource_id };
    assert!(!begins.is_an_end());
    assert_eq!(begins.backing(), Some((3, Backing::Begins)));
    let maps = Operation::MapBlob { resource_id };
    assert!(!maps.is_an_end());
    assert_eq!(maps.backing(), None);
}

#[test]
fn a_device_without_3d_refuses_every_call_and_never_ends() {
    let mut renderer = NullRenderer;
    let refused = renderer.call(Operation::Fence.call()).err();
    assert_eq!(refused, Some(RendererError::unsupported("3D")));
    renderer.release_waits();
    assert!(renderer.capsets().is_empty() && renderer.poll().is_empty());
    assert_eq!((renderer.failure(), renderer.restart()), (None, Ok(())));
}

#[test]
fn a_guest_learns_what_was_wrong_with_its_channel() {
    for (error, response) in [
        (
            CrossDomainError::NotARing { resource_id: 1 },
            ResponseType::ERR_INVALID_RESOURCE_ID,
        ),
        (
            CrossDomainError::limit("max_channels", 1, 0),
            ResponseType::ERR_OUT_OF_MEMORY,
        ),
        (CrossDomainError::Ended, ResponseType::ERR_UNSPEC),
        (
            CrossDomainError::no_file("pipe", 2),
            ResponseType::ERR_INVALID_PARAMETER,
        ),
    ] {
        assert_eq!(error.response(), response, "{error}");
    }
}
