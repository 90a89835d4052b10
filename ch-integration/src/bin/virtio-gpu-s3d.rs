// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio-gpu that survives guest S3, as a vfio-user PCI server.
#![expect(
    clippy::disallowed_macros,
    reason = "what the program itself logs is said once, at its start or end, or by a person's wish"
)]

#[cfg(feature = "virgl")]
use std::env::args_os;
use std::error::Error;
use std::io::Error as IoError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

#[cfg(feature = "virgl")]
use ch_integration::children::{self, ChildError};
use ch_integration::confine::{self, ServerNeeds};
use ch_integration::ending::{FAILURE, SUCCESS, end_on_panic, leave};
use ch_integration::vfio::ServeError as VfioError;
use ch_integration::{DeviceError, GpuDevice, vfio};
use clap::Parser;
#[cfg(feature = "virgl")]
use clap::ValueEnum;
use env_logger::Env;
use host_sandbox::user::{User, UserError, become_user};
use host_sandbox::{EnterError, Mode, namespaces};
use host_util::log_source::VMM;
use host_util::socket::{Access, SocketError, SocketFile, SocketGroup, SocketMode, listen_for};
use log::{LevelFilter, error, info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error as ThisError;
use virtio_gpu_control as control;
#[cfg(feature = "virgl")]
use virtio_gpu_renderer_process::ServeError;
use virtio_gpu_vnc::{self as vnc, AddressError, VncAddress};
#[cfg(feature = "virgl")]
use virtio_gpu_worker::Backend;
use virtio_gpu_worker::{
    DeviceOptions, GpuOption, HoldList, LayoutOption, RendererPlace, Switch, save_screens,
};
use virtio_pci_freeze::{HoldSources, Layout, Retention};

const EXAMPLE: &str = "\
Example:
  virtio-gpu-s3d --socket /run/gpu.sock --control /run/gpu-control.sock --pictures /tmp --gpu width=1920,height=1080

  cloud-hypervisor --memory size=2G,shared=on --user-device socket=/run/gpu.sock ...
  qemu-system-x86_64 -machine q35,memory-backend=m -object memory-backend-memfd,id=m,size=2G,share=on \\
    -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"/run/gpu.sock\"}}' ...

  virtio-gpu-s3ctl --control /run/gpu-control.sock screenshot screen.png";

/// A virtio-gpu whose display survives guest S3, for any VMM that speaks vfio-user.
#[derive(Debug, Parser)]
#[command(version, about, after_help = after_help())]
struct Options {
    /// Socket that the VMM connects to
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// Mode of that socket, in octal; without mode and group it is for the server's own user and root
    #[arg(long, value_name = "MODE")]
    socket_mode: Option<SocketMode>,

    /// Group of that socket, which may connect where no mode says otherwise
    #[arg(long, value_name = "GROUP")]
    socket_group: Option<SocketGroup>,

    /// Socket for status, screenshots, other sizes and events: see virtio-gpu-s3ctl (JSON, one object a line)
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,

    /// Mode of the control socket, in octal; without mode and group it is for the server's own user and root
    #[arg(long, value_name = "MODE", requires = "control")]
    control_mode: Option<SocketMode>,

    /// Group of the control socket, which may connect where no mode says otherwise
    #[arg(long, value_name = "GROUP", requires = "control")]
    control_group: Option<SocketGroup>,

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

    /// Where VNC viewers may connect: IP:PORT, localhost:PORT or unix:PATH. They see all outputs side by side
    #[arg(long, value_name = "ADDRESS")]
    vnc: Option<VncAddress>,

    /// Let viewers connect from other machines too. There is no password and no encryption: whoever reaches the address
    /// sees everything
    #[arg(long, requires = "vnc")]
    vnc_insecure: bool,

    /// Write what the outputs show to a PNG file when the VMM leaves, and on SIGTERM and SIGINT; with several outputs
    /// to PATH with their numbers before the extension. An output that shows nothing writes no file
    #[arg(long, value_name = "PATH")]
    screenshot_on_exit: Option<PathBuf>,

    /// What the server and its renderer give up before a guest's first byte: on, or log, with which system calls that
    /// they have no use for are logged by the kernel and go on, and every file is within reach; what a kernel does not
    /// have is said at the start
    #[arg(long, value_name = "on|log|off", default_value = "on")]
    sandbox: Mode,

    /// Directory in which a client of the control socket may have screenshots written, with all below it; may be given
    /// more than once. A picture in the answer needs none
    #[arg(long, value_name = "DIRECTORY")]
    pictures: Vec<PathBuf>,

    /// User of this host to become before everything else, which root can
    #[arg(long, value_name = "NAME")]
    user: Option<User>,

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
    /// Whether virglrenderer lives in this process.
    #[cfg(feature = "virgl")]
    fn renders(&self) -> bool {
        self.gpu.backend == Backend::Virgl && matches!(self.renderer, RendererOption::Thread)
    }

    #[cfg(not(feature = "virgl"))]
    fn renders(&self) -> bool {
        false
    }

    /// Starts what starts renderers, if there is to be one.
    #[cfg(feature = "virgl")]
    fn place(&self) -> Result<RendererPlace, IoError> {
        match (self.gpu.backend, self.renderer) {
            (Backend::Virgl, RendererOption::Process) => {
                children::spawned_renderer(self.sandbox).map(RendererPlace::Process)
            }
            _ => Ok(RendererPlace::Thread),
        }
    }

    #[cfg(not(feature = "virgl"))]
    fn place(&self) -> Result<RendererPlace, IoError> {
        Ok(RendererPlace::default())
    }

    /// Of the host, once the sockets are there.
    fn needs(&self) -> ServerNeeds {
        let viewers = self.vnc.as_ref().and_then(VncAddress::path);
        let sockets = [
            Some(self.socket.as_path()),
            self.control.as_deref(),
            viewers,
        ];
        let at_exit = self.screenshot_on_exit.as_deref().map(directory);
        ServerNeeds {
            wayland: self.gpu.wayland.is_some(),
            viewers: self.vnc.is_some(),
            renders: self.renders(),
            starts_render_server: self.renders() && self.gpu.venus,
            sockets: sockets.into_iter().flatten().map(directory).collect(),
            pictures: self.pictures.iter().cloned().chain(at_exit).collect(),
        }
    }

    fn device(&self, renderer: RendererPlace) -> DeviceOptions {
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
            renderer,
            retention,
            layout,
        }
    }
}

