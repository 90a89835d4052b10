// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tells virtio devices that the guest is about to sleep, and that it is back.
//!
//! It runs in the guest and needs no kernel patch: `freeze_mode` is written through the PCI configuration access
//! capability (VIRTIO 1.4 §4.1.4.9). It depends on nothing but the standard library, so that it links statically and
//! fits any initramfs.

#![forbid(unsafe_code)]

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use virtio_pci_freeze::guest::{Capabilities, FreezeControl};
use virtio_pci_freeze::spec::FreezeModeValue;

use crate::arguments::{Action, Arguments};
use crate::sysfs::{ConfigFile, Function};

mod arguments;
mod report;
mod sysfs;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(env::args_os().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{}", arguments::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("virtio-freezectl: {error}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let functions = match arguments.functions() {
        Ok(functions) => functions,
        Err(error) => {
            complain(None, &error);
            return ExitCode::FAILURE;
        }
    };
    let mut failed = false;
    for function in functions {
        if let Err(error) = act(&arguments, &function) {
            complain(Some(&function), error.as_ref());
            failed = true;
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn act(arguments: &Arguments, function: &Function) -> Result<(), Box<dyn Error>> {
    let mode = match arguments.action {
        Action::Status => {
            println!("{function}  {}", report::status(function)?);
            return Ok(());
        }
        Action::Freeze => FreezeModeValue::FREEZE_S3,
        Action::Unfreeze => FreezeModeValue::UNFREEZE,
    };
    let mut config = ConfigFile::open_for_writing(function)?;
    let capabilities = Capabilities::read(&mut config)?;
    let mut control = FreezeControl::new(config, &capabilities)?;
    let end = Instant::now() + arguments.timeout;
    let answered = control.request(mode, || {
        thread::sleep(arguments::POLL_INTERVAL);
        Instant::now() < end
    });
    control.close()?;
    answered?;
    println!("{function}  freeze_mode {}", report::mode_name(mode));
    Ok(())
}

fn complain(function: Option<&Function>, error: &dyn Error) {
    let about = function.map_or_else(String::new, |function| format!("{function}: "));
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    eprintln!("virtio-freezectl: {about}{text}");
}
