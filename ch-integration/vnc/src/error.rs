// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What ends a viewer's connection, all of it the viewer's fault.

use thiserror::Error;

use crate::limits::{MAX_CUT_TEXT, MAX_ENCODINGS};

/// A viewer that does not keep to RFB 3.8 (RFC 6143), or asks for more than there is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Its first bytes are no version (RFC 6143 §7.1.1).
    #[error("it does not speak RFB")]
    NotRfb,
    /// A security type that was not offered (RFC 6143 §7.1.2).
    #[error("it chose security type {chosen}, which was not offered")]
    SecurityType {
        /// The type.
        chosen: u8,
    },
    /// A pixel format that is none, or has a colour map (RFC 6143 §7.4).
    #[error("it asks for a pixel format with {what}")]
    PixelFormat {
        /// What is wrong with it.
        what: &'static str,
    },
    /// More encodings than exist.
    #[error("it lists {count} encodings, more than {MAX_ENCODINGS}")]
    Encodings {
        /// How many it lists.
        count: u16,
    },
    /// Too long a text, or one in the extended format, which was not offered.
    #[error("it sends a text of {length} bytes, more than {MAX_CUT_TEXT}")]
    CutText {
        /// Bytes of it.
        length: u32,
    },
    /// A message that is not in RFC 6143, and belongs to nothing that was offered.
    #[error("it sends a message of type {kind}")]
    Message {
        /// The message's first byte.
        kind: u8,
    },
}
