// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a viewer can take, of what there is.

use crate::message::encoding;

/// How pixels go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pixels {
    /// As they are, which every viewer takes.
    #[default]
    Raw,
    Zrle,
}

/// How the pointer's shape goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pointers {
    /// Not at all: it is drawn into the picture.
    #[default]
    Drawn,
    /// Each of its pixels is there or not.
    Masked,
    /// With alpha.
    Blended,
}

/// How another size of the desktop is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// Not at all: the viewer sees what fits the size that it was told first.
    #[default]
    Fixed,
    Told,
    /// With the layout of the outputs, which the viewer may change.
    Layout,
}

/// What a viewer listed, as far as it means anything here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encodings {
    pub(crate) pixels: Pixels,
    pub(crate) pointers: Pointers,
    pub(crate) sizes: Sizes,
    /// Whether it tells where on a keyboard a key is.
    pub(crate) scan_codes: bool,
    /// zlib's level.
    pub(crate) level: u32,
}

/// Where the viewer does not say: more takes more time than it saves of a local network's.
const LEVEL: u32 = 2;

impl Default for Encodings {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl Encodings {
    /// What the viewer prefers comes first.
    pub(crate) fn of(listed: &[i32]) -> Self {
        let lists = |wanted: i32| listed.contains(&wanted);
        let known = |it: &i32| match *it {
            encoding::ZRLE => Some(Pixels::Zrle),
            encoding::RAW => Some(Pixels::Raw),
            _ => None,
        };
        let level = |it: &i32| {
            let level = (encoding::LEVEL_0..=encoding::LEVEL_9).contains(it);
            level.then(|| it.saturating_sub(encoding::LEVEL_0).unsigned_abs())
        };
        Self {
            pixels: listed.iter().find_map(known).unwrap_or_default(),
            pointers: if lists(encoding::CURSOR_WITH_ALPHA) {
                Pointers::Blended
            } else if lists(encoding::CURSOR) {
                Pointers::Masked
            } else {
                Pointers::Drawn
            },
            sizes: if lists(encoding::EXTENDED_DESKTOP_SIZE) {
                Sizes::Layout
            } else if lists(encoding::DESKTOP_SIZE) {
                Sizes::Told
            } else {
                Sizes::Fixed
            },
            scan_codes: lists(encoding::QEMU_EXTENDED_KEY),
            level: listed.iter().find_map(level).unwrap_or(LEVEL),
        }
    }
}
