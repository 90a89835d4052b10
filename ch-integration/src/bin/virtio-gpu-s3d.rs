// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio-gpu that survives guest S3, as a vfio-user PCI server.

#[cfg(feature = "virgl")]
use std::env::args_os;
use std::error::Error;
use std::io::{Error as IoError, Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use ch_integration::vfio::ServeError as VfioError;
use ch_integration::{DeviceError, GpuDevice, vfio};
use clap::Parser;
#[cfg(feature = "virgl")]
use clap::ValueEnum;
use env_logger::Env;
use host_util::socket::{SocketError, listen};
use log::{LevelFilter, error, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::exit;
use thiserror::Error as ThisError;
use virtio_gpu_control as control;
#[cfg(feature = "virgl")]
use virtio_gpu_renderer_process::{RendererProgram, SUBCOMMAND, ServeError, serve};
use virtio_gpu_worker::{
    DeviceOptions, GpuOption, HoldList, LayoutOption, RendererPlace, Switch, save_screens,
};
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
#[command(version, about, after_help = after_help())]
struct Options {
    /// Socket that the VMM connects to
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// Socket for status, screenshots, other sizes and events (JSON, one object a line)
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// The GPU, and what a guest may make it hold: its keys and limits are below
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
    #[arg(long, value_name = "seed|tail", default_value = "seed")]
    layout: LayoutOption,

    /// Where backend=virgl renders: in a process of its own, whose crash costs the guest its 3D until the next reset, or
    /// on a thread of this one, which ends where it crashes
    #[cfg(feature = "virgl")]
    #[arg(long, value_name = "process|thread", default_value = "process")]
    renderer: RendererOption,

    /// Write what the outputs show to a PNG file when the VMM leaves, and on SIGTERM and SIGINT; with several outputs
    /// to PATH with their numbers before the extension. An output that shows nothing writes no file
    #[arg(long, value_name = "PATH")]
    screenshot_on_exit: Option<PathBuf>,

    /// Least important messages to print
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

#[cfg(feature = "virgl")]
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RendererOption {
    Process,
    Thread,
}

/// The keys and limits of the GPU, and examples.
fn after_help() -> String {
    GpuOption::help() + "\n" + EXAMPLE
}

impl Options {
    #[cfg(feature = "virgl")]
    fn renderer(&self) -> RendererPlace {
        match self.renderer {
            RendererOption::Process => RendererPlace::Process(RendererProgram::this()),
            RendererOption::Thread => RendererPlace::Thread,
        }
    }

    #[cfg(not(feature = "virgl"))]
    fn renderer(&self) -> RendererPlace {
        RendererPlace::default()
    }

    fn device(&self) -> DeviceOptions {
        let HoldList(sources) = self.hold;
        let sources: HoldSources = sources;
        let (retention, layout) = if self.freeze.is_on() {
            let no_soft_reset = self.no_soft_reset.is_on();
            (
                Retention::On {
                    sources,
                    no_soft_reset,
                },
                self.layout.into(),
            )
        } else {
            (Retention::Off, Layout::None)
        };
        DeviceOptions {
            gpu: self.gpu.clone(),
            renderer: self.renderer(),
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
    #[error(transparent)]
    Serve(#[from] VfioError),
}

fn main() {
    #[cfg(feature = "virgl")]
    if let Some(ended) = be_renderer() {
        leave(ended);
    }
    let options = Options::parse();
    log_from(options.log_level);
    leave(match run(&options) {
        Ok(()) => SUCCESS,
        Err(failure) => {
            let source = failure
                .source()
                .map_or(String::new(), |source| format!(": {source}"));
            error!("{failure}{source}");
            FAILURE
        }
    });
}

const SUCCESS: i32 = 0;
const FAILURE: i32 = 1;

/// Ends the process without its exit handlers (_exit). Mesa's take away what the renderer's threads may be working with,
/// which kills the process or hangs it; and to wait for those threads takes as long as what a guest has them do. Nothing
/// here needs the handlers: the log has no buffer, files close by themselves, and the renderer's process sees its sockets
/// close.
fn leave(status: i32) -> ! {
    drop(stdout().flush());
    exit(status)
}

fn log_from(level: LevelFilter) {
    env_logger::Builder::from_env(Env::default())
        .filter_level(level)
        .format_target(false)
        .init();
}

/// What the server starts this program again for. Before everything else: it closes files.
#[cfg(feature = "virgl")]
fn be_renderer() -> Option<i32> {
    let mut arguments = args_os().skip(1);
    let named = arguments.next().is_some_and(|name| name == SUBCOMMAND);
    if !named || arguments.next().is_some() {
        return None;
    }
    Some(match serve() {
        Ok(()) => SUCCESS,
        // The server says it.
        Err(ServeError::Renderer { .. }) => FAILURE,
        Err(failure) => {
            log_from(LevelFilter::Info);
            error!("{failure}");
            FAILURE
        }
    })
}

fn run(options: &Options) -> Result<(), StartError> {
    let device = Arc::new(GpuDevice::new(&options.device())?);
    let (listener, file) = listen(&options.socket)?;
    let mut files = vec![file];
    if let Some(path) = &options.control {
        let (control, file) = listen(path)?;
        files.push(file);
        control::serve(control, device.clone()).map_err(StartError::Thread)?;
    }
    let screens = options.screenshot_on_exit.clone();
    let (last, to) = (device.clone(), screens.clone());
    let at_exit = move || {
        save(&last, to.as_deref());
        for file in &files {
            // One that somebody else removed or replaced is none of ours.
            file.remove();
        }
    };
    end_on_signals(at_exit).map_err(StartError::Thread)?;
    vfio::announce(&options.socket);
    let leaving = |device: &GpuDevice| save(device, screens.as_deref());
    Ok(vfio::serve_with(listener, &device, leaving)?)
}

/// The guest's last picture, for a person who asked for it.
fn save(device: &GpuDevice, path: Option<&Path>) {
    if let Some(path) = path
        && let Err(failure) = save_screens(device, path)
    {
        let source = failure.source().map(|source| format!(": {source}"));
        warn!("{failure}{}", source.unwrap_or_default());
    }
}

/// SIGINT and SIGTERM end the process, after what is to be done then.
fn end_on_signals(at_exit: impl FnOnce() + Send + 'static) -> Result<(), IoError> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if signals.forever().next().is_some() {
                at_exit();
                leave(SUCCESS);
            }
        })?;
    Ok(())
}
