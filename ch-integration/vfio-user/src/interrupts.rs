// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which eventfd each interrupt goes to, and what DEVICE_SET_IRQS does to that (Linux's `vfio.h`).

#![forbid(unsafe_code)]

use std::io::IoSliceMut;
use std::ops::Range;

use host_util::foreign::ForeignFile;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_AUTOMASKED, VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_MASKABLE,
    VFIO_IRQ_INFO_NORESIZE, VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_BOOL, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX,
    VFIO_PCI_MSIX_IRQ_INDEX,
};

use crate::eventfd::Eventfd;
use crate::wire::SetIrqs;

/// Kinds of interrupts that are described: INTx, MSI and MSI-X. QEMU warns of an error interrupt (3) that is there and
/// cannot be had, and takes one that is not there for granted.
pub(crate) const KINDS: u32 = VFIO_PCI_MSIX_IRQ_INDEX + 1;

/// Interrupts that a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqCounts {
    /// MSI-X vectors.
    pub msix: u16,
    /// Whether it has a pin (PCI 3.0 §6.2.4, Interrupt Pin).
    pub intx: bool,
}

impl IrqCounts {
    /// Flags and count of VFIO_DEVICE_GET_IRQ_INFO, where the kind exists.
    pub(crate) fn info(self, index: u32) -> Option<(u32, u32)> {
        let maskable = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
        let vectors = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
        match index {
            VFIO_PCI_INTX_IRQ_INDEX => Some((maskable, self.intx.into())),
            VFIO_PCI_MSIX_IRQ_INDEX => Some((vectors, self.msix.into())),
            VFIO_PCI_MSI_IRQ_INDEX => Some((vectors, 0)),
            _ => None,
        }
    }
}

/// The interrupts of one connection. A device keeps it behind its own lock; nothing here waits.
#[derive(Debug)]
pub struct Interrupts {
    vectors: Vec<Option<Eventfd>>,
    intx: Intx,
}

/// The pin, as VFIO has it: a level that is sent once, and again when the VMM unmasks while it is still high.
#[derive(Debug, Default)]
struct Intx {
    present: bool,
    trigger: Option<Eventfd>,
    /// Read in place of an unmask message, so that KVM can unmask.
    unmask: Option<Eventfd>,
    high: bool,
    masked: bool,
}

/// What a request changed, for the device to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IrqChange {
    /// These MSI-X vectors gained or lost their eventfds.
    Vectors(Range<u16>),
    /// Nothing that a device model keeps.
    None,
}

impl Interrupts {
    /// With nothing connected.
    pub fn new(counts: IrqCounts) -> Self {
        Self {
            vectors: (0..counts.msix).map(|_| None).collect(),
            intx: Intx {
                present: counts.intx,
                ..Intx::default()
            },
        }
    }

    /// Whether an MSI-X vector has an eventfd.
    pub fn is_connected(&self, vector: u16) -> bool {
        self.vectors
            .get(usize::from(vector))
            .is_some_and(Option::is_some)
    }

    /// The eventfd of an MSI-X vector, where it is connected.
    pub fn eventfd(&self, vector: u16) -> Option<Eventfd> {
        self.vectors.get(usize::from(vector))?.clone()
    }

    /// Sends an MSI-X vector, where it is connected.
    pub fn signal(&self, vector: u16) {
        if let Some(Some(eventfd)) = self.vectors.get(usize::from(vector)) {
            eventfd.signal();
        }
    }

    /// Sets the pin's level.
    pub fn set_intx(&mut self, high: bool) {
        self.intx.high = high;
        self.intx.send();
    }

    /// The eventfd that the VMM signals to unmask the pin, and that somebody must read.
    pub(crate) fn unmask_file(&self) -> Option<Eventfd> {
        self.intx.unmask.clone()
    }

    /// The eventfd of [`Self::unmask_file`] is readable.
    pub(crate) fn unmask_signalled(&mut self) {
        let Some(unmask) = &self.intx.unmask else {
            return;
        };
        let mut count = [0; 8];
        let mut buffers = [IoSliceMut::new(&mut count)];
        // Another reader may have been faster, and the VMM may have cleared O_NONBLOCK.
        let current = u64::MAX;
        let read = preadv2(unmask.file(), &mut buffers, current, ReadWriteFlags::NOWAIT);
        if read == Ok(8) {
            self.intx.masked = false;
            self.intx.send();
        }
    }

    pub(crate) fn set(
        &mut self,
        request: &SetIrqs<'_>,
        files: Vec<ForeignFile>,
    ) -> Result<IrqChange, Errno> {
        match request.index {
            VFIO_PCI_INTX_IRQ_INDEX => self.set_pin(request, files).map(|()| IrqChange::None),
            VFIO_PCI_MSIX_IRQ_INDEX => self.set_vectors(request, files),
            _ => Err(Errno::INVAL),
        }
    }

