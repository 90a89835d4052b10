// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The vhost-device-gpu of rust-vmm, through vhost-user.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::{Ability, Contender, FEATURES_3D, Kind};
use crate::pci::{RING_FEATURES, has_event_idx};
use crate::process::Process;
use crate::queue::{Area, ControlQueue, Doorbell};
use crate::ram::{Ram, SIZE};

/// VHOST_USER_GPU_SET_SOCKET, version 1 of the protocol, no payload.
const GPU_SET_SOCKET: [u32; 3] = [33, 1, 0];
const QUEUES: u64 = 2;

struct Connection {
    kick: EventFd,
    _call: EventFd,
    _frontend: Frontend,
    _display: UnixStream,
    _process: Process,
}

impl Doorbell for Connection {
    fn ring(&mut self) -> Result<()> {
        Ok(self.kick.write(1)?)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

pub(super) fn start(kind: Kind, ram: &mut Ram, program: &Path, mode: &str) -> Result<Contender> {
    let area = Area::allocate(ram)?;
    let mut process = Process::start(program, |socket| {
        let socket = socket.display().to_string();
        ["--socket-path", &socket, "--gpu-mode", mode]
            .map(str::to_owned)
            .to_vec()
    })?;
    let stream = process.connect()?;
    let raw = stream.try_clone()?;
    let mut frontend = Frontend::from_stream(stream, QUEUES);
    let features = negotiate(&mut frontend, kind)?;
    let (display, other) = UnixStream::pair()?;
    set_display(&raw, &other)?;
    let (kick, call) = (EventFd::new(EFD_NONBLOCK)?, EventFd::new(EFD_NONBLOCK)?);
    start_queue(&mut frontend, ram, &area, [&kick, &call])?;
    let connection = Connection {
        kick,
        _call: call,
        _frontend: frontend,
        _display: display,
        _process: process,
    };
    let doorbell = Rc::new(RefCell::new(connection));
    Ok(Contender {
        queue: ControlQueue::new(ram, area, has_event_idx(features), doorbell)?,
        picture: Box::new(|| Ok(None)),
        sleeper: None,
    })
}

fn negotiate(frontend: &mut Frontend, kind: Kind) -> Result<u64> {
    frontend.set_owner()?;
    let offered = frontend.get_features()?;
    let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    ensure!(offered & protocol != 0, "no protocol features");
    let gpu_features = if kind.can(Ability::Rendering) {
        FEATURES_3D
    } else {
        0
    };
    let features = offered & (RING_FEATURES | gpu_features | protocol);
    frontend.get_protocol_features()?;
    frontend.set_protocol_features(VhostUserProtocolFeatures::CONFIG)?;
    frontend.set_features(features)?;
    Ok(features)
}

/// The frontend of the crate has no such request. Where the pictures go is nobody's concern here.
fn set_display(raw: &UnixStream, display: &UnixStream) -> Result<()> {
    let message: Vec<u8> = GPU_SET_SOCKET
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let sent = raw.send_with_fd(message.as_slice(), display.as_raw_fd());
    let sent = sent.map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    ensure!(sent == message.len(), "a message was cut");
    Ok(())
}

fn start_queue(
    frontend: &mut Frontend,
    ram: &Ram,
    area: &Area,
    [kick, call]: [&EventFd; 2],
) -> Result<()> {
    // The process translates ring addresses back with this table, so any host address does: the guest's.
    frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: SIZE,
        userspace_addr: 0,
        mmap_offset: 0,
        mmap_handle: ram.file().as_raw_fd(),
    }])?;
    frontend.set_vring_num(0, area.size)?;
    frontend.set_vring_addr(
        0,
        &VringConfigData {
            queue_max_size: area.size,
            queue_size: area.size,
            flags: 0,
            desc_table_addr: area.desc,
            used_ring_addr: area.used,
            avail_ring_addr: area.avail,
            log_addr: None,
        },
    )?;
    frontend.set_vring_base(0, 0)?;
    frontend.set_vring_call(0, call)?;
    frontend.set_vring_kick(0, kick)?;
    frontend.set_vring_enable(0, true)?;
    // Answered after all of that, which has no answer of its own.
    frontend.get_features().context("the process gave up")?;
    Ok(())
}
