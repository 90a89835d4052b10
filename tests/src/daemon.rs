// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device server `virtio-gpu-s3d`, as a process.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::channel::Channel;
use crate::image::Image;
use crate::lab::Lab;
use crate::process::{Running, Sockets};

/// The server answers at once; the limit is for a machine under full load.
const LIMIT: Duration = Duration::from_secs(30);
/// From the end of a draw call in the guest until its last flush has reached the server. Twice the
/// 5 s after which a virtio-gpu driver gives a command up.
const PICTURE_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at the picture: the server has no event for a flush.
const PICTURE_INTERVAL: Duration = Duration::from_millis(50);

/// The environment variable with the path of a server that was built with the feature `virgl`.
pub const VIRGL: &str = "VIRTIO_GPU_S3D_VIRGL";

/// A picture of one output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// Whether the guest scans a resource out there.
    pub active: bool,
    /// What is shown; black while not active.
    pub image: Image,
}

/// A server, killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    control: Channel,
    events: Channel,
    running: Running,
    directory: PathBuf,
    sockets: Sockets,
}

impl Daemon {
    /// Starts a server with further command-line `options` and waits until it answers.
    ///
    /// # Errors
    /// The program is not built or does not start.
    pub fn start(lab: &Lab, name: &str, options: &[&str]) -> Result<Self> {
        Self::start_program(&program()?, lab, name, options)
    }

    /// As [`Daemon::start`], with 3D, an output of this size, and more for `--gpu`. `None` if [`VIRGL`] names no program, with the
    /// reason on standard error.
    ///
    /// # Errors
    /// The program does not start.
    pub fn start_3d(
        lab: &Lab,
        name: &str,
        (width, height): (u32, u32),
        more: &str,
        options: &[&str],
    ) -> Result<Option<Self>> {
        let Some(program) = env::var_os(VIRGL) else {
            eprintln!("skipped: {VIRGL} names no server with 3D (scripts/virgl guests does)");
            return Ok(None);
        };
        let gpu = format!("backend=virgl,width={width},height={height},{more}");
        let options = [&["--gpu", &gpu], options].concat();
        Self::start_program(Path::new(&program), lab, name, &options).map(Some)
    }

    fn start_program(program: &Path, lab: &Lab, name: &str, options: &[&str]) -> Result<Self> {
        let directory = lab.run_directory(&format!("{name}-server"))?;
        let sockets = Sockets::create()?;
        let path = sockets.path().join("control");
        let device = sockets.path().join("device");
        let fixed = ["--socket".into(), device, "--control".into(), path.clone()];
        let fixed = fixed
            .into_iter()
            .chain(["--log-level", "debug", "--pictures"].map(PathBuf::from))
            .chain([directory.clone()]);
        let arguments = fixed.chain(options.iter().map(PathBuf::from));
        let running = Running::start(program, arguments, &directory.join("server.log"))?;
        let connect =
            |name| Channel::connect(name, &path, LIMIT).with_context(|| log_of(&directory));
        let (control, events) = (connect("control")?, connect("events")?);
        request(&events, &json!({"command": "events"}))?;
        Ok(Self {
            control,
            events,
            running,
            directory,
            sockets,
        })
    }

    /// The vfio-user socket, for [`crate::machine::Gpu::VfioUser`].
    pub fn device_socket(&self) -> PathBuf {
        self.sockets.path().join("device")
    }

    /// Sends a signal, by its name, to the server's renderer, whoever started it for the server.
    ///
    /// # Errors
    /// There is none.
    pub fn signal_renderer(&self, signal: &str) -> Result<()> {
        let mut below = vec![self.running.id()];
        while let Some(id) = below.pop() {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            if words.nth(1) == Some(b"renderer") {
                let status = process::Command::new("kill")
                    .args([format!("-{signal}"), id.to_string()])
                    .status()?;
                ensure!(status.success(), "kill -{signal} {id}: {status}");
                return Ok(());
            }
            for task in fs::read_dir(format!("/proc/{id}/task"))
                .into_iter()
                .flatten()
            {
                let children = fs::read_to_string(task?.path().join("children"));
                let children = children.unwrap_or_default();
                below.extend(children.split_whitespace().flat_map(str::parse::<u32>));
            }
        }
        bail!("the server has no renderer")
    }

