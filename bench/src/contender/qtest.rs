// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's virtio-gpu: rings in shared memory, registers and doorbells as lines of text on its qtest socket.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use virtio_gpu_s3::Image;
use virtio_pci_freeze::spec::{cap_type, pci};

use crate::pci::PciFunction;
use crate::process::Process;
use crate::ram::{Ram, SIZE};

/// Until QEMU connects.
const LIMIT: Duration = Duration::from_secs(20);
const SLOT: u32 = 4;
/// Where BARs go: no RAM is there.
const BAR_BASE: u32 = 0xc000_0000;
const BAR_SPACING: u32 = 16 << 20;
/// PCI Local Bus 3.0 §3.2.2.3.2: the way to configuration space.
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

/// A connection to a QEMU that runs nothing.
struct Function {
    stream: BufReader<UnixStream>,
    _qemu: Process,
    common: u64,
    doorbell: u64,
}

pub(super) fn start(ram: &mut Ram, program: &Path) -> Result<Box<dyn PciFunction>> {
    let directory = TempDir::new()?;
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket)?;
    let memory = format!(
        "memory-backend-file,id=ram,size={SIZE},mem-path={},share=on",
        ram.path()
    );
    let arguments = [
        ["-machine", "q35,memory-backend=ram"],
        ["-object", &memory],
        ["-m", &format!("{SIZE}B")],
        ["-accel", "tcg"],
        ["-display", "none"],
        ["-nic", "none"],
        ["-device", &format!("virtio-gpu-pci,addr={SLOT:#x}")],
        ["-qtest", &format!("unix:{}", socket.display())],
    ];
    // -S: the machine's processor never runs, so nobody else drives the device.
    let arguments: Vec<_> = arguments
        .concat()
        .into_iter()
        .chain(["-nodefaults", "-no-user-config", "-S"])
        .map(str::to_owned)
        .collect();
    let qemu = Process::start_in(directory, program, &arguments)?;
    let mut function = Function {
        stream: BufReader::new(accept(&listener)?),
        _qemu: qemu,
        common: 0,
        doorbell: 0,
    };
    function.find_registers()?;
    Ok(Box::new(function))
}

fn accept(listener: &UnixListener) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(LIMIT))?;
                return Ok(stream);
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) => ensure!(start.elapsed() < LIMIT, "QEMU does not start"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

impl Function {
    /// Walks the capabilities (VIRTIO 1.4 §4.1.4) and places the BARs that they name.
    fn find_registers(&mut self) -> Result<()> {
        let mut at = self.config(pci::CAPABILITIES_POINTER)? & 0xff;
        while at != 0 {
            let offset = u8::try_from(at)?;
            let head = self.config(offset)?;
            let [id, next, _, type_] = head.to_le_bytes();
            at = next.into();
            if id != pci::CAP_VENDOR {
                continue;
            }
            if type_ == cap_type::COMMON_CFG {
                self.common = self.structure(offset)?;
            }
            if type_ == cap_type::NOTIFY_CFG {
                // queue_notify_off of queue 0 is 0.
                self.doorbell = self.structure(offset)?;
            }
        }
        ensure!(self.common != 0 && self.doorbell != 0, "no virtio device");
        Ok(())
    }

    fn structure(&mut self, capability: u8) -> Result<u64> {
        let [bar, ..] = self.config(capability + 4)?.to_le_bytes();
        let offset = self.config(capability + 8)?;
        let address = BAR_BASE + u32::from(bar) * BAR_SPACING;
        let register = pci::BAR0 + bar * 4;
        self.set_config(register, address)?;
        self.set_config(register + 4, 0)?;
        Ok(u64::from(address) + u64::from(offset))
    }

    fn config(&mut self, offset: u8) -> Result<u32> {
        self.select(offset)?;
        let value = self.ask(&format!("inl {CONFIG_DATA:#x}"))?;
        Ok(u32::try_from(value)?)
    }

    fn set_config(&mut self, offset: u8, value: u32) -> Result<()> {
        self.select(offset)?;
        self.tell(&format!("outl {CONFIG_DATA:#x} {value:#x}"))
    }

    fn select(&mut self, offset: u8) -> Result<()> {
        let address = 1 << 31 | SLOT << 11 | u32::from(offset & 0xfc);
        self.tell(&format!("outl {CONFIG_ADDRESS:#x} {address:#x}"))
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        self.write(line)?;
        self.answer().map(drop)
    }

    fn ask(&mut self, line: &str) -> Result<u64> {
        self.write(line)?;
        let answer = self.answer()?;
        let digits = answer.trim_start_matches("0x");
        Ok(u64::from_str_radix(digits, 16)?)
    }

    fn write(&mut self, line: &str) -> Result<()> {
        let mut whole = String::with_capacity(line.len() + 1);
        writeln!(whole, "{line}")?;
        Ok(self.stream.get_mut().write_all(whole.as_bytes())?)
    }

    /// What follows `OK`.
    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.trim_end().strip_prefix("OK") {
            Some(rest) => Ok(rest.trim_start().to_owned()),
            None => bail!("QEMU answered '{}'", line.trim_end()),
        }
    }
}

fn letter(width: usize) -> Result<char> {
    let letters = [(1, 'b'), (2, 'w'), (4, 'l'), (8, 'q')];
    let found = letters.into_iter().find(|&(bytes, _)| bytes == width);
    found
        .map(|(_, letter)| letter)
        .context("a register's width")
}

fn value(data: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(data) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

impl PciFunction for Function {
    fn write_config(&mut self, offset: u8, data: &[u8]) -> Result<()> {
        self.select(offset)?;
        let port = CONFIG_DATA + u16::from(offset & 3);
        let letter = letter(data.len())?;
        self.tell(&format!("out{letter} {port:#x} {:#x}", value(data)))
    }

    fn read_common(&mut self, offset: u8, data: &mut [u8]) -> Result<()> {
        let address = self.common + u64::from(offset);
        let letter = letter(data.len())?;
        let read = self.ask(&format!("read{letter} {address:#x}"))?;
        for (to, from) in data.iter_mut().zip(read.to_le_bytes()) {
            *to = from;
        }
        Ok(())
    }

    fn write_common(&mut self, offset: u8, data: &[u8]) -> Result<()> {
        let address = self.common + u64::from(offset);
        let letter = letter(data.len())?;
        self.tell(&format!("write{letter} {address:#x} {:#x}", value(data)))
    }

    /// Does not wait for QEMU to confirm: the driver polls the ring meanwhile, as after a real doorbell.
    fn ring(&mut self) -> Result<()> {
        let line = format!("writew {:#x} 0x0", self.doorbell);
        self.write(&line)
    }

    fn settle(&mut self) -> Result<()> {
        self.answer().map(drop)
    }

    fn picture(&mut self) -> Result<Option<Image>> {
        Ok(None)
    }
}
