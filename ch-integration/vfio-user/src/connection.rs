// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One VMM's connection: its requests go to the device, the device's answers to it.

#![forbid(unsafe_code)]

use std::io::Error as IoError;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use host_util::foreign::ForeignFile;
use host_util::log_source::VMM;
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, read};
use thiserror::Error;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};

use crate::answer::{Answer, Answers, ReadAnswer};
use crate::device::{Device, DeviceInfo};
use crate::dma::{DmaTable, MapError};
use crate::eventfd::Eventfd;
use crate::interrupts::{IrqChange, KINDS};
use crate::limits::{MAX_IN_FLIGHT, MAX_MESSAGE_FDS, MAX_UNSENT};
use crate::lobby::Admitted;
use crate::stream::{Message, Received, Stream, StreamError, wait};
use crate::waker::waker;
use crate::wire::command::DEVICE_GET_IRQ_INFO;
use crate::wire::{
    Access, DmaMap, DmaUnmap, Header, HeaderError, Reply, Request, SetIrqs, emit_error,
};

/// Why a connection ended that the VMM did not close.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Stream(#[from] StreamError),
    #[error(
        "its guest's memory is gone: its file was cut short, or it is read only and was written to"
    )]
    MemoryLost,
    #[error("the system refuses to wait: {0}")]
    System(#[from] IoError),
}

/// A request that is not carried out: what the client is told, and the log where that says too little.
#[derive(Debug)]
struct Refusal {
    errno: Errno,
    why: Option<String>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, why: None }
    }
}

impl Refusal {
    fn of_memory(address: u64, size: u64, error: &MapError) -> Self {
        let why = format!("Guest memory at {address:#x}, {size:#x} bytes, is refused: {error}");
        Self {
            errno: error.errno(),
            why: Some(why),
        }
    }
}

