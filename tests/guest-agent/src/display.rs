// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The screens the agent draws on.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use guest_agent::pattern;
use guest_agent::protocol::{Drawn, Target};

use crate::drm_display::DrmDisplay;
use crate::mapping::SharedMapping;
use crate::{Error, file_error, read_text};

const FB: &str = "/dev/fb0";
const FB_ATTRIBUTES: &str = "/sys/class/graphics/fb0";

/// The displays in use. A DRM display stays open: its picture leaves the screen with it.
#[derive(Debug, Default)]
pub(crate) struct Displays {
    drm: Option<DrmDisplay>,
    mapping: Option<FbMapping>,
}

impl Displays {
    /// Fills `target` with picture `seed` and has the kernel flush it.
    pub(crate) fn draw(&mut self, target: Target, seed: u32) -> Result<Drawn, Error> {
        match target {
            Target::Fb => FbDisplay::open()?.draw(seed),
            Target::FbMapping => {
                let mapping = match self.mapping.take() {
                    Some(mapping) => mapping,
                    None => FbDisplay::open()?.map()?,
                };
                self.mapping.insert(mapping).draw(seed)
            }
            Target::Drm => {
                let drm = match self.drm.take() {
                    Some(drm) => drm,
                    None => DrmDisplay::open()?,
                };
                self.drm.insert(drm).draw(seed)
            }
        }
    }

    /// As [`Displays::draw`], and moves a cursor where there is one: both queues are busy then.
    pub(crate) fn animate(&mut self, target: Target, seed: u32) -> Result<(), Error> {
        self.draw(target, seed)?;
        match (target, &mut self.drm) {
            (Target::Drm, Some(drm)) => drm.move_cursor(seed),
            _ => Ok(()),
        }
    }

    pub(crate) fn release_drm(&mut self) {
        self.drm = None;
    }
}

/// The kernel's framebuffer device.
#[derive(Debug)]
pub(crate) struct FbDisplay {
    file: File,
    width: u32,
    height: u32,
    stride: usize,
}

impl FbDisplay {
    pub(crate) fn open() -> Result<Self, Error> {
        let (width, height) = fb_size()?;
        if attribute("bits_per_pixel")? != 32 {
            return Err(Error::NoDisplay("fb0 has not 32 bits a pixel"));
        }
        let stride = usize::try_from(attribute("stride")?)
            .map_err(|_| Error::NoDisplay("fb0 has an impossible stride"))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(FB)
            .map_err(file_error("open", FB))?;
        Ok(Self {
            file,
            width,
            height,
            stride,
        })
    }

    pub(crate) fn draw(&self, seed: u32) -> Result<Drawn, Error> {
        self.file
            .write_all_at(&self.picture(seed), 0)
            .map_err(file_error("write", FB))?;
        // Runs the deferred I/O of the framebuffer now instead of some ticks later.
        self.file.sync_all().map_err(file_error("sync", FB))?;
        Ok(self.drawn())
    }

    fn map(self) -> Result<FbMapping, Error> {
        let length = self.picture(0).len();
        let pixels = SharedMapping::new(&self.file, length).map_err(file_error("map", FB))?;
        Ok(FbMapping { fb: self, pixels })
    }

    fn picture(&self, seed: u32) -> Vec<u8> {
        let mut picture = Vec::new();
        for y in 0..self.height {
            let mut row = pattern::row(seed, y, self.width);
            row.resize(self.stride, 0);
            picture.extend_from_slice(&row);
        }
        picture
    }

    fn drawn(&self) -> Drawn {
        Drawn {
            width: self.width,
            height: self.height,
        }
    }
}

/// The kernel's framebuffer, mapped.
#[derive(Debug)]
struct FbMapping {
    fb: FbDisplay,
    pixels: SharedMapping,
}

impl FbMapping {
    fn draw(&mut self, seed: u32) -> Result<Drawn, Error> {
        self.pixels.store(&self.fb.picture(seed));
        Ok(self.fb.drawn())
    }
}

/// Width and height of fb0 in pixels.
pub(crate) fn fb_size() -> Result<(u32, u32), Error> {
    let text = read_text(&format!("{FB_ATTRIBUTES}/virtual_size"))?;
    text.split_once(',')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)))
        .ok_or(Error::NoDisplay("fb0 has no size"))
}

fn attribute(name: &str) -> Result<u32, Error> {
    let text = read_text(&format!("{FB_ATTRIBUTES}/{name}"))?;
    text.parse()
        .map_err(|_| Error::NoDisplay("an attribute of fb0 is no number"))
}
