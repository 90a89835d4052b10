// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A virtio-gpu device (VIRTIO 1.4 §5.7) whose state survives a guest's S3.
//!
//! [`Gpu`] is a pure model: requests go in as bytes, replies and pictures come out. It has no
//! file descriptor, thread, clock or socket, and knows no transport and no VMM. The caller pops
//! descriptor chains, copies each readable part once, and writes back what [`Gpu::control`] made
//! of it.
//!
//! The decision that shapes it: a reset and a suspend are different events. The transport says
//! which one it sees ([`ResetKind`]). A frozen reset keeps every resource, backing, scanout,
//! cursor and UUID, and marks resources as *retained*: a guest that woke goes on naming them, one
//! that rebooted unseen creates their ids anew, and both are served.
//!
//! ```
//! use virtio_gpu_s3::{
//!     Activation, Gpu, GpuConfig, NullRenderer, OutputConfig, ResetKind, Response, Seen,
//! };
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let config = GpuConfig::new(vec![OutputConfig { width: 1280, height: 800 }])?;
//! let mut gpu = Gpu::new(config, Box::new(NullRenderer))?;
//! let features = gpu.device_features();
//! gpu.activate(features, Activation::Fresh);
//!
//! let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
//! let mut request = [0; 24];
//! request[..4].copy_from_slice(&0x100_u32.to_le_bytes()); // GET_DISPLAY_INFO
//! let mut response = Response::new(408);
//! let _ = gpu.control(&request, &mem, &mut response);
//! assert_eq!(response.bytes()[..4], 0x1101_u32.to_le_bytes());
//!
//! let screenshot = gpu.look(0, Seen::default(), &mem)?.to_image(true);
//! assert_eq!((screenshot.width, screenshot.height), (1280, 800));
//!
//! gpu.quiesce(&mem)?;
//! gpu.reset(ResetKind::Frozen);
//! gpu.activate(features, Activation::Reinstated);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Not here: queues, interrupts, PCI, windows that show a picture, renderers that draw. A viewer
//! pulls: [`Gpu::look`] gives the picture of now, and what changed since that viewer's last look.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]
#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that is wrong shall panic"
    )
)]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod command;
pub mod protocol;
pub mod renderer;
pub mod saved_state;

mod backing;
mod command_error;
mod config;
mod config_error;
mod damage;
mod device;
mod edid;
mod error;
mod fence;
mod geometry;
mod host_visible;
mod limits;
mod picture;
mod pixel;
mod request;
mod resource;
mod response;
mod scanout;
mod status;
mod transfer;

pub use config::{GpuConfig, OutputConfig};
pub use config_error::ConfigError;
pub use device::{Activation, Gpu, Outcome, Outstanding, ResetKind};
pub use error::GuestError;
pub use fence::{Completed, Fence, Timeline, Token};
pub use geometry::Rect;
pub use host_visible::{HOST_VISIBLE_SHM_ID, HostVisible, MapError};
pub use limits::{LimitInfo, Limits};
pub use picture::{CursorImage, LookError, Picture, Seen};
pub use pixel::{BYTES_PER_PIXEL, Frame, Image, PixelFormat, row_bytes};
pub use renderer::{CrossDomainError, NullRenderer, Renderer, RendererError, StreamError};
pub use request::Request;
pub use response::Response;
pub use status::{Counters, ErrorCounters, ErrorKind, ScanoutStatus, Status};
pub use transfer::check_transfer;
