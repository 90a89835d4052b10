// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of the host in shared memory region 1, through the BAR.

use virtio_gpu_s3::Rect;
use virtio_gpu_s3::protocol::{CommandId, ResponseType};
use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};
use virtio_gpu_s3_testing::scene::TEXTURE;
use virtio_gpu_s3_testing::{GuestBuffer, request};
use virtio_gpu_worker::Controlled;
use virtio_pci_freeze::spec::{cap_type, pci};
use virtio_pci_freeze::{BarLayout, Register};
use vm_memory::{Bytes, GuestAddress};

use crate::virgl::send;
use crate::vmm::{RAM_BASE, Server, Vmm, wait_until};

const OK: ResponseType = ResponseType::OK_NODATA;
pub(crate) const MAPPED: ResponseType = ResponseType::OK_MAP_INFO;
const BYTES: u32 = 4096;
/// Behind the rings and buffers.
const BACKING: u64 = RAM_BASE + 0x4_0000;
/// Where blob 40 is mapped.
const AT: u64 = 0x3000;

pub(crate) fn read(vmm: &mut Vmm, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    let bar = BarLayout::SHARED_MEMORY.into();
    vmm.client.region_read(bar, offset, &mut bytes).unwrap();
    bytes
}

pub(crate) fn write(vmm: &mut Vmm, offset: u64, bytes: &[u8]) {
    let bar = BarLayout::SHARED_MEMORY.into();
    vmm.client.region_write(bar, offset, bytes).unwrap();
}

pub(crate) fn map(vmm: &mut Vmm, id: u32, offset: u64) -> ResponseType {
    send(vmm, &request::resource_map_blob(id, offset))
}

/// Where the capability with this id is that has `kind` at its fourth byte, as virtio's have their type.
fn capability(config: &[u8; 256], id: u8, kind: u8) -> Option<usize> {
    let mut at = usize::from(config[0x34]);
    while at != 0 {
        if (config[at], config[at + 3]) == (id, kind) {
            return Some(at);
        }
        at = config[at + 1].into();
    }
    None
}

fn config_space(vmm: &mut Vmm) -> [u8; 256] {
    let mut config = [0; 256];
    vmm.read_config(0, &mut config);
    config
}

/// Id, offset and length of the region, as its capability says (VIRTIO 1.4 §4.1.4.7).
fn shared_memory(vmm: &mut Vmm) -> Option<(u8, u64, u64)> {
    let config = config_space(vmm);
    let at = capability(&config, pci::CAP_VENDOR, cap_type::SHARED_MEMORY_CFG)?;
    let word = |offset| u32::from_le_bytes(config[at + offset..][..4].try_into().unwrap());
    let wide = |low, high| u64::from(word(low)) | u64::from(word(high)) << 32;
    assert_eq!(config[at + 4], BarLayout::SHARED_MEMORY);
    Some((config[at + 5], wide(8, 16), wide(12, 20)))
}

fn blob_request(ctx_id: u32, id: u32, blob_id: u64) -> Vec<u8> {
    let mut create = request::resource_create_blob(id, 2, 1, BYTES.into(), &[]);
    create[40..48].copy_from_slice(&blob_id.to_le_bytes());
    request::in_context(ctx_id, create)
}

/// Numbers of virgl_protocol.h.
const COPY_REGION: u32 = 17;
const INLINE_WRITE: u32 = 9;
const CREATE_PIPE_RESOURCE: u32 = 48;
const R8: u32 = 64;
const BIND_VERTICES: u32 = 1 << 4;
/// VIRGL_RESOURCE_FLAG_MAP_PERSISTENT and _COHERENT.
const MAPPABLE: u32 = 2 | 4;

fn stream(command: u32, body: &[u32]) -> Vec<u8> {
    let header = command | u32::try_from(body.len()).unwrap() << 16;
    request::submit_3d(&[&[header], body].concat())
}

/// A context with a buffer of OpenGL that the guest may map, blob 40, and an ordinary one, 20.
pub(crate) fn make_buffers(vmm: &mut Vmm) {
    let buffer = Resource3d {
        target: 0,
        format: R8,
        bind: BIND_VERTICES,
        width: BYTES,
        height: 1,
        ..TEXTURE
    };
    let backing = GuestBuffer::of(&[(BACKING, BYTES)]);
    let body = [0, R8, BIND_VERTICES, BYTES, 1, 1, 1, 0, 0, MAPPABLE, 40];
    for request in [
        request::in_context(1, request::ctx_create(2)),
        request::fenced(1, 1, stream(CREATE_PIPE_RESOURCE, &body)),
        blob_request(1, 40, 40),
        request::in_context(1, request::ctx_attach_resource(40)),
        request::resource_create_3d(20, &buffer),
        request::resource_attach_backing(20, backing.entries()),
        request::in_context(1, request::ctx_attach_resource(20)),
    ] {
        assert_eq!(send(vmm, &request), OK);
    }
}

