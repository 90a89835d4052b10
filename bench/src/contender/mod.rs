// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices that are measured.

mod in_process;
mod qtest;
mod vfio_user;
mod vhost_user;
mod vmm;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use virtio_gpu_s3::{Image, Rect};
use virtio_gpu_s3_testing::{GuestBuffer, request};
use virtio_pci_freeze::spec::FreezeModeValue;

use crate::cores::Cores;
use crate::pci::{PciDriver, PciFunction, RING_FEATURES, has_event_idx};
use crate::queue::{Area, ControlQueue};
use crate::ram::Ram;

/// `VIRTIO_GPU_F_VIRGL` and `VIRTIO_GPU_F_CONTEXT_INIT` (VIRTIO 1.4 §5.7.3).
const FEATURES_3D: u64 = 1 | 1 << 4;
/// B8G8R8X8, as Linux' console has it.
const FORMAT: u32 = 2;
/// The measure of a sleep has our devices hold 1 GiB.
const OPTION_2D: &str = "width=1920,height=1080,max_host_bytes=2G";
const OPTION_3D: &str = "backend=virgl,width=1920,height=1080";

/// What a contender can be compared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ability {
    /// It answers commands.
    Commands,
    /// It copies pixels.
    Pixels,
    /// It lets us see what it shows.
    Pictures,
    /// It renders through virglrenderer.
    Rendering,
    /// It retains over a sleep.
    Sleep,
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours without a transport, as Cloud Hypervisor takes it.
    Vmm,
    /// Ours behind its PCI function.
    Function,
    /// Ours as a server for unmodified VMMs.
    Server,
    Qemu,
    VhostNull,
    VhostVirgl,
    FunctionVirgl,
    ServerVirgl,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Vmm,
        Self::Function,
        Self::Server,
        Self::Qemu,
        Self::VhostNull,
        Self::VhostVirgl,
        Self::FunctionVirgl,
        Self::ServerVirgl,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vmm => "this device, in a VMM",
            Self::Function => "this device, PCI function in process",
            Self::Server => "this device, vfio-user server",
            Self::Qemu => "QEMU virtio-gpu-pci, by qtest",
            Self::VhostNull => "vhost-device-gpu, null",
            Self::VhostVirgl => "vhost-device-gpu, virgl",
            Self::FunctionVirgl => "this device, virgl, PCI function in process",
            Self::ServerVirgl => "this device, virgl, vfio-user server",
        }
    }

    /// Whether this workspace makes it.
    pub(crate) fn is_ours(self) -> bool {
        self.name().starts_with("this device")
    }

    pub(crate) fn can(self, ability: Ability) -> bool {
        use Ability::{Commands, Pictures, Pixels, Rendering, Sleep};
        let abilities: &[Ability] = match self {
            Self::Vmm | Self::Function => &[Commands, Pixels, Pictures, Sleep],
            Self::Server => &[Commands, Pixels, Sleep],
            Self::Qemu => &[Commands, Pixels],
            // It answers without having done anything.
            Self::VhostNull => &[Commands],
            Self::VhostVirgl => &[Commands, Pixels, Rendering],
            Self::FunctionVirgl | Self::ServerVirgl => &[Rendering],
        };
        abilities.contains(&ability)
    }

    fn start(self, ram: &mut Ram, programs: &Programs) -> Result<Contender> {
        match self {
            Self::Vmm => vmm::start(ram),
            Self::Function => over_pci(self, ram, |ram| in_process::start(ram, OPTION_2D)),
            Self::Server => over_pci(self, ram, |ram| {
                vfio_user::start(ram, programs.server()?, OPTION_2D)
            }),
            Self::Qemu => over_pci(self, ram, |ram| {
                let qemu = programs.qemu.as_ref();
                qtest::start(ram, qemu.context("no QEMU: scripts/lab qemu makes one")?)
            }),
            Self::VhostNull => vhost_user::start(self, ram, programs.vhost()?, "null"),
            Self::VhostVirgl => vhost_user::start(self, ram, programs.vhost()?, "virglrenderer"),
            Self::FunctionVirgl => {
                ensure!(cfg!(feature = "virgl"), "built without virgl");
                over_pci(self, ram, |ram| in_process::start(ram, OPTION_3D))
            }
            Self::ServerVirgl => {
                ensure!(cfg!(feature = "virgl"), "built without virgl");
                over_pci(self, ram, |ram| {
                    vfio_user::start(ram, programs.server()?, OPTION_3D)
                })
            }
        }
    }
}

/// Where the programs are.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    /// Our server.
    pub(crate) server: Option<PathBuf>,
    /// QEMU.
    pub(crate) qemu: Option<PathBuf>,
    /// The vhost-user device.
    pub(crate) vhost: Option<PathBuf>,
}

impl Programs {
    fn server(&self) -> Result<&PathBuf> {
        self.server.as_ref().context("virtio-gpu-s3d is not built")
    }

