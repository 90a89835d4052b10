// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a command failed, and what the guest is told.

use thiserror::Error;

use crate::error::GuestError;
use crate::host_visible::MapError;
use crate::picture::LookError;
use crate::protocol::ResponseType;
use crate::renderer::RendererError;
use crate::status::ErrorKind;

/// Why a command failed, by blame.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// The guest's.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The host's: its renderer failed a request that was in order.
    #[error(transparent)]
    Renderer(#[from] RendererError),
    /// The host's: it could not map what is in order.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl From<LookError> for CommandError {
    fn from(error: LookError) -> Self {
        match error {
            LookError::NoSuchScanout { id } => GuestError::NoSuchScanout { id }.into(),
            LookError::Guest(error) => error.into(),
            LookError::Renderer(error) => error.into(),
        }
    }
}

impl CommandError {
    pub(crate) fn response(&self) -> ResponseType {
        match self {
            Self::Guest(error) => error.response(),
            Self::Renderer(RendererError::OutOfMemory { .. }) => ResponseType::ERR_OUT_OF_MEMORY,
            Self::Renderer(RendererError::Stream(error)) => error.response(),
            Self::Renderer(RendererError::CrossDomain(error)) => error.response(),
            Self::Renderer(_) | Self::Map(_) => ResponseType::ERR_UNSPEC,
        }
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Guest(error) => error.kind(),
            Self::Renderer(RendererError::Stream(_) | RendererError::CrossDomain(_)) => {
                ErrorKind::Stream
            }
            Self::Renderer(_) | Self::Map(_) => ErrorKind::Host,
        }
    }
}