/// The bytes of blob 40 as OpenGL has them, by way of buffer 20 and guest memory.
fn seen_by_opengl(vmm: &mut Vmm) -> Vec<u8> {
    let copy = [20, 0, 0, 0, 0, 40, 0, 0, 0, 0, BYTES, 1, 1];
    let whole = Transfer3d {
        w: BYTES,
        h: 1,
        ..request::whole(&TEXTURE)
    };
    let transfer = request::transfer_3d(CommandId::TRANSFER_FROM_HOST_3D, 20, &whole);
    for request in [
        request::fenced(1, 2, stream(COPY_REGION, &copy)),
        request::fenced(1, 3, transfer),
    ] {
        assert_eq!(send(vmm, &request), OK);
    }
    let mut bytes = vec![0; BYTES as usize];
    let at = GuestAddress(BACKING);
    vmm.memory.read_slice(&mut bytes, at).unwrap();
    bytes
}

fn sleep_and_wake(vmm: &mut Vmm) {
    vmm.write(Register::FreezeMode, 3);
    wait_until("the freeze", || vmm.read(Register::FreezeMode) == 3);
    vmm.reset_driver();
    vmm.negotiate();
    vmm.write(Register::DeviceStatus, 0xf);
    vmm.write(Register::FreezeMode, 0);
}

