// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The renderer in a process of its own.
//!
//! virglrenderer is C that parses a guest's bytes. Here a crash of it costs the guest its 3D until the next full reset,
//! and never the device or the VMM: `RemoteRenderer` stands in the device for a renderer that lives in another
//! process, in which `serve` runs. That process is this program again, with `SUBCOMMAND`.
//!
//! Requests, replies and fences go through rings in memory that both see, and so do pixels and streams. Calls whose
//! answer nobody waits for are in flight, many at a time, and are answered in order.
//! Two sockets join the processes, for files and for who sleeps: one for calls, one for what the device has to be told.
//! Guest memory is not copied: the renderer's process maps the files that the VMM gave, while a resource needs them.
//! The other way a blob that the guest maps comes as the file that it lies in.

#![cfg(feature = "virgl")]

mod arena;
mod channel;
mod line;
mod live;
mod memory;
mod messages;
mod process;
mod protocol;
mod regions;
mod remote;
mod scratch;
mod serve;
mod spawner;

use std::ffi::OsString;
use std::fmt::{Debug, Formatter, Result as FmtResult};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use virtio_gpu_s3::Limits;

pub use process::{Breaker, StartProcessError};
pub use remote::RemoteRenderer;
pub use serve::{Confine, ServeError, serve};
pub use spawner::{SPAWNER, Spawner, serve_spawner};

/// How the program is told to be a renderer. Its sockets are its standard input and output.
pub const SUBCOMMAND: &str = "renderer";

/// A guest that makes its renderer crash gets so many new ones a minute, as each costs the host a process start: enough
/// for a person who tries again, too few to keep a processor busy.
pub const RESTARTS_A_MINUTE: usize = 5;

/// A call that takes longer never ends: a stream waits 1 s at most for the fences it names, and what Linux's own drivers
/// grant a GPU's work before they call it hung is 10 s.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// A program that [serves](serve) as renderer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RendererProgram {
    /// Its path.
    pub path: PathBuf,
    /// What it is told beside [`SUBCOMMAND`].
    pub arguments: Vec<OsString>,
    /// Who starts it, with a path and arguments of its own, instead of this process.
    pub spawner: Option<Arc<Spawner>>,
    /// How often in a minute it is started again.
    pub restarts_a_minute: usize,
    /// How long it may take over one call.
    pub call_limit: Duration,
    /// Whether it renders Vulkan too (`--gpu venus=on`).
    pub venus: bool,
    /// Bytes of the longest request that it is handed on from.
    pub max_request: usize,
}

impl RendererProgram {
    /// The program at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            arguments: Vec::new(),
            spawner: None,
            restarts_a_minute: RESTARTS_A_MINUTE,
            call_limit: CALL_LIMIT,
            venus: false,
            max_request: Limits::default().max_command_bytes(),
        }
    }

    /// The program that runs, also where its file was replaced meanwhile.
    pub fn this() -> Self {
        Self::new("/proc/self/exe".into())
    }
}

/// How the device hears of its renderer. Called on a thread that must not wait.
struct Wake(Box<dyn Fn() + Send + Sync>);

impl Debug for Wake {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.debug_struct("Wake").finish_non_exhaustive()
    }
}