/// Where a file is.
fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        // A bare name has an empty one, which cannot be opened.
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        Some(_) => ".".into(),
        None => path.into(),
    }
}

#[derive(Debug, ThisError)]
enum StartError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error("Cannot start the process that starts renderers")]
    Spawner(#[source] IoError),
    #[error(transparent)]
    Sandbox(#[from] EnterError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Vnc(#[from] AddressError),
    #[error(
        "Other machines reach {address}, where nobody is asked for a password; --vnc-insecure allows that"
    )]
    VncExposed { address: VncAddress },
    #[error("Cannot start a thread")]
    Thread(#[source] IoError),
    #[error(transparent)]
    Serve(#[from] VfioError),
}

fn main() {
    end_on_panic();
    #[cfg(feature = "virgl")]
    if let Some(ended) = children::be_child(args_os().skip(1)) {
        leave(status_of_child(ended));
    }
    let options = Options::parse();
    log_from(options.log_level);
    leave(match run(&options) {
        Ok(()) => SUCCESS,
        Err(failure) => {
            error!("{failure}{}", because(&failure));
            FAILURE
        }
    });
}

fn log_from(level: LevelFilter) {
    env_logger::Builder::from_env(Env::default())
        .filter_level(level)
        .format_target(false)
        .init();
}

#[cfg(feature = "virgl")]
fn status_of_child(ended: Result<(), ChildError>) -> i32 {
    match ended {
        Ok(()) => SUCCESS,
        // The server says it.
        Err(ChildError::Serve(ServeError::Renderer { .. })) => FAILURE,
        Err(failure) => {
            log_from(LevelFilter::Info);
            error!("{failure}{}", because(&failure));
            FAILURE
        }
    }
}

fn because(failure: &dyn Error) -> String {
    let source = failure.source();
    source.map_or(String::new(), |source| format!(": {source}"))
}

fn run(options: &Options) -> Result<(), StartError> {
    if let Some(user) = &options.user {
        become_user(user)?;
    }
    // While the process has one thread, and before it gives up what the renderer needs.
    let renderer = options.place().map_err(StartError::Spawner)?;
    let mut files = Vec::new();
    let result = listen_and_serve(options, renderer, &mut files);
    for file in files {
        file.remove();
    }
    result
}

fn listen_and_serve(
    options: &Options,
    renderer: RendererPlace,
    files: &mut Vec<SocketFile>,
) -> Result<(), StartError> {
    let access = Access {
        mode: options.socket_mode,
        group: options.socket_group,
    };
    let (listener, file) = listen_for(&options.socket, access)?;
    files.push(file);
    let mut control = None;
    if let Some(path) = &options.control {
        let access = Access {
            mode: options.control_mode,
            group: options.control_group,
        };
        let (listener, file) = listen_for(path, access)?;
        files.push(file);
        control = Some(listener);
    }
    let mut viewers = None;
    if let Some(address) = &options.vnc {
        let (listener, file) = listen_for_viewers(address, options.vnc_insecure)?;
        files.extend(file);
        viewers = Some(listener);
    }
    enter_sandbox(options)?;
    let device = Arc::new(GpuDevice::new(&options.device(renderer))?);
    if let Some(listener) = control {
        control::serve(listener, device.clone()).map_err(StartError::Thread)?;
    }
    if let Some(listener) = viewers {
        vnc::serve(listener, device.clone()).map_err(StartError::Thread)?;
    }
    let screens = options.screenshot_on_exit.clone();
    let (last, to, made) = (device.clone(), screens.clone(), files.clone());
    let at_exit = move || {
        save(&last, to.as_deref());
        for file in &made {
            // One that somebody else removed or replaced is none of ours.
            file.remove();
        }
    };
    end_on_signals(at_exit).map_err(StartError::Thread)?;
    vfio::announce(&options.socket);
    let leaving = |device: &GpuDevice| save(device, screens.as_deref());
    Ok(vfio::serve_with(listener, &device, leaving)?)
}

/// From here on nothing is within reach but what the server was asked for.
fn enter_sandbox(options: &Options) -> Result<(), EnterError> {
    let mode = options.sandbox;
    let policy = confine::server(&options.needs());
    let mut missing = namespaces::leave(mode);
    missing.extend(policy.enter(mode)?);
    for missing in missing {
        warn!("sandbox: {missing}");
    }
    match mode {
        Mode::On => {}
        Mode::Log => warn!("sandbox: log: what it would refuse goes on"),
        Mode::Off => warn!("sandbox: off"),
    }
    Ok(())
}

/// Listens for VNC viewers, before the sandbox takes the network away.
fn listen_for_viewers(
    address: &VncAddress,
    insecure: bool,
) -> Result<(vnc::Listener, Option<SocketFile>), StartError> {
    if !insecure && !address.is_local() {
        let address = address.clone();
        return Err(StartError::VncExposed { address });
    }
    let listening = address.listen()?;
    info!("VNC viewers may connect to {address}");
    Ok(listening)
}

/// The guest's last picture, for a person who asked for it.
fn save(device: &GpuDevice, path: Option<&Path>) {
    if let Some(path) = path
        && let Err(failure) = save_screens(device, path)
    {
        // A VMM that comes and goes causes it.
        VMM.warn(format_args!("{failure}{}", because(&failure)));
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
