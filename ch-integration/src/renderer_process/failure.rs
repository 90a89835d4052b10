// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A renderer's error as it travels.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use virtio_gpu_s3::renderer::StreamError;
use virtio_gpu_s3::{GuestError, RendererError};

use super::protocol::text;

/// [`RendererError`], whose texts live in the program that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Failure {
    Unsupported { what: String },
    OutOfMemory { bytes: u64 },
    Refused { what: String, code: i32 },
    Stream(StreamFailure),
    Gone,
}

/// [`StreamError`] likewise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StreamFailure {
    NoDwords {
        bytes: usize,
    },
    Truncated {
        command: u32,
        at: usize,
        length: usize,
        left: usize,
    },
    Unknown {
        command: u32,
        at: usize,
    },
    Short {
        command: u32,
        at: usize,
        length: usize,
        needed: usize,
    },
    NoSuchResource {
        command: u32,
        at: usize,
        id: u32,
    },
    Outside {
        command: u32,
        at: usize,
        id: u32,
        field: String,
        value: u64,
    },
    TooMuch {
        command: u32,
        at: usize,
        what: String,
        asked: u64,
        most: u64,
    },
}

impl From<RendererError> for Failure {
    fn from(error: RendererError) -> Self {
        match error {
            RendererError::Unsupported { what } => Self::Unsupported { what: text(what) },
            RendererError::OutOfMemory { bytes } => Self::OutOfMemory { bytes },
            RendererError::Refused { what, code } => Self::Refused {
                what: text(what),
                code,
            },
            RendererError::Stream(error) => Self::Stream(error.into()),
            RendererError::Gone => Self::Gone,
        }
    }
}

impl From<Failure> for RendererError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsupported { what } => Self::Unsupported { what: name(&what) },
            Failure::OutOfMemory { bytes } => Self::OutOfMemory { bytes },
            Failure::Refused { what, code } => Self::Refused {
                what: name(&what),
                code,
            },
            Failure::Stream(failure) => Self::Stream(failure.into()),
            Failure::Gone => Self::Gone,
        }
    }
}

impl From<StreamError> for StreamFailure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::NoDwords { bytes } => Self::NoDwords { bytes },
            StreamError::Truncated {
                command,
                at,
                length,
                left,
            } => Self::Truncated {
                command,
                at,
                length,
                left,
            },
            StreamError::Unknown { command, at } => Self::Unknown { command, at },
            StreamError::Short {
                command,
                at,
                length,
                needed,
            } => Self::Short {
                command,
                at,
                length,
                needed,
            },
            StreamError::NoSuchResource { command, at, id } => {
                Self::NoSuchResource { command, at, id }
            }
            StreamError::Outside {
                command,
                at,
                id,
                source,
            } => {
                let (field, value) = match source {
                    GuestError::Parameter { field, value } => (field, value),
                    _ => ("range", 0),
                };
                Self::Outside {
                    command,
                    at,
                    id,
                    field: text(field),
                    value,
                }
            }
            StreamError::TooMuch {
                command,
                at,
                what,
                asked,
                most,
            } => Self::TooMuch {
                command,
                at,
                what: text(what),
                asked,
                most,
            },
        }
    }
}

impl From<StreamFailure> for StreamError {
    fn from(failure: StreamFailure) -> Self {
        match failure {
            StreamFailure::NoDwords { bytes } => Self::NoDwords { bytes },
            StreamFailure::Truncated {
                command,
                at,
                length,
                left,
            } => Self::Truncated {
                command,
                at,
                length,
                left,
            },
            StreamFailure::Unknown { command, at } => Self::Unknown { command, at },
            StreamFailure::Short {
                command,
                at,
                length,
                needed,
            } => Self::Short {
                command,
                at,
                length,
                needed,
            },
            StreamFailure::NoSuchResource { command, at, id } => {
                Self::NoSuchResource { command, at, id }
            }
            StreamFailure::Outside {
                command,
                at,
                id,
                field,
                value,
            } => {
                let field = name(&field);
                Self::Outside {
                    command,
                    at,
                    id,
                    source: GuestError::Parameter { field, value },
                }
            }
            StreamFailure::TooMuch {
                command,
                at,
                what,
                asked,
                most,
            } => Self::TooMuch {
                command,
                at,
                what: name(&what),
                asked,
                most,
            },
        }
    }
}

/// More texts than the renderer has. One that the guest has taken over may send any.
const MAX_NAMES: usize = 128;
const UNNAMED: &str = "something";

/// Texts for the life of the process.
struct Names(Mutex<BTreeSet<&'static str>>);

static NAMES: Names = Names::new();

impl Names {
    const fn new() -> Self {
        Self(Mutex::new(BTreeSet::new()))
    }

    /// The same text, kept. There are few: they are written in the renderer's source.
    fn keep(&self, text: &str) -> &'static str {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(text) {
            return known;
        }
        // A message bounds the length of one.
        if names.len() >= MAX_NAMES {
            return UNNAMED;
        }
        let name: &'static str = Box::leak(text.into());
        names.insert(name);
        name
    }
}

fn name(text: &str) -> &'static str {
    NAMES.keep(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn travelled(error: &RendererError) -> RendererError {
        let bytes = postcard::to_allocvec(&Failure::from(error.clone())).unwrap();
        postcard::from_bytes::<Failure>(&bytes).unwrap().into()
    }

    #[test]
    fn every_error_arrives_as_it_left() {
        let (command, at, id) = (43, 7, 10);
        let source = GuestError::Parameter {
            field: "box.x + box.w",
            value: 65,
        };
        let outside = StreamError::Outside {
            command,
            at,
            id,
            source,
        };
        let too_much = StreamError::TooMuch {
            command,
            at,
            what: "sub-contexts",
            asked: 1025,
            most: 1024,
        };
        for error in [
            RendererError::Unsupported { what: "a mapping" },
            RendererError::OutOfMemory { bytes: 1 << 40 },
            RendererError::Refused {
                what: "a stream",
                code: 22,
            },
            RendererError::Gone,
            StreamError::NoDwords { bytes: 3 }.into(),
            StreamError::Unknown { command, at }.into(),
            StreamError::NoSuchResource { command, at, id }.into(),
            outside.into(),
            too_much.into(),
        ] {
            assert_eq!(travelled(&error), error);
        }
    }

    #[test]
    fn a_renderer_that_makes_up_texts_fills_no_memory() {
        let names = Names::new();
        let texts = (0..10 * MAX_NAMES).map(|number| names.keep(&format!("made up {number}")));
        assert_eq!(texts.filter(|text| *text != UNNAMED).count(), MAX_NAMES);
    }
}
