// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a 3D renderer holds for a guest, kept beside it so that another renderer can have it.
//!
//! [`Followed`] is a renderer around a renderer. It hands every call on, and notes what the call leaves behind: contexts
//! with the shadows of their streams ([`virgl_stream::Shadow`]), resources, who may use which. The renderer may be in
//! another process and may end: this is not in it.
//!
//! [`Followed::save`] gives that as plain data ([`SavedRenderer`]), and the contents of the resources one level after
//! the other, read back. [`Followed::restore`] makes all of it in a renderer that has nothing yet. What cannot be saved
//! is named ([`Unsaved`]), and [`Followed::unsaved`] says so at any time.
//!
//! Guest memory is no part of it: who restores attaches backings anew, with `Gpu::memory_changed`.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod error;
mod followed;
mod format;
mod level;
mod restore;
mod save;
mod saved;

pub use error::{RestoreError, SaveError, Unsaved};
pub use followed::Followed;
pub use level::{Level, levels};
pub use saved::{KIND, SavedCapset, SavedContext, SavedRenderer, SavedResource, VERSION};