#[test]
fn a_buffer_of_opengl_in_the_region_is_the_same_to_both_sides_and_over_a_frozen_reset() {
    let server = Server::start_with("backend=virgl,hostmem=16M");
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    assert_eq!(shared_memory(&mut vmm), Some((1, 0, 16 << 20)));
    make_buffers(&mut vmm);
    for offset in [AT + 1, 16 << 20, u64::MAX - 0xfff] {
        let refused = map(&mut vmm, 40, offset);
        assert_eq!(refused, ResponseType::ERR_INVALID_PARAMETER, "{offset:#x}");
    }
    assert_eq!(map(&mut vmm, 40, AT), MAPPED);

    // The guest writes as processors do, and OpenGL has it.
    for (offset, bytes) in [(0, &[1][..]), (6, &[2, 3]), (8, &[4; 4]), (16, &[5; 8])] {
        write(&mut vmm, AT + offset, bytes);
    }
    write(&mut vmm, AT + 4095, &[9]);
    let bytes = seen_by_opengl(&mut vmm);
    let start = [1, 0, 0, 0, 0, 0, 2, 3, 4, 4, 4, 4, 0, 0, 0, 0, 5];
    assert_eq!(bytes[..17], start);
    assert_eq!(bytes[4095], 9);
    // OpenGL writes, and the guest sees it.
    let body = [20, 0, 0, 0, 0, 0, 0, 0, 8, 1, 1, 0x0706_0504, 0x0b0a_0908];
    let copy = [40, 0, 100, 0, 0, 20, 0, 0, 0, 0, 8, 1, 1];
    for stream in [stream(INLINE_WRITE, &body), stream(COPY_REGION, &copy)] {
        assert_eq!(send(&mut vmm, &request::fenced(1, 4, stream)), OK);
    }
    assert_eq!(read(&mut vmm, AT + 100, 8), [4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(read(&mut vmm, AT - 4, 4), [0; 4]);
    assert_eq!(read(&mut vmm, AT + 4096, 8), [0; 8]);

    let before = read(&mut vmm, AT, BYTES as usize);
    sleep_and_wake(&mut vmm);
    assert_eq!(read(&mut vmm, AT, BYTES as usize), before);
    write(&mut vmm, AT + 1, &[8]);
    assert_eq!(seen_by_opengl(&mut vmm)[..2], [1, 8]);

    // A driver that starts anew finds nothing there.
    vmm.client.reset().unwrap();
    drop(vmm);
    wait_until("the end of the guest", || {
        server.device.status().unwrap().resources == 0
    });
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    assert_eq!(read(&mut vmm, AT, 8), [0; 8]);
}

#[test]
fn the_region_is_reached_through_configuration_space_too_and_by_nobody_in_d3hot() {
    let server = Server::start_with("backend=virgl,hostmem=16M");
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    make_buffers(&mut vmm);
    assert_eq!(map(&mut vmm, 40, AT), MAPPED);
    write(&mut vmm, AT, &[1, 2, 3, 4]);

    let config = config_space(&mut vmm);
    let window = capability(&config, pci::CAP_VENDOR, cap_type::PCI_CFG).unwrap() as u64;
    vmm.write_config(window + 4, &[BarLayout::SHARED_MEMORY]);
    vmm.write_config(window + 8, &u32::try_from(AT).unwrap().to_le_bytes());
    vmm.write_config(window + 12, &[4, 0, 0, 0]);
    let mut data = [0; 4];
    vmm.read_config(window + 16, &mut data);
    assert_eq!(data, [1, 2, 3, 4]);
    vmm.write_config(window + 16, &[5, 6, 7, 8]);
    assert_eq!(read(&mut vmm, AT, 4), [5, 6, 7, 8]);

    let power = capability(&config, pci::CAP_PM, 0).unwrap() as u64;
    vmm.write_config(power + 4, &[3, 0]);
    assert_eq!(read(&mut vmm, AT, 4), [0xff; 4]);
    vmm.read_config(window + 16, &mut data);
    assert_eq!(data, [0xff; 4]);
    write(&mut vmm, AT, &[9; 4]);
    vmm.write_config(window + 16, &[9; 4]);
    vmm.write_config(power + 4, &[0, 0]);
    assert_eq!(read(&mut vmm, AT, 4), [5, 6, 7, 8]);
}

/// Numbers of venus' commands, and the flag that asks for an answer.
const SET_REPLY_STREAM: u32 = 178;
const EXECUTE_STREAMS: u32 = 180;
const ENUMERATE_INSTANCE_VERSION: u32 = 137;
const WITH_REPLY: u32 = 1;

/// Asks for Vulkan's version. The question is in blob `id` at 2048, and the answer comes to its start.
fn ask_version(id: u32) -> Vec<u8> {
    let reply = [SET_REPLY_STREAM, 0, 1, 0, id, 0, 0, 2048, 0];
    // One stream: in the blob, from 2048 on, 16 bytes. No positions of replies, no dependencies, no flags.
    let execute = [
        EXECUTE_STREAMS,
        0,
        1,
        1,
        0,
        id,
        2048,
        0,
        16,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    request::submit_3d(&[reply.as_slice(), &execute].concat())
}

#[test]
fn vulkan_reads_its_commands_from_the_region_and_answers_there() {
    let server = Server::start_with("backend=virgl,venus=on,hostmem=16M");
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    for request in [
        request::in_context(1, request::ctx_create(4)),
        blob_request(1, 50, 0),
        request::in_context(1, request::ctx_attach_resource(50)),
    ] {
        assert_eq!(send(&mut vmm, &request), OK);
    }
    assert_eq!(map(&mut vmm, 50, AT), MAPPED);
    let question = [ENUMERATE_INSTANCE_VERSION, WITH_REPLY, 1, 0];
    let question: Vec<_> = question
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    for round in 1..=2_u8 {
        write(&mut vmm, AT + 2048, &question);
        write(&mut vmm, AT, &[0xff; 20]);
        let ask = request::fenced(1, round.into(), ask_version(50));
        assert_eq!(send(&mut vmm, &ask), OK);
        let answer = read(&mut vmm, AT, 20);
        let (words, _) = answer.as_chunks::<4>();
        let words: Vec<_> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        // The command, success, a pointer that is there, and at least version 1.1.
        assert_eq!(words[..4], [ENUMERATE_INSTANCE_VERSION, 0, 1, 0]);
        assert!(words[4] >= 1 << 22 | 1 << 12, "{:x}", words[4]);
        sleep_and_wake(&mut vmm);
        assert_eq!(read(&mut vmm, AT, 20), answer);
    }
    // The renderer's own look at it: a screen of 32 x 32 pixels.
    write(&mut vmm, AT, &[1, 2, 3, 0]);
    let layout = request::layout(32, 32);
    let rect = Rect::sized(32, 32);
    let show = request::set_scanout_blob(0, 50, rect, &layout);
    assert_eq!(send(&mut vmm, &show), OK);
    assert_eq!(send(&mut vmm, &request::resource_flush(50, rect)), OK);
    let image = server.device.screenshot(0, false).unwrap().image;
    assert_eq!(image.pixels[..4], [3, 2, 1, 255]);
    // What was unmapped is not there, and can be mapped elsewhere.
    assert_eq!(send(&mut vmm, &request::resource_unmap_blob(50)), OK);
    assert_eq!(read(&mut vmm, AT, 4), [0; 4]);
    assert_eq!(map(&mut vmm, 50, 0), MAPPED);
    assert_eq!(read(&mut vmm, 0, 4), [1, 2, 3, 0]);
}

#[test]
fn without_hostmem_there_is_no_region_and_nothing_to_map() {
    let server = Server::start_with("backend=virgl");
    let mut vmm = Vmm::connect(&server.socket());
    vmm.start_driver();
    assert_eq!(shared_memory(&mut vmm), None);
    assert_eq!(server.device.bar_size(BarLayout::SHARED_MEMORY), 0);
    assert_eq!(map(&mut vmm, 1, 0), ResponseType::ERR_UNSPEC);
}