    /// The server's view of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Value> {
        request(&self.control, &json!({"command": "status"}))
    }

    /// One of the counters of [`Daemon::status`].
    ///
    /// # Errors
    /// The server has no such counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        let counter = status.pointer(&format!("/counters/{name}"));
        counter
            .and_then(Value::as_u64)
            .with_context(|| format!("no counter {name} in {status}"))
    }

    /// What output 0 shows now. The PNG stays in the log directory under `name`.
    ///
    /// # Errors
    /// The server could not make a picture.
    pub fn screenshot(&self, name: &str) -> Result<Screenshot> {
        let path = self.picture(name);
        let reply = request(&self.control, &json!({"command": "screenshot"}))?;
        let png = reply["png"].as_str().context("screenshot without png")?;
        let png = STANDARD.decode(png).context("screenshot: base64")?;
        fs::write(&path, png).with_context(|| format!("write {}", path.display()))?;
        let active = reply
            .get("active")
            .and_then(Value::as_bool)
            .context("screenshot without active")?;
        Ok(Screenshot {
            active,
            image: Image::read(&path)?,
        })
    }

    /// Gives output 0 another preferred size.
    ///
    /// # Errors
    /// The server refused it.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        let message = json!({"command": "resize", "width": width, "height": height});
        request(&self.control, &message).map(drop)
    }

    /// Where [`Daemon::screenshot`] left the PNG `name`.
    pub fn picture(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.png"))
    }

    /// Waits until output 0 shows a picture with this [`Image::hash`], and gives it.
    ///
    /// # Errors
    /// It shows another.
    pub fn wait_for_hash(&self, name: &str, expected: u64) -> Result<Image> {
        let deadline = Instant::now() + PICTURE_LIMIT;
        loop {
            let Screenshot { active, image } = self.screenshot(name)?;
            if image.hash() == expected {
                return Ok(image);
            }
            ensure!(Instant::now() < deadline, self.explain(name, active));
            thread::sleep(PICTURE_INTERVAL);
        }
    }

    /// Waits until output 0 shows `expected`: the guest's flush may still be on its way.
    ///
    /// # Errors
    /// It shows something else.
    pub fn wait_for_picture(&self, name: &str, expected: &Image) -> Result<()> {
        let (shown, result) = wait_until_shown(expected, || self.screenshot(name))?;
        result.with_context(|| self.explain(name, shown.active))
    }

    /// Checks that output 0 shows `expected` at this very moment.
    ///
    /// # Errors
    /// It shows something else.
    pub fn must_show(&self, name: &str, expected: &Image) -> Result<()> {
        let shown = self.screenshot(name)?;
        shown
            .image
            .must_be(expected)
            .with_context(|| self.explain(name, shown.active))
    }

    fn explain(&self, picture: &str, active: bool) -> String {
        let status = self.status().unwrap_or_default();
        format!(
            "picture {picture} in {} (active: {active}); server: {status}",
            self.directory.display()
        )
    }

    /// A place in the stream of events to count or wait from.
    pub fn position(&self) -> usize {
        self.events.position()
    }

    /// Waits for the first event `name` since `from`.
    ///
    /// # Errors
    /// It did not come.
    pub fn wait_event(&self, name: &str, from: usize) -> Result<()> {
        self.events.wait(from, LIMIT, name, |message| {
            (event(message) == Some(name)).then_some(())
        })
    }

    /// The names of the events since `from`.
    pub fn events(&self, from: usize) -> Vec<String> {
        self.events
            .collect(from, |message| event(message).map(str::to_owned))
    }
}

fn event(message: &Value) -> Option<&str> {
    message.get("event")?.as_str()
}

/// Looks until the picture is `expected` or the guest's flush cannot be on its way any more. Gives the
/// last picture, and in what it differs.
///
/// # Errors
/// There was no picture to be had.
pub(crate) fn wait_until_shown(
    expected: &Image,
    look: impl Fn() -> Result<Screenshot>,
) -> Result<(Screenshot, Result<()>)> {
    let deadline = Instant::now() + PICTURE_LIMIT;
    loop {
        let shown = look()?;
        let result = shown.image.must_be(expected);
        if result.is_ok() || Instant::now() > deadline {
            return Ok((shown, result));
        }
        thread::sleep(PICTURE_INTERVAL);
    }
}

/// One request on the control socket.
///
/// # Errors
/// The server refused it or is gone.
pub(crate) fn request(channel: &Channel, message: &Value) -> Result<Value> {
    let from = channel.position();
    channel.send(message)?;
    let reply = channel.wait(from, LIMIT, "reply", |reply| {
        event(reply).is_none().then(|| reply.clone())
    })?;
    match reply.get("return") {
        Some(value) => Ok(value.clone()),
        None => bail!("virtio-gpu-s3d: {message} failed: {reply}"),
    }
}

fn log_of(directory: &Path) -> String {
    fs::read_to_string(directory.join("server.log")).unwrap_or_default()
}

/// `VIRTIO_GPU_S3D`, or the program beside the test binary's directory, where Cargo puts it.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(path) = env::var_os("VIRTIO_GPU_S3D") {
        return Ok(path.into());
    }
    let test = env::current_exe().context("path of the test binary")?;
    let built = test
        .ancestors()
        .nth(2)
        .map(|profile| profile.join("virtio-gpu-s3d"));
    built.filter(|path| path.exists()).ok_or_else(|| {
        anyhow!("no virtio-gpu-s3d: cargo build -p ch-integration --bin virtio-gpu-s3d")
    })
}
