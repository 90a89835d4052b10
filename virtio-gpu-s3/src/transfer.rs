// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a 3D transfer may touch, whether a command of the queue or one inside a stream asks.

use crate::error::GuestError;
use crate::renderer::{Resource3d, Transfer3d};

/// R8_UNORM, which buffers are made of: a texel is a byte.
const R8_UNORM: u32 = 64;
/// Bytes of the largest texel (R32G32B32A32), and of the largest compressed block.
const MAX_TEXEL_BYTES: u64 = 16;

/// The box lies inside its mip level (CVE-2019-18390: a renderer may not check).
pub(crate) fn check_box(params: &Resource3d, transfer: &Transfer3d) -> Result<(), GuestError> {
    let refuse = |field, value| Err(GuestError::Parameter { field, value });
    if transfer.level > params.last_level {
        return refuse("level", transfer.level.into());
    }
    let minified = |size: u32| u64::from(size.checked_shr(transfer.level).unwrap_or(0).max(1));
    let layers = minified(params.depth).max(params.array_size.into());
    for (field, start, length, size) in [
        (
            "box.x + box.w",
            transfer.x,
            transfer.w,
            minified(params.width),
        ),
        (
            "box.y + box.h",
            transfer.y,
            transfer.h,
            minified(params.height),
        ),
        ("box.z + box.d", transfer.z, transfer.d, layers),
    ] {
        let end = u64::from(start).saturating_add(length.into());
        if end > size {
            return refuse(field, end);
        }
    }
    check_volume(params.format, transfer)
}

/// The bytes of the box fit 32 bits, whatever its format: virglrenderer 0.10.4 counts them in as
/// many, allocates what it counted, and fills the whole.
fn check_volume(format: u32, transfer: &Transfer3d) -> Result<(), GuestError> {
    let texel = if format == R8_UNORM {
        1
    } else {
        MAX_TEXEL_BYTES
    };
    let value = [transfer.w, transfer.h, transfer.d]
        .into_iter()
        .map(u64::from)
        .fold(texel, u64::saturating_mul);
    if value > u32::MAX.into() {
        let field = "box.w * box.h * box.d";
        return Err(GuestError::Parameter { field, value });
    }
    Ok(())
}

/// The last row begins inside the memory, and its end fits 32 bits. The renderer knows the bytes
/// of a row and checks its end, but virglrenderer 0.10.4 does so in 32 bits.
pub(crate) fn check_span(transfer: &Transfer3d, memory: u64) -> Result<(), GuestError> {
    let times = |count: u32, stride: u32| u64::from(count).saturating_mul(stride.into());
    let sum = |parts: [u64; 2]| parts.into_iter().fold(transfer.offset, u64::saturating_add);
    let start = sum([
        times(transfer.h.saturating_sub(1), transfer.stride),
        times(transfer.d.saturating_sub(1), transfer.layer_stride),
    ]);
    // A stride means something only where there is a next row.
    let end = sum([
        if transfer.h > 1 {
            times(transfer.h, transfer.stride)
        } else {
            0
        },
        if transfer.d > 1 {
            times(transfer.d, transfer.layer_stride)
        } else {
            0
        },
    ]);
    if start > memory || end > u32::MAX.into() {
        let field = "offset";
        let value = start.max(end);
        return Err(GuestError::Parameter { field, value });
    }
    Ok(())
}

/// `Ok` if the transfer fits the resource, where its kind is known, and `memory` bytes.
///
/// # Errors
/// What is outside.
pub fn check_transfer(
    params: Option<&Resource3d>,
    transfer: &Transfer3d,
    memory: u64,
) -> Result<(), GuestError> {
    match params {
        Some(params) => check_box(params, transfer)?,
        None => check_volume(0, transfer)?,
    }
    check_span(transfer, memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Resource3d = Resource3d {
        target: 2,
        // R32G32B32A32_FLOAT.
        format: 31,
        bind: 2,
        width: 16_384,
        height: 16_384,
        depth: 1,
        array_size: 1,
        last_level: 0,
        nr_samples: 0,
        flags: 0,
    };
    const WHOLE: Transfer3d = Transfer3d {
        x: 0,
        y: 0,
        z: 0,
        w: 16_384,
        h: 16_384,
        d: 1,
        offset: 0,
        level: 0,
        stride: 0,
        layer_stride: 0,
    };

    #[test]
    fn a_box_whose_bytes_do_not_fit_32_bits_is_refused() {
        // 2^32 bytes: virglrenderer 0.10.4 allocates none of them and writes them all.
        check_box(&LARGE, &WHOLE).unwrap_err();
        let less = Transfer3d { h: 16_383, ..WHOLE };
        check_box(&LARGE, &less).unwrap();
        let bytes = Resource3d {
            target: 0,
            format: R8_UNORM,
            width: u32::MAX,
            height: 1,
            ..LARGE
        };
        let all = Transfer3d {
            w: u32::MAX,
            h: 1,
            ..WHOLE
        };
        check_box(&bytes, &all).unwrap();
    }

    #[test]
    fn a_span_whose_end_does_not_fit_32_bits_is_refused_however_large_the_memory() {
        let rows = |h, stride| Transfer3d { h, stride, ..WHOLE };
        check_span(&rows(2, 1 << 31), 1 << 40).unwrap_err();
        check_span(&rows(2, (1 << 31) - 1), 1 << 40).unwrap();
        check_span(&rows(2, u32::MAX), u64::from(u32::MAX)).unwrap_err();
        check_span(&rows(1, u32::MAX), 0).unwrap();
        let layers = Transfer3d {
            d: 3,
            layer_stride: 1 << 31,
            ..rows(1, 0)
        };
        check_span(&layers, u64::MAX).unwrap_err();
        let far = Transfer3d {
            offset: u64::MAX,
            ..rows(2, 4)
        };
        check_span(&far, u64::MAX).unwrap_err();
    }
}
