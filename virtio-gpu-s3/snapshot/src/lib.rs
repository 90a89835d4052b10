// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The file in which a virtio-gpu's state outlives its process; `docs/snapshot-format.md` describes it.
//!
//! A file is *sections*, each with a kind, a version and a checksum. What a device is apart from its pixels is text, as
//! the model crates say it (`virtio_gpu_s3::saved_state`); pixels are sections of their own, on whole pages, that are
//! written from where the device has them.
//!
//! A file is not trusted, and neither is the table in it: every length meets a limit and the file's own before anything
//! is allocated, a kind or a version that is not known is refused by name, and all of it is read and checked before the
//! first object of a device is made.
//!
//! ```
//! use std::io::Cursor;
//!
//! use virtio_gpu_s3::{Gpu, GpuConfig, NullRenderer, OutputConfig};
//! use virtio_gpu_snapshot::{Snapshot, Writer, read_gpu, write_gpu};
//!
//! let output = OutputConfig { width: 1280, height: 800 };
//! let config = GpuConfig::new(vec![output])?;
//! let gpu = Gpu::new(config.clone(), Box::new(NullRenderer))?;
//! let mut writer = Writer::new(Cursor::new(Vec::new()))?;
//! write_gpu(&mut writer, &gpu)?;
//! let file = writer.finish()?;
//!
//! let saved = read_gpu(&mut Snapshot::open(file)?)?;
//! let restored = Gpu::restore(config, Box::new(NullRenderer), saved)?;
//! assert_eq!(restored.save(), gpu.save());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod file;
mod gpu;
mod layout;
mod reader;
mod writer;

pub use file::write_file;
pub use gpu::{PIXELS, ReadGpuError, WriteGpuError, read_gpu, write_gpu};
pub use layout::{FORMAT, Kind, MAX_PIXEL_BYTES, MAX_SECTIONS, MAX_STATE_BYTES, PAGE};
pub use reader::{ReadError, Section, Snapshot};
pub use writer::{WriteError, Writer};
