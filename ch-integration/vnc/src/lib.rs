// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a virtio-gpu shows, for VNC viewers: RFB 3.8 (RFC 6143) and what its registry added since.
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
        clippy::panic,
        reason = "a test that is wrong shall panic"
    )
)]
#![forbid(unsafe_code)]

mod address;
mod desktop;
mod encodings;
mod error;
pub mod limits;
mod message;
mod pixel;
mod pull;
mod screen;
mod server;
mod session;
mod update;
mod viewer;
mod wake;
mod zrle;

pub use address::{AddressError, Listener, VncAddress};
pub use desktop::{Cursor, Desktop, Layout, Output, Patch};
pub use error::ProtocolError;
pub use message::{Area, Key, Pointer, Screen};
pub use server::serve;
pub use session::{Session, Wish};
