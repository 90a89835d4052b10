// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an image of the host needs: linear, in one file, as wl_shm has it.

use std::borrow::Cow;

use virtio_gpu_s3::renderer::CrossDomainError;

/// Guests map blobs in whole pages.
const PAGE: u64 = 4096;
/// As the device's resources.
const MAX_PIXELS: u32 = 32_768;
/// Of a buffer that is no picture: one row of bytes, as sommelier asks for shared memory.
const MAX_ROW: u32 = 1 << 28;

/// An image's planes. Strides and offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) strides: [u32; 4],
    pub(super) offsets: [u32; 4],
    /// Bytes of all, in whole pages.
    pub(super) size: u64,
}

/// DRM's number of a format.
const fn fourcc(name: [u8; 4]) -> u32 {
    u32::from_le_bytes(name)
}

/// Formats with one plane, and bytes of a pixel of each.
const PACKED: [(u32, u32); 13] = [
    (fourcc(*b"R8  "), 1),
    (fourcc(*b"RG16"), 2),
    (fourcc(*b"BG24"), 3),
    (fourcc(*b"RG24"), 3),
    (fourcc(*b"AR24"), 4),
    (fourcc(*b"XR24"), 4),
    (fourcc(*b"AB24"), 4),
    (fourcc(*b"XB24"), 4),
    (fourcc(*b"AR30"), 4),
    (fourcc(*b"XR30"), 4),
    (fourcc(*b"AB30"), 4),
    (fourcc(*b"XB30"), 4),
    (fourcc(*b"AB4H"), 8),
];
/// A plane of brightness and one of colour, half as wide and high, of two bytes a pixel.
const NV12: u32 = fourcc(*b"NV12");

impl Image {
    pub(super) fn of(width: u32, height: u32, format: u32) -> Result<Self, CrossDomainError> {
        let wrong = |field, value| CrossDomainError::Image {
            field: Cow::Borrowed(field),
            value,
        };
        let max_width = if height == 1 { MAX_ROW } else { MAX_PIXELS };
        if width == 0 || width > max_width {
            return Err(wrong("width", width));
        }
        if height == 0 || height > MAX_PIXELS {
            return Err(wrong("height", height));
        }
        let packed = PACKED.iter().find(|(known, _)| *known == format);
        let planes = match packed {
            Some((_, bytes)) => Self::packed(width, height, *bytes),
            None if format == NV12 => Self::nv12(width, height),
            None => return Err(wrong("format", format)),
        };
        planes.ok_or_else(|| wrong("width", width))
    }

    fn packed(width: u32, height: u32, bytes: u32) -> Option<Self> {
        let stride = width.checked_mul(bytes)?;
        let size = u64::from(stride).checked_mul(height.into())?;
        Some(Self {
            strides: [stride, 0, 0, 0],
            offsets: [0; 4],
            size: size.checked_next_multiple_of(PAGE)?,
        })
    }

    fn nv12(width: u32, height: u32) -> Option<Self> {
        let stride = width.checked_next_multiple_of(2)?;
        let colour = stride.checked_mul(height)?;
        let rows = height.div_ceil(2);
        let size = u64::from(stride).checked_mul(rows.into())?;
        let size = size.checked_add(colour.into())?;
        Some(Self {
            strides: [stride, stride, 0, 0],
            offsets: [0, colour, 0, 0],
            size: size.checked_next_multiple_of(PAGE)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_lie_one_after_the_other_and_sizes_are_whole_pages() {
        let image = Image::of(640, 480, fourcc(*b"XR24")).unwrap();
        assert_eq!(image.strides, [2560, 0, 0, 0]);
        assert_eq!(image.size, 2560 * 480);
        let image = Image::of(33, 17, NV12).unwrap();
        assert_eq!(image.strides, [34, 34, 0, 0]);
        assert_eq!(image.offsets, [0, 34 * 17, 0, 0]);
        assert_eq!(image.size, 4096);
        // sommelier's shared memory: a row of bytes.
        let bytes = 3840 * 2160 * 4;
        let row = Image::of(bytes, 1, fourcc(*b"R8  ")).unwrap();
        assert_eq!(row.size, u64::from(bytes));
    }

    #[test]
    fn an_image_that_cannot_be_is_refused_by_the_field() {
        let ar24 = fourcc(*b"AR24");
        for (width, height, format, field) in [
            (0, 1, ar24, "width"),
            (32_769, 2, ar24, "width"),
            (u32::MAX, 1, ar24, "width"),
            (1, 0, ar24, "height"),
            (1, u32::MAX, NV12, "height"),
            (1, 1, fourcc(*b"XXXX"), "format"),
        ] {
            let error = Image::of(width, height, format).unwrap_err();
            assert!(matches!(error, CrossDomainError::Image { field: of, .. } if of == field));
        }
    }
}
