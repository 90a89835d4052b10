// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a context cannot be made again.

use thiserror::Error;

use crate::command::{Number, ObjectType, TABLE};

fn name(number: Number) -> &'static str {
    TABLE
        .get(usize::from(number.0))
        .map_or("an unknown one", |info| info.name)
}

/// Why a context cannot be made again from its shadow.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Loss {
    /// The renderer refused a stream. How much of it ran, nobody knows, and the context may be in error.
    #[error("the renderer refused a stream of it")]
    Refused,
    /// The stream has a command that nobody knows here.
    #[error("it used command {}, which is not known", number.0)]
    Unknown {
        /// Its number.
        number: Number,
    },
    /// A command cannot be as it is, so that the renderer will have refused it.
    #[error("command {} ({}) at dword {at} cannot be", name(*number), number.0)]
    Malformed {
        /// Its number.
        number: Number,
        /// The dword of its stream at which it starts.
        at: usize,
    },
    /// The last command of a stream is cut short.
    #[error("a stream ends within a command")]
    Truncated,
    /// What the command leaves behind has no form.
    #[error("it used {} ({}), which leaves behind what cannot be saved", name(*number), number.0)]
    NoForm {
        /// Its number.
        number: Number,
    },
    /// An object was made under a handle that is in use. Which of both a command means then is the renderer's to know.
    #[error("it made object {handle:#x} twice")]
    Twice {
        /// The handle.
        handle: u32,
    },
    /// A resource was made twice under one number.
    #[error("it made resource {blob_id} twice in its streams")]
    TakenTwice {
        /// The number that a blob takes it by.
        blob_id: u32,
    },
    /// The state is more than a shadow keeps.
    #[error("it has more {what} than {most}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much is kept.
        most: u64,
    },
    /// A query runs, and what it has counted so far is in the renderer.
    #[error("query {handle:#x} runs")]
    QueryRuns {
        /// Its handle.
        handle: u32,
    },
    /// A query has ended, and nobody fetched its result.
    #[error("the result of query {handle:#x} is not fetched")]
    QueryUnread {
        /// Its handle.
        handle: u32,
    },
    /// Drawing depends on the result of a query.
    #[error("it draws under the condition of a query")]
    Conditional,
    /// A target of transform feedback was bound: how far it is filled is in the renderer.
    #[error("how far transform feedback filled target {handle:#x} is not known")]
    StreamOut {
        /// Its handle.
        handle: u32,
    },
    /// An object is alive whose resource is not.
    #[error("object {handle:#x} (kind {}) outlived its resource", kind.0)]
    Orphan {
        /// Its handle.
        handle: u32,
        /// Its kind.
        kind: ObjectType,
    },
}

/// What is not as it was in a context that is made again, where only a guest that draws with what it has destroyed can
/// tell.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Warning {
    /// Something bound was made of a resource that is gone; nothing is bound there any more.
    #[error("{} has a resource that is gone", name(*number))]
    GoneResource {
        /// The command that bound it.
        number: Number,
    },
}
