// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests that mostly mean something: few ids, small sizes, memory that is there.

use super::Code;
use crate::request;
use virtio_gpu_s3::PixelFormat;
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::command::BlobLayout;
use virtio_gpu_s3::protocol::{CommandId, wire::MemEntry};
use virtio_gpu_s3::renderer::{Resource3d, Transfer3d};

const PAGES: u8 = 200;

pub(crate) fn request(command: CommandId, code: &mut Code<'_>) -> Vec<u8> {
    let id = code.below(4);
    match command {
        CommandId::GET_EDID => request::get_edid(code.below(2)),
        CommandId::RESOURCE_CREATE_2D => {
            let cursor = code.value().is_multiple_of(8);
            let (width, height) = if cursor {
                (64, 64)
            } else {
                (size(code), size(code))
            };
            request::resource_create_2d(id, format(code).format().0, width, height)
        }
        CommandId::RESOURCE_UNREF => request::resource_unref(id),
        CommandId::SET_SCANOUT => request::set_scanout(code.below(2), id, rect(code)),
        CommandId::RESOURCE_FLUSH => request::resource_flush(id, rect(code)),
        CommandId::TRANSFER_TO_HOST_2D => {
            let rect = rect(code);
            request::transfer_to_host_2d(id, rect, u64::from(code.word()))
        }
        CommandId::RESOURCE_ATTACH_BACKING => request::resource_attach_backing(id, &entries(code)),
        CommandId::RESOURCE_DETACH_BACKING => request::resource_detach_backing(id),
        CommandId::RESOURCE_ASSIGN_UUID => request::resource_assign_uuid(id),
        CommandId::UPDATE_CURSOR => request::update_cursor(code.below(2), id, 3, -4, 0, 0),
        CommandId::MOVE_CURSOR => request::move_cursor(code.below(2), -9, 5),
        _ => blob_or_3d(command, id, code),
    }
}

fn blob_or_3d(command: CommandId, id: u32, code: &mut Code<'_>) -> Vec<u8> {
    match command {
        CommandId::RESOURCE_CREATE_BLOB => {
            let blob_mem = code.below(3).saturating_add(1);
            let entries = if blob_mem == 2 { vec![] } else { entries(code) };
            request::resource_create_blob(id, blob_mem, code.below(4), 4096, &entries)
        }
        CommandId::SET_SCANOUT_BLOB => {
            let layout = BlobLayout {
                width: size(code),
                height: size(code),
                format: format(code),
                stride: 128,
                offset: code.below(8).wrapping_mul(4),
            };
            request::set_scanout_blob(code.below(2), id, rect(code), &layout)
        }
        CommandId::GET_CAPSET_INFO => request::get_capset_info(code.below(2)),
        CommandId::GET_CAPSET => request::get_capset(code.below(3), code.below(3)),
        CommandId::CTX_CREATE => request::ctx_create(code.below(3)),
        // Once in a while: all else in a context needs one.
        CommandId::CTX_DESTROY if code.value() > 64 => request::get_display_info(),
        CommandId::CTX_ATTACH_RESOURCE => request::ctx_attach_resource(id),
        CommandId::CTX_DETACH_RESOURCE => request::ctx_detach_resource(id),
        CommandId::RESOURCE_CREATE_3D => request::resource_create_3d(id, &texture(code)),
        CommandId::TRANSFER_TO_HOST_3D | CommandId::TRANSFER_FROM_HOST_3D => {
            request::transfer_3d(command, id, &transfer(code))
        }
        CommandId::SUBMIT_3D => request::submit_3d(&[0, 1, id, code.word()]),
        CommandId::RESOURCE_MAP_BLOB => {
            request::resource_map_blob(id, u64::from(code.below(20)) * 4096)
        }
        CommandId::RESOURCE_UNMAP_BLOB => request::resource_unmap_blob(id),
        command => request::empty(command),
    }
}

fn size(code: &mut Code<'_>) -> u32 {
    code.below(32).saturating_add(1)
}

fn format(code: &mut Code<'_>) -> PixelFormat {
    PixelFormat::ALL[usize::from(code.value() & 7)]
}

fn rect(code: &mut Code<'_>) -> Rect {
    Rect {
        x: code.below(4),
        y: code.below(4),
        width: code.below(16),
        height: code.below(16),
    }
}

/// One to four pages anywhere in memory, now and then beyond it.
fn entries(code: &mut Code<'_>) -> Vec<MemEntry> {
    let count = 1 + code.value() % 4;
    let page = |code: &mut Code<'_>| u64::from(code.below(PAGES)) * 4096;
    let entries = (0..count).map(|_| MemEntry {
        addr: page(code).into(),
        length: 4096.into(),
        padding: 0.into(),
    });
    entries.collect()
}

fn texture(code: &mut Code<'_>) -> Resource3d {
    Resource3d {
        target: code.below(2).wrapping_mul(2),
        format: format(code).format().0,
        bind: 2,
        width: size(code),
        height: size(code),
        depth: 1,
        array_size: 1,
        last_level: code.below(2),
        nr_samples: code.below(2),
        flags: 0,
    }
}

fn transfer(code: &mut Code<'_>) -> Transfer3d {
    let Rect {
        x,
        y,
        width,
        height,
    } = rect(code);
    Transfer3d {
        x,
        y,
        z: 0,
        w: width,
        h: height,
        d: 1,
        offset: u64::from(code.below(200)),
        level: 0,
        stride: 0,
        layer_stride: 0,
    }
}