/// One VMM's connection.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    stream: Stream,
    max_data: u32,
    info: &'a DeviceInfo,
    answers: Arc<Answers>,
    memory: DmaTable,
    /// Readable when there is an answer, or memory was lost.
    wake: Arc<OwnedFd>,
    /// What the VMM signals to unmask the pin.
    unmask: Option<Eventfd>,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(admitted: Admitted, info: &'a DeviceInfo) -> Result<Self, IoError> {
        let wake = waker()?;
        let Admitted { stream, max_data } = admitted;
        Ok(Self {
            stream,
            max_data,
            info,
            answers: Arc::new(Answers::new(wake.clone())),
            memory: DmaTable::new(wake.clone()),
            wake,
            unmask: None,
        })
    }

    /// The VMM's memory, to be dropped when the device has let go of it.
    pub(crate) fn into_memory(self) -> DmaTable {
        self.memory
    }

    /// Serves the VMM until it leaves or must leave.
    pub(crate) fn run(&mut self, device: &mut dyn Device) -> Result<(), ConnectionError> {
        loop {
            self.send_answers()?;
            if self.memory.lost_memory() {
                return Err(ConnectionError::MemoryLost);
            }
            if !self.wait(device)? {
                continue;
            }
            match self.stream.receive() {
                Ok(Received::Message(message)) => self.handle(message, device)?,
                Ok(Received::NotYet) => {}
                Ok(Received::End) => return Ok(()),
                Err(error) => {
                    self.answer_broken(&error)?;
                    return Err(error.into());
                }
            }
        }
    }

    fn send_answers(&mut self) -> Result<(), ConnectionError> {
        while let Some(given) = self.answers.next() {
            if let Some((header, errno)) = given.failed {
                let command = header.command;
                VMM.warn(format_args!("The device failed command {command}: {errno}"));
            }
            if let Some(message) = given.message {
                self.stream.send(message)?;
            }
            self.memory.sweep();
        }
        Ok(())
    }

    /// Waits until there is something to do. Returns whether it is something to receive.
    fn wait(&mut self, device: &mut dyn Device) -> Result<bool, ConnectionError> {
        let full =
            self.answers.in_flight() >= MAX_IN_FLIGHT || self.stream.unsent_bytes() > MAX_UNSENT;
        if !self.answers.start_waiting() {
            return Ok(false);
        }
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, !full);
        events.set(PollFlags::OUT, self.stream.unsent_bytes() > 0);
        let mut fds = vec![
            PollFd::new(&self.stream, events),
            PollFd::new(&*self.wake, PollFlags::IN),
        ];
        if let Some(unmask) = &self.unmask {
            fds.push(PollFd::new(unmask.file(), PollFlags::IN));
        }
        wait(&mut fds, self.stream.deadline())?;
        let happened = |index: usize| fds.get(index).map_or(PollFlags::empty(), PollFd::revents);
        let (socket, woken, unmasked) = (happened(0), happened(1), happened(2));
        drop(fds);
        if !woken.is_empty() {
            // Non-blocking, so it only says that there was nothing.
            let _drained = read(&*self.wake, &mut [0; 8]);
        }
        if unmasked.contains(PollFlags::IN) {
            device.with_interrupts(&mut |interrupts| {
                interrupts.unmask_signalled();
                IrqChange::None
            });
        }
        if socket.contains(PollFlags::OUT) {
            self.stream.flush()?;
        }
        self.stream.check_time()?;
        let gone = PollFlags::HUP | PollFlags::ERR;
        if full && socket.intersects(gone) {
            // It cannot be told any more, and what it still wants is nobody's.
            return Err(StreamError::Truncated.into());
        }
        Ok(!full && socket.intersects(PollFlags::IN | gone))
    }

    /// A header after which nothing can be told apart is answered before the connection ends.
    fn answer_broken(&mut self, error: &StreamError) -> Result<(), ConnectionError> {
        if let StreamError::Header(HeaderError::Size { id, command, .. }) = *error {
            let header = Header {
                id,
                command,
                body: 0,
                no_reply: false,
            };
            self.stream.send(emit_error(&header, Errno::MSGSIZE))?;
        }
        Ok(())
    }

    fn handle(&mut self, message: Message, device: &mut dyn Device) -> Result<(), ConnectionError> {
        let Message {
            header,
            body,
            files,
            too_many_files,
        } = message;
        let result = if too_many_files {
            let command = header.command;
            Err(Refusal {
                errno: Errno::INVAL,
                why: Some(format!(
                    "Command {command} of the VMM is refused: it has more than {MAX_MESSAGE_FDS} files"
                )),
            })
        } else {
            Request::parse(header.command, &body)
                .map_err(Refusal::from)
                .and_then(|request| self.carry_out(&header, request, files, device))
        };
        if let Err(Refusal { errno, why }) = result {
            let command = header.command;
            let why =
                why.unwrap_or_else(|| format!("Command {command} of the VMM is refused: {errno}"));
            if command == DEVICE_GET_IRQ_INFO {
                // QEMU asks every device for interrupts that few have.
                VMM.debug(format_args!("{why}"));
            } else {
                VMM.warn(format_args!("{why}"));
            }
            self.reply(&header, emit_error(&header, errno))?;
        }
        Ok(())
    }

    fn reply(&mut self, header: &Header, message: Vec<u8>) -> Result<(), ConnectionError> {
        if header.no_reply {
            return Ok(());
        }
        Ok(self.stream.send(message)?)
    }

    /// Hands a request to who can answer it. An error is answered by the caller.
    fn carry_out(
        &mut self,
        header: &Header,
        request: Request<'_>,
        files: Vec<ForeignFile>,
        device: &mut dyn Device,
    ) -> Result<(), Refusal> {
        let with_files = matches!(request, Request::DmaMap(_) | Request::SetIrqs(_));
        if !with_files && !files.is_empty() {
            return Err(Errno::INVAL.into());
        }
        match request {
            // Once, before anything else.
            Request::Version { .. } => Err(Errno::INVAL.into()),
            Request::DmaMap(map) => self.map(header, &map, files, device),
            Request::DmaUnmap(unmap) => self.unmap(header, &unmap, device),
            Request::DeviceInfo => {
                self.done(
                    header,
                    &Reply::DeviceInfo {
                        regions: VFIO_PCI_NUM_REGIONS,
                        irqs: KINDS,
                    },
                );
                Ok(())
            }
            Request::RegionInfo { index } => self.region_info(header, index),
            Request::IrqInfo { index } => {
                let (flags, count) = self.info.irqs.info(index).ok_or(Errno::INVAL)?;
                self.done(
                    header,
                    &Reply::IrqInfo {
                        flags,
                        index,
                        count,
                    },
                );
                Ok(())
            }
            Request::SetIrqs(request) => self.set_irqs(header, &request, files, device),
            Request::Read(access) => {
                self.check(access)?;
                if access.length > self.max_data {
                    return Err(Errno::INVAL.into());
                }
                device.read(access, ReadAnswer::new(*header, access, &self.answers));
                Ok(())
            }
            Request::Write(access, data) => {
                self.check(access)?;
                let answer = Answer::new(*header, &Reply::Written(access), &self.answers);
                device.write(access, data, answer);
                Ok(())
            }
            Request::Reset => {
                device.reset(self.answer(header, &Reply::Empty));
                Ok(())
            }
        }
    }

    fn answer(&self, header: &Header, reply: &Reply<'_>) -> Answer {
        Answer::new(*header, reply, &self.answers)
    }

    fn done(&self, header: &Header, reply: &Reply<'_>) {
        self.answer(header, reply).done();
    }

    fn region_size(&self, index: u32) -> Result<u64, Errno> {
        let index = usize::try_from(index).map_err(|_| Errno::INVAL)?;
        self.info.regions.get(index).copied().ok_or(Errno::INVAL)
    }

    fn region_info(&self, header: &Header, index: u32) -> Result<(), Refusal> {
        let size = self.region_size(index)?;
        let flags = match size {
            0 => 0,
            _ => VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
        };
        self.done(header, &Reply::RegionInfo { flags, index, size });
        Ok(())
    }

    /// An access lies within its region, and is not empty.
    fn check(&self, access: Access) -> Result<(), Errno> {
        let size = self.region_size(access.region)?;
        let end = access.offset.checked_add(access.length.into());
        let within = access.length > 0 && end.is_some_and(|end| end <= size);
        within.then_some(()).ok_or(Errno::INVAL)
    }

    fn map(
        &mut self,
        header: &Header,
        map: &DmaMap,
        files: Vec<ForeignFile>,
        device: &mut dyn Device,
    ) -> Result<(), Refusal> {
        let mut files = files.into_iter();
        let file = files.next();
        if files.next().is_some() {
            return Err(Errno::INVAL.into());
        }
        let has_file = file.is_some();
        VMM.debug(format_args!("DMA map {map:x?} (file: {has_file})"));
        let mapped = self.memory.map(map, file);
        let added = mapped.map_err(|error| Refusal::of_memory(map.address, map.size, &error))?;
        let answer = self.answer(header, &Reply::Empty);
        if let Some(change) = added {
            device.set_memory(self.memory.memory(), change, answer);
        } else {
            answer.done();
        }
        Ok(())
    }

    fn unmap(
        &mut self,
        header: &Header,
        unmap: &DmaUnmap,
        device: &mut dyn Device,
    ) -> Result<(), Refusal> {
        VMM.debug(format_args!("DMA unmap {unmap:x?}"));
        let unmapped = self.memory.unmap(unmap);
        let removed =
            unmapped.map_err(|error| Refusal::of_memory(unmap.address, unmap.size, &error))?;
        let answer = self.answer(header, &Reply::Unmapped(*unmap));
        if let Some(change) = removed {
            device.set_memory(self.memory.memory(), change, answer);
        } else {
            answer.done();
        }
        Ok(())
    }

    fn set_irqs(
        &mut self,
        header: &Header,
        request: &SetIrqs<'_>,
        files: Vec<ForeignFile>,
        device: &mut dyn Device,
    ) -> Result<(), Refusal> {
        VMM.debug(format_args!(
            "set irqs {request:x?} with {} files",
            files.len()
        ));
        let mut files = Some(files);
        let mut result = Err(Errno::INVAL);
        let mut unmask = None;
        device.with_interrupts(&mut |interrupts| {
            let set = interrupts.set(request, files.take().unwrap_or_default());
            unmask = interrupts.unmask_file();
            let change = set.as_ref().map_or(IrqChange::None, Clone::clone);
            result = set.map(|_| ());
            change
        });
        self.unmask = unmask;
        result?;
        self.done(header, &Reply::Empty);
        Ok(())
    }
}
