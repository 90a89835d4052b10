// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio-gpu that survives guest S3, as a vfio-user PCI server.

use std::error::Error;
use std::fs;
use std::io::Error as IoError;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::sync::Arc;
use std::thread;

use ch_integration::socket::{SocketError, listen};
use ch_integration::{
    DeviceError, DeviceOptions, GpuDevice, GpuOption, HoldList, Switch, control, vfio,
};
use clap::{Parser, ValueEnum};
use env_logger::Env;
use log::{LevelFilter, error};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error as ThisError;
use virtio_pci_freeze::{HoldSources, Layout, Retention};

const EXAMPLE: &str = "\
Example:
  virtio-gpu-s3d --socket /run/gpu.sock --control /run/gpu-control.sock --gpu width=1920,height=1080

  cloud-hypervisor --memory size=2G,shared=on --user-device socket=/run/gpu.sock ...
  qemu-system-x86_64 -machine q35,memory-backend=m -object memory-backend-memfd,id=m,size=2G,share=on \\
    -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"/run/gpu.sock\"}}' ...

  echo '{\"command\":\"screenshot\",\"path\":\"/tmp/screen.png\"}' | socat - UNIX-CONNECT:/run/gpu-control.sock";

/// A virtio-gpu whose display survives guest S3, for any VMM that speaks vfio-user.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLE)]
struct Options {
    /// Socket that the VMM connects to
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// Socket for status, screenshots and events (JSON, one object a line)
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// The GPU: backend=2d|virgl,outputs=N,width=PX,height=PX,hostmem=SIZE
    #[arg(long, value_name = "KEY=VALUE,...", default_value = "")]
    gpu: GpuOption,

    /// Retain the guest's resources across its sleep; off makes every reset a full reset
    #[arg(long, value_name = "on|off", default_value = "on")]
    freeze: Switch,

    /// Tell the guest that it need not reset the device after D3hot (PCI PM No_Soft_Reset); ignored with --freeze off
    #[arg(long, value_name = "on|off", default_value = "on")]
    no_soft_reset: Switch,

    /// Hints, besides the guest's freeze_mode, that make the device hold:
    /// d3hot,bus-master,function-reset,same-driver or none
    #[arg(
        long,
        value_name = "LIST",
        default_value = "d3hot,bus-master,function-reset,same-driver"
    )]
    hold: HoldList,

    /// Where freeze_mode is: at 56 as first proposed, or at 64 behind everything in virtio 1.4 and a feature bit
    #[arg(long, value_name = "LAYOUT", default_value = "seed")]
    layout: LayoutOption,

    /// Least important messages to print
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutOption {
    Seed,
    Tail,
}

impl Options {
    fn device(&self) -> DeviceOptions {
        let HoldList(sources) = self.hold;
        let sources: HoldSources = sources;
        let (retention, layout) = if self.freeze.is_on() {
            let layout = match self.layout {
                LayoutOption::Seed => Layout::Seed,
                LayoutOption::Tail => Layout::Tail,
            };
            let no_soft_reset = self.no_soft_reset.is_on();
            (
                Retention::On {
                    sources,
                    no_soft_reset,
                },
                layout,
            )
        } else {
            (Retention::Off, Layout::None)
        };
        DeviceOptions {
            gpu: self.gpu.clone(),
            retention,
            layout,
        }
    }
}

#[derive(Debug, ThisError)]
enum StartError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("Cannot start a thread")]
    Thread(#[source] IoError),
}

fn main() -> ExitCode {
    let options = Options::parse();
    env_logger::Builder::from_env(Env::default())
        .filter_level(options.log_level)
        .format_target(false)
        .init();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let source = failure
                .source()
                .map_or(String::new(), |source| format!(": {source}"));
            error!("{failure}{source}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), StartError> {
    let device = Arc::new(GpuDevice::new(&options.device())?);
    let listener = listen(&options.socket)?;
    let mut paths = vec![options.socket.clone()];
    if let Some(path) = &options.control {
        let control = listen(path)?;
        paths.push(path.clone());
        control::serve(control, device.clone()).map_err(StartError::Thread)?;
    }
    remove_at_exit(paths).map_err(StartError::Thread)?;
    vfio::announce(&options.socket);
    vfio::serve(listener, &device);
    Ok(())
}

/// SIGINT and SIGTERM end the process and take its sockets along.
fn remove_at_exit(paths: Vec<PathBuf>) -> Result<(), IoError> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if signals.forever().next().is_some() {
                paths.iter().for_each(|path| remove(path));
                exit(0);
            }
        })?;
    Ok(())
}

/// A socket that somebody else removed is removed.
fn remove(path: &Path) {
    drop(fs::remove_file(path));
}