    fn vhost(&self) -> Result<&PathBuf> {
        let vhost = self.vhost.as_ref();
        vhost.context("vhost-device-gpu is not built: scripts/bench does that")
    }
}

/// The steps of a sleep, each of which is timed.
pub(crate) trait Sleeper {
    /// Asks for retention and waits for the acknowledgement.
    fn freeze(&mut self) -> Result<()>;
    /// Resets, and waits until that is done.
    fn reset(&mut self) -> Result<()>;
    /// What a driver does after a reset, up to FEATURES_OK.
    fn negotiate(&mut self) -> Result<()>;
    /// DRIVER_OK, with no queue set up.
    fn wake(&mut self) -> Result<()>;
    /// Ends the retention.
    fn release(&mut self) -> Result<()>;
}

/// A device, driven.
pub(crate) struct Contender {
    pub(crate) queue: ControlQueue,
    /// What the first output shows, if there is a way to see it.
    pub(crate) picture: Box<dyn FnMut() -> Result<Option<Image>>>,
    pub(crate) sleeper: Option<Box<dyn Sleeper>>,
}

impl Contender {
    /// A 2D resource with backing.
    pub(crate) fn create(
        &mut self,
        id: u32,
        (width, height): (u32, u32),
        backing: &GuestBuffer,
    ) -> Result<()> {
        let create = request::resource_create_2d(id, FORMAT, width, height);
        self.queue.send(&create)?;
        let attach = request::resource_attach_backing(id, backing.entries());
        self.queue.send(&attach)
    }

    /// Copies all of a resource.
    pub(crate) fn transfer(&mut self, id: u32, (width, height): (u32, u32)) -> Result<()> {
        let whole = Rect::sized(width, height);
        self.queue.send(&request::transfer_to_host_2d(id, whole, 0))
    }

    pub(crate) fn destroy(&mut self, id: u32) -> Result<()> {
        self.queue.send(&request::resource_unref(id))
    }
}

/// One that runs, or why it does not.
pub(crate) struct Entrant {
    pub(crate) kind: Kind,
    pub(crate) contender: Result<Contender, String>,
}

/// Starts everything that is there, on the devices' core.
pub(crate) fn start_all(
    ram: &mut Ram,
    programs: &Programs,
    cores: Option<Cores>,
) -> Result<Vec<Entrant>> {
    let mut entrants = Vec::new();
    for kind in Kind::ALL {
        cores.map_or(Ok(()), Cores::pin_device)?;
        let contender = kind.start(ram, programs);
        cores.map_or(Ok(()), Cores::pin_driver)?;
        let contender = contender.map_err(|error| format!("{error:#}"));
        if let Err(reason) = &contender {
            eprintln!("{}: not run: {reason}", kind.name());
        }
        entrants.push(Entrant { kind, contender });
    }
    Ok(entrants)
}

/// Drives what `start` connects to.
fn over_pci(
    kind: Kind,
    ram: &mut Ram,
    start: impl FnOnce(&mut Ram) -> Result<Box<dyn PciFunction>>,
) -> Result<Contender> {
    let area = Area::allocate(ram)?;
    let mut driver = PciDriver::new(start(ram)?);
    let gpu_features = if kind.can(Ability::Rendering) {
        FEATURES_3D
    } else {
        0
    };
    let wanted = RING_FEATURES | gpu_features;
    let features = driver.start(wanted, &area)?;
    let missing = wanted & !features & !RING_FEATURES;
    ensure!(missing == 0, "the features {missing:#x} are not offered");
    let driver = Rc::new(RefCell::new(driver));
    let sleeper = kind.can(Ability::Sleep).then(|| {
        let driver = Rc::clone(&driver);
        Box::new(PciSleeper { driver, features }) as Box<dyn Sleeper>
    });
    let shown = Rc::clone(&driver);
    Ok(Contender {
        queue: ControlQueue::new(ram, area, has_event_idx(features), driver)?,
        picture: Box::new(move || shown.borrow_mut().picture()),
        sleeper,
    })
}

/// A sleep as Linux' driver goes through it, with the proposal's patch.
struct PciSleeper {
    driver: Rc<RefCell<PciDriver>>,
    features: u64,
}

impl Sleeper for PciSleeper {
    fn freeze(&mut self) -> Result<()> {
        let mut driver = self.driver.borrow_mut();
        driver.write_freeze_mode(FreezeModeValue::FREEZE_S3)?;
        driver.wait_for_freeze_mode(FreezeModeValue::FREEZE_S3)
    }

    fn reset(&mut self) -> Result<()> {
        self.driver.borrow_mut().reset()
    }

    fn negotiate(&mut self) -> Result<()> {
        let features = self.driver.borrow_mut().negotiate(self.features)?;
        ensure!(features == self.features, "the features have changed");
        Ok(())
    }

    fn wake(&mut self) -> Result<()> {
        self.driver.borrow_mut().run()
    }

    fn release(&mut self) -> Result<()> {
        let mut driver = self.driver.borrow_mut();
        driver.write_freeze_mode(FreezeModeValue::UNFREEZE)
    }
}
