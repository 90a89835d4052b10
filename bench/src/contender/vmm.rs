// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Our device as a VMM takes it that has a virtio transport of its own: doorbells are eventfds.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};
use virtio_gpu_in_process::{GpuActivation, GpuStart, GuestNotifier, InProcessGpu};
use virtio_pci_freeze::spec::VIRTIO_MSI_NO_VECTOR;
use virtio_pci_freeze::{ActivationKind, QueueSetup, RingPosition};
use vm_memory::GuestMemoryAtomic;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Contender, OPTION_2D, Sleeper};
use crate::pci::{RING_FEATURES, has_event_idx};
use crate::queue::{Area, ControlQueue, Doorbell};
use crate::ram::Ram;

/// The driver polls.
struct NoInterrupts;

impl GuestNotifier for NoInterrupts {
    fn queue_used(&self, _queue: u16) {}

    fn needs_reset(&self, reason: &str) {
        eprintln!("the device needs a reset: {reason}");
    }
}

struct Transport {
    gpu: InProcessGpu<()>,
    memory: GuestMemoryAtomic<vm_memory::GuestMemoryMmap>,
    features: u64,
    setup: QueueSetup,
    kick: EventFd,
}

impl Transport {
    fn activate(&self, kind: ActivationKind) -> Result<()> {
        self.gpu.activate(GpuActivation {
            memory: self.memory.clone(),
            features: self.features,
            kind,
            queues: vec![(self.setup, self.kick.try_clone()?)],
            notifier: Arc::new(NoInterrupts),
        });
        Ok(())
    }
}

pub(super) fn start(ram: &mut Ram) -> Result<Contender> {
    let area = Area::allocate(ram)?;
    let gpu = InProcessGpu::start(&OPTION_2D.parse()?, GpuStart::default(), |gpu| {
        let thread = thread::Builder::new().name("gpu".into());
        thread.spawn(move || gpu.run())
    })?;
    let features = gpu.features() & RING_FEATURES;
    let transport = Transport {
        gpu,
        memory: GuestMemoryAtomic::new(ram.memory().clone()),
        features,
        setup: QueueSetup {
            index: 0,
            size: area.size,
            vector: VIRTIO_MSI_NO_VECTOR,
            desc: area.desc,
            driver: area.avail,
            device: area.used,
            position: RingPosition::default(),
        },
        kick: EventFd::new(EFD_NONBLOCK)?,
    };
    transport.activate(ActivationKind::Fresh)?;
    let transport = Rc::new(RefCell::new(transport));
    Ok(Contender {
        queue: ControlQueue::new(ram, area, has_event_idx(features), transport.clone())?,
        picture: {
            let transport = Rc::clone(&transport);
            Box::new(move || Ok(Some(transport.borrow().gpu.screenshot(0, false)?.image)))
        },
        sleeper: Some(Box::new(VmmSleeper { transport })),
    })
}

impl Doorbell for Transport {
    fn ring(&mut self) -> Result<()> {
        Ok(self.kick.write(1)?)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A sleep as the VMM's transport goes through it: registers are its own.
struct VmmSleeper {
    transport: Rc<RefCell<Transport>>,
}

impl Sleeper for VmmSleeper {
    fn freeze(&mut self) -> Result<()> {
        ensure!(
            self.transport.borrow().gpu.freeze(),
            "the freeze is refused"
        );
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        let mut transport = self.transport.borrow_mut();
        let positions = transport.gpu.reset_frozen();
        let [control, _] = positions.context("the state is lost")?;
        transport.setup.position = control;
        Ok(())
    }

    fn negotiate(&mut self) -> Result<()> {
        Ok(())
    }

    fn wake(&mut self) -> Result<()> {
        let transport = self.transport.borrow();
        transport.activate(ActivationKind::Reinstated)
    }

    fn release(&mut self) -> Result<()> {
        self.transport.borrow().gpu.unfreeze();
        Ok(())
    }
}
