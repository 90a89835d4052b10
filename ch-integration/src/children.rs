// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The processes that a server with 3D has beside its own: each is this program again, with another first argument.
//!
//! | process | started by | does |
//! |---|---|---|
//! | `spawner` | the server, before it gives anything up | starts renderers when the server asks |
//! | `renderer` | the spawner | runs virglrenderer |
//! | `render-server` | the renderer, before it gives anything up, with venus | becomes virglrenderer's render server |
//!
//! Their second argument is the sandbox's mode, and a renderer's third says that a spawner left the namespaces for it.

use std::env;
use std::ffi::OsString;
use std::io::Error as IoError;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use host_sandbox::{Missing, Mode, Policy, namespaces};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use thiserror::Error;
use virtio_gpu_renderer_process::{
    RendererProgram, SPAWNER, SUBCOMMAND, ServeError, Spawner, serve, serve_spawner,
};

use crate::confine;

/// How the program is told to become the render server. Its socket is its standard input.
const RENDER_SERVER: &str = "render-server";
/// Its namespaces were left by who started it.
const INSIDE: &str = "inside";
/// The program that runs, also where its file was replaced meanwhile.
const THIS: &str = "/proc/self/exe";

/// A child that ended because something is missing.
#[derive(Debug, Error)]
pub enum ChildError {
    /// The renderer.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The spawner.
    #[error("Cannot start renderers")]
    Spawner(#[source] IoError),
    /// Its sandbox.
    #[error("{0}")]
    Sandbox(String),
    /// The render server.
    #[error("No render server can be run: {}", tried(searched))]
    NoRenderServer {
        /// Where it was looked for, and what came of that.
        searched: Vec<(PathBuf, IoError)>,
    },
}

/// Is one of these processes, if the program was started as such. To be called before everything else.
pub fn be_child(mut arguments: impl Iterator<Item = OsString>) -> Option<Result<(), ChildError>> {
    let role = arguments.next()?;
    let rest: Vec<OsString> = arguments.collect();
    let mode = rest.first().map_or(Some(Mode::On), |mode| {
        mode.to_str().and_then(|mode| mode.parse().ok())
    });
    let inside = match rest.get(1).map(OsString::as_os_str) {
        None => Some(false),
        Some(word) => (word == INSIDE).then_some(true),
    };
    // Whatever else is no child's command line, and for the option parser to complain about.
    let (mode, inside) = (mode?, inside?);
    match role.to_str()? {
        SUBCOMMAND => Some(be_renderer(mode, inside)),
        SPAWNER => Some(be_spawner(mode)),
        RENDER_SERVER => Some(be_render_server(mode)),
        _ => None,
    }
}

/// A renderer that a process of its own starts, so that the server need not be able to.
///
/// # Errors
/// The system has no process.
pub fn spawned_renderer(mode: Mode) -> Result<RendererProgram, IoError> {
    let mut program = RendererProgram::this();
    program.arguments = vec![mode.name().into()];
    if mode != Mode::Off {
        let spawner = Spawner::start(Path::new(THIS), &program.arguments)?;
        program.spawner = Some(Arc::new(spawner));
    }
    Ok(program)
}

/// What is missing is the server's to tell, which prints what its children do.
fn tell(missing: &[Missing]) {
    for missing in missing {
        eprintln!("sandbox: {missing}");
    }
}

fn enter(policy: &Policy, mode: Mode) -> Result<Vec<Missing>, String> {
    policy.enter(mode).map_err(|error| error.to_string())
}

fn be_spawner(mode: Mode) -> Result<(), ChildError> {
    let mut missing = namespaces::leave(mode);
    missing.extend(enter(&confine::spawner(), mode).map_err(ChildError::Sandbox)?);
    tell(&missing);
    let arguments = [mode.name().into(), INSIDE.into()];
    serve_spawner(Path::new(THIS), &arguments).map_err(ChildError::Spawner)
}

fn be_renderer(mode: Mode, inside: bool) -> Result<(), ChildError> {
    let confined = |venus: bool| {
        let mut missing = Vec::new();
        if !inside {
            missing = namespaces::leave(mode);
        }
        let render_server = venus.then(|| start_render_server(mode)).transpose();
        let render_server = render_server.map_err(|error| error.to_string())?;
        missing.extend(enter(&confine::renderer(), mode)?);
        if !inside {
            // Where there is a spawner, it has said so, once for all renderers.
            tell(&missing);
        }
        Ok(render_server)
    };
    Ok(serve(&confined)?)
}

/// Starts a process that becomes the render server. It ends when its socket is closed.
fn start_render_server(mode: Mode) -> Result<OwnedFd, IoError> {
    let (domain, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (ours, theirs) = socketpair(domain, kind, SocketFlags::CLOEXEC, None)?;
    // Its number is nobody's to wait for: it outlives this process by no more than its socket does.
    drop(
        Command::new(THIS)
            .arg(RENDER_SERVER)
            .arg(mode.name())
            .stdin(Stdio::from(theirs))
            .spawn()?,
    );
    Ok(ours)
}

/// The environment variable by which virglrenderer too can be told where its render server is.
const RENDER_SERVER_PATH: &str = "RENDER_SERVER_EXEC_PATH";
/// Where virglrenderer installs it.
const RENDER_SERVERS: [&str; 3] = [
    "/usr/libexec/virgl_render_server",
    "/usr/lib/virgl_render_server",
    "/usr/local/libexec/virgl_render_server",
];

fn be_render_server(mode: Mode) -> Result<(), ChildError> {
    let policy = confine::render_server();
    // Who started it has said what is missing.
    enter(&policy, mode).map_err(ChildError::Sandbox)?;
    let paths = env::var_os(RENDER_SERVER_PATH).map_or_else(
        || RENDER_SERVERS.map(PathBuf::from).to_vec(),
        |path| vec![path.into()],
    );
    let run = |path: PathBuf| {
        // It does not return, unless it fails. The socket is standard input.
        let error = Command::new(&path).args(["--socket-fd", "0"]).exec();
        (path, error)
    };
    let searched = paths.into_iter().map(run).collect();
    Err(ChildError::NoRenderServer { searched })
}

fn tried(searched: &[(PathBuf, IoError)]) -> String {
    let each = searched.iter();
    let each = each.map(|(path, error)| format!("'{}': {error}", path.display()));
    each.collect::<Vec<_>>().join(", ")
}
