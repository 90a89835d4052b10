// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Command streams of virgl, which guests' Mesa sends and virglrenderer runs.
//!
//! The protocol is written down once, in [`command`]: which commands there are, how long each is, and what it leaves
//! behind. On that stand
//!
//! - a decoder ([`commands`]) and an encoder ([`Command::encode`]), for whoever looks at streams or makes them;
//! - a [`Shadow`]: what a context's streams have left behind in the renderer, kept apart from the renderer, so that
//!   it can be made again in another one ([`Shadow::replay`]).
//!
//! A shadow costs a fraction of what the stream made: an object's creation, not its use; the last value of a piece of
//! state, not those before. Pixels are no part of it: who saves a context reads its resources back.
//!
//! Guests are not trusted. Nothing here panics, whatever a stream holds; what a guest makes a shadow keep has named
//! limits; and what a shadow cannot know makes it give up, by name ([`Loss`]), instead of being guessed.
//!
//! ```
//! use virgl_stream::{Command, Number, Shadow};
//!
//! let mut stream = Vec::new();
//! for shade in 0..100_u32 {
//!     let colour = [shade, 0, 0, 0];
//!     Command::new(Number::SET_BLEND_COLOR, 0, &colour).encode(&mut stream)?;
//! }
//! let mut shadow = Shadow::default();
//! shadow.feed(&stream);
//! let replay = shadow.replay()?;
//! // One sub-context is chosen and one colour is set.
//! assert!(replay.words().len() < 10 && stream.len() == 500);
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

mod codec;
pub mod command;
mod context;
mod loss;
mod object;
mod replay;
mod shadow;
mod state;
mod sub_context;
#[cfg(feature = "test-utils")]
pub mod test_utils;

pub use codec::{
    Command, Commands, EncodeError, ResourceCreate, Transfer, TransferKind, Truncated, commands,
};
pub use command::{Number, ObjectType};
pub use context::{MAX_BYTES, MAX_OBJECTS, MAX_SUB_CONTEXTS};
pub use loss::{Loss, Warning};
pub use replay::Replay;
pub use shadow::Shadow;
