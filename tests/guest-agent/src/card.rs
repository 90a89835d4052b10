// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's only DRM device, and what it shows pictures on.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use drm::Device;
use drm::control::{Device as ControlDevice, Mode, connector, crtc};

/// Where the kernel puts it.
pub const PATH: &str = "/dev/dri/card0";

/// An open card, which the kernel takes the picture from when it is closed.
#[derive(Debug)]
pub struct Card(File);

/// A monitor, what feeds it, and its preferred mode.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The monitor's plug.
    pub connector: connector::Handle,
    /// What scans a buffer out.
    pub crtc: crtc::Handle,
    /// The first that the monitor offers.
    pub mode: Mode,
}

impl Card {
    /// Opens [`PATH`].
    ///
    /// # Errors
    /// There is no GPU, or no driver for it.
    pub fn open() -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(PATH)?;
        Ok(Self(file))
    }

    /// The first connected output, with the card's first CRTC.
    ///
    /// # Errors
    /// The card does not do KMS.
    pub fn output(&self) -> io::Result<Option<Output>> {
        let resources = self.resource_handles()?;
        let connected = resources.connectors().iter().find_map(|&handle| {
            let info = self.get_connector(handle, true).ok()?;
            let mode = info.modes().first()?;
            (info.state() == connector::State::Connected).then_some((handle, *mode))
        });
        let crtc = resources.crtcs().first().copied();
        Ok(connected.zip(crtc).map(|((connector, mode), crtc)| Output {
            connector,
            crtc,
            mode,
        }))
    }
}

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Device for Card {}
impl ControlDevice for Card {}
