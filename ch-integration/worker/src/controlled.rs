// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What people and tools see of a device.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use virtio_gpu_s3::{OutputConfig, Seen};

use crate::answer::{Answered, wait};
use crate::command::{GpuAccess, Job};
use crate::events::Event;
use crate::options::OutputSize;
use crate::picture::{PictureError, PictureLimit, ResizeError, Screenshot, save_png};
use crate::status::Status;

/// How long a picture waits for the end of a frame: three frames of a screen that shows sixty a second. No guest has to end
/// one.
const FRAME: Duration = Duration::from_millis(50);

/// A device that people and tools look at.
pub trait Controlled: Debug + Send + Sync {
    /// What it is doing.
    ///
    /// # Errors
    /// No answer came.
    fn status(&self) -> Answered<Status>;

    /// Events from now on.
    fn subscribe(&self) -> Receiver<Event>;

    /// Has something done that takes the GPU itself, on the worker's thread; not at all where that has ended.
    fn run(&self, job: Job);

    /// What a scanout shows; black where it is disabled. Where the guest is in the midst of a frame this waits for its
    /// end, if that comes soon.
    ///
    /// # Errors
    /// There is no such scanout, it cannot be read, or no answer came.
    fn screenshot(&self, scanout: u32, cursor: bool) -> Result<Screenshot, PictureError> {
        picture(self, scanout, cursor, None)
    }

    /// The same for somebody who may have so many under way and no more.
    ///
    /// # Errors
    /// As [`screenshot`](Self::screenshot) has them, or there are too many.
    fn screenshot_within(
        &self,
        limit: &PictureLimit,
        scanout: u32,
        cursor: bool,
    ) -> Result<Screenshot, PictureError> {
        picture(self, scanout, cursor, Some(limit.clone()))
    }

    /// Gives an output another preferred size, and tells the guest (VIRTIO 1.4 §5.7.4).
    ///
    /// # Errors
    /// There is no such output, it cannot have that size, or no answer came.
    fn resize(&self, scanout: u32, size: OutputSize) -> Result<(), ResizeError> {
        let index = usize::try_from(scanout).unwrap_or(usize::MAX);
        let OutputSize { width, height } = size;
        let output = OutputConfig { width, height };
        let resized = ask(self, move |access| {
            access.gpu().resize_output(index, output)
        });
        Ok(resized??)
    }
}

fn picture(
    device: &(impl Controlled + ?Sized),
    scanout: u32,
    cursor: bool,
    limit: Option<PictureLimit>,
) -> Result<Screenshot, PictureError> {
    let start = Instant::now();
    while start.elapsed() < FRAME && ask(device, move |access| access.gpu().awaits_flush(scanout))?
    {
        thread::sleep(FRAME / 10);
    }
    ask(device, move |access| {
        let picture = access.look(scanout, Seen::default())?;
        Ok(Screenshot::of(&picture, cursor, limit.as_ref())?)
    })?
}

/// Has something done that takes the GPU, and waits for what comes of it.
fn ask<T: Send + 'static>(
    device: &(impl Controlled + ?Sized),
    job: impl FnOnce(&mut dyn GpuAccess) -> T + Send + 'static,
) -> Answered<T> {
    let (reply, answer) = sync_channel(1);
    // Whoever asked may have given up.
    device.run(Box::new(move |access| drop(reply.send(job(access)))));
    wait(&answer)
}

/// Writes what every active output shows, with its cursor, as a person would have seen it: to `path`, or where the
/// device has several outputs to names with their numbers in them, such as `screen-1.png`. An output that shows nothing
/// leaves its file as it is. Returns how many were written.
///
/// # Errors
/// One cannot be had or written; those before it are.
pub fn save_screens(device: &dyn Controlled, path: &Path) -> Result<usize, PictureError> {
    let status = device.status()?;
    let several = status.scanouts.len() > 1;
    let active = status.scanouts.iter().filter(|scanout| scanout.active);
    let mut written = 0;
    for scanout in active {
        let id = u32::try_from(scanout.id).unwrap_or(u32::MAX);
        let shot = device.screenshot(id, true)?;
        let target = if several {
            numbered(path, id)
        } else {
            path.into()
        };
        save_png(&shot.image, &target)?;
        written += 1;
    }
    Ok(written)
}

fn numbered(path: &Path, id: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{id}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_output_has_a_file_of_its_own() {
        for (path, expected) in [
            ("/tmp/screen.png", "/tmp/screen-3.png"),
            ("screen", "screen-3"),
            ("a.b/screen.of.mine.png", "a.b/screen.of.mine-3.png"),
        ] {
            assert_eq!(numbered(Path::new(path), 3), Path::new(expected));
        }
    }
}