    fn set_vectors(
        &mut self,
        request: &SetIrqs<'_>,
        files: Vec<ForeignFile>,
    ) -> Result<IrqChange, Errno> {
        if request.action != VFIO_IRQ_SET_ACTION_TRIGGER {
            return Err(Errno::INVAL);
        }
        let number = u16::try_from(self.vectors.len()).unwrap_or(u16::MAX);
        let first = u16::try_from(request.start).map_err(|_| Errno::INVAL)?;
        let count = u16::try_from(request.count).map_err(|_| Errno::INVAL)?;
        let end = first.checked_add(count).filter(|&end| end <= number);
        let end = end.ok_or(Errno::INVAL)?;
        let mut places = self.vectors.iter_mut().skip(first.into());
        match request.data {
            // All vectors lose their eventfds; clients say so with either kind of data.
            VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_EVENTFD if count == 0 => {
                if first != 0 || !files.is_empty() {
                    return Err(Errno::INVAL);
                }
                self.vectors.fill(None);
                return Ok(IrqChange::Vectors(0..number));
            }
            VFIO_IRQ_SET_DATA_EVENTFD => {
                let eventfds = eventfds(request.count, files)?;
                for (place, eventfd) in places.by_ref().zip(eventfds) {
                    *place = eventfd;
                }
                return Ok(IrqChange::Vectors(first..end));
            }
            VFIO_IRQ_SET_DATA_NONE => places
                .by_ref()
                .take(count.into())
                .flatten()
                .for_each(|it| it.signal()),
            VFIO_IRQ_SET_DATA_BOOL if request.bools.len() == usize::from(count) => {
                let chosen = places
                    .zip(request.bools)
                    .filter(|(_, chosen)| **chosen != 0);
                chosen
                    .filter_map(|(place, _)| place.as_ref())
                    .for_each(Eventfd::signal);
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(IrqChange::None)
    }

    fn set_pin(&mut self, request: &SetIrqs<'_>, files: Vec<ForeignFile>) -> Result<(), Errno> {
        let intx = &mut self.intx;
        if !intx.present || request.start != 0 || request.count > 1 {
            return Err(Errno::INVAL);
        }
        let chosen = match (request.data, request.count) {
            (VFIO_IRQ_SET_DATA_EVENTFD, 1) => {
                let eventfd = eventfds(1, files)?.pop().flatten();
                match request.action {
                    VFIO_IRQ_SET_ACTION_TRIGGER => {
                        intx.trigger = eventfd;
                        intx.masked = false;
                        intx.send();
                    }
                    VFIO_IRQ_SET_ACTION_UNMASK => intx.unmask = eventfd,
                    _ => return Err(Errno::INVAL),
                }
                return Ok(());
            }
            (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_EVENTFD, 0)
                if request.action == VFIO_IRQ_SET_ACTION_TRIGGER && files.is_empty() =>
            {
                *intx = Intx {
                    present: true,
                    high: intx.high,
                    ..Intx::default()
                };
                return Ok(());
            }
            (VFIO_IRQ_SET_DATA_NONE, 1) => true,
            (VFIO_IRQ_SET_DATA_BOOL, 1) => {
                let &[chosen] = request.bools else {
                    return Err(Errno::INVAL);
                };
                chosen != 0
            }
            _ => return Err(Errno::INVAL),
        };
        if chosen {
            intx.act(request.action)?;
        }
        Ok(())
    }
}

impl Intx {
    fn act(&mut self, action: u32) -> Result<(), Errno> {
        match action {
            VFIO_IRQ_SET_ACTION_MASK => self.masked = true,
            VFIO_IRQ_SET_ACTION_UNMASK => {
                self.masked = false;
                self.send();
            }
            VFIO_IRQ_SET_ACTION_TRIGGER => {
                if let Some(trigger) = &self.trigger {
                    trigger.signal();
                }
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    /// A level that was sent masks itself (VFIO_IRQ_INFO_AUTOMASKED).
    fn send(&mut self) {
        if let Some(trigger) = &self.trigger
            && self.high
            && !self.masked
        {
            self.masked = true;
            trigger.signal();
        }
    }
}

/// A place an interrupt. A message carries all of its eventfds or none, and none takes them away.
fn eventfds(count: u32, files: Vec<ForeignFile>) -> Result<Vec<Option<Eventfd>>, Errno> {
    let count = usize::try_from(count).map_err(|_| Errno::INVAL)?;
    if files.is_empty() {
        return Ok(vec![None; count]);
    }
    if files.len() != count {
        return Err(Errno::INVAL);
    }
    let eventfd = |file| {
        Eventfd::from_foreign(file)
            .map(Some)
            .map_err(|_| Errno::INVAL)
    };
    files.into_iter().map(eventfd).collect()
}
