// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can be asked: the one list, of which both the server's JSON and the client's command line are made.
//!
//! A new command is a case of [`Command`] and its arm in [`Command::execute`].

use std::error::Error;
use std::path::PathBuf;

#[cfg(feature = "command-line")]
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use virtio_gpu_worker::{Controlled, OutputSize, PictureLimit, Screenshot};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "command-line", derive(Subcommand))]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Command {
    /// Say what the device is doing, and why it holds
    Status,
    /// Write what an output shows to a PNG file, for this user
    Screenshot {
        /// The output
        #[serde(default)]
        #[cfg_attr(feature = "command-line", arg(long, default_value_t = 0))]
        scanout: u32,
        /// Draw the cursor too
        #[serde(default)]
        #[cfg_attr(feature = "command-line", arg(long))]
        cursor: bool,
        /// The file, which is replaced when the picture is whole; - is standard output
        // In JSON it is a path of the server's; without this and `file` the picture is in the answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "command-line", arg(required = true, value_name = "FILE"))]
        path: Option<PathBuf>,
        /// Whether it goes to the file that comes with the request (SCM_RIGHTS)
        #[serde(default)]
        #[cfg_attr(feature = "command-line", arg(skip))]
        file: bool,
    },
    /// Give an output another preferred size; the guest is told, and does as it likes
    Resize {
        /// The output
        #[serde(default)]
        #[cfg_attr(feature = "command-line", arg(long, default_value_t = 0))]
        scanout: u32,
        /// Its width, in pixels
        width: u32,
        /// Its height, in pixels
        height: u32,
    },
    /// Say which version the server has
    Version,
    /// Print each sleep, frozen reset, reinstatement and wake from now on
    Events,
}

/// What comes of a command.
pub(crate) enum Outcome {
    /// An answer.
    Value(Value),
    /// A picture, and where it goes.
    Picture(Box<Screenshot>, Target),
    /// Events from now on, for as long as the connection lasts.
    Events,
}

/// Where a picture goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Answer,
    Path(PathBuf),
    /// The file that came with the request.
    File,
}

impl Command {
    pub(crate) fn execute(
        self,
        device: &dyn Controlled,
        pictures: &PictureLimit,
    ) -> Result<Outcome, String> {
        match self {
            Self::Status => {
                let status = device.status().map_err(|error| told(&error))?;
                let value = serde_json::to_value(status).map_err(|error| told(&error))?;
                Ok(Outcome::Value(value))
            }
            Self::Screenshot {
                scanout,
                cursor,
                path,
                file,
            } => {
                let target = match (path, file) {
                    (Some(_), true) => return Err("path and file exclude each other".into()),
                    (Some(path), false) => Target::Path(path),
                    (None, true) => Target::File,
                    (None, false) => Target::Answer,
                };
                let shot = device.screenshot_within(pictures, scanout, cursor);
                let shot = shot.map_err(|error| told(&error))?;
                Ok(Outcome::Picture(Box::new(shot), target))
            }
            Self::Resize {
                scanout,
                width,
                height,
            } => {
                let resized = device.resize(scanout, OutputSize { width, height });
                resized.map_err(|error| told(&error))?;
                Ok(Outcome::Value(json!({})))
            }
            Self::Version => Ok(Outcome::Value(
                json!({ "version": env!("CARGO_PKG_VERSION") }),
            )),
            Self::Events => Ok(Outcome::Events),
        }
    }
}

/// An error with what caused it.
pub(crate) fn told(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
