// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The bytes a guest reads back.

use crate::protocol::{ResponseType, wire};
use zerocopy::IntoBytes;

/// A reply, never longer than the room the guest gave it, every byte of it defined.
///
/// Reusable: [`Gpu::control`](crate::Gpu::control) starts over on each call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    bytes: Vec<u8>,
    room: usize,
    lost: usize,
}

impl Response {
    /// A reply to a request whose writable part is `room` bytes.
    pub fn new(room: usize) -> Self {
        Self {
            bytes: Vec::new(),
            room,
            lost: 0,
        }
    }

    /// The same buffer for the next request.
    pub fn restart(&mut self, room: usize) {
        self.bytes.clear();
        self.room = room;
        self.lost = 0;
    }

    /// What to write to the guest.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes the reply would have had beyond the guest's room.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// Bytes of room the guest gave.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Replaces the reply by `header` and `body`.
    pub(crate) fn set(&mut self, header: &wire::CtrlHdr, body: &[u8]) {
        self.bytes.clear();
        self.lost = 0;
        self.append(header.as_bytes());
        self.append(body);
    }

    /// Turns an answer that carries no data into an error, with the fence as it was.
    pub(crate) fn fail(&mut self, error: ResponseType) {
        let type_ = error.0.to_le_bytes();
        for (byte, new) in self.bytes.iter_mut().zip(type_) {
            *byte = new;
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let left = self.room.saturating_sub(self.bytes.len());
        let kept = bytes.get(..left).unwrap_or(bytes);
        self.bytes.extend_from_slice(kept);
        self.lost = self
            .lost
            .saturating_add(bytes.len().saturating_sub(kept.len()));
    }
}

/// A successful command's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    NoData,
    /// No data either, if the renderer agrees: its answer comes later.
    InFlight,
    DisplayInfo(Box<wire::RespDisplayInfo>),
    Edid(Box<wire::RespEdid>),
    Uuid([u8; 16]),
    CapsetInfo(wire::RespCapsetInfo),
    Capset(Vec<u8>),
    MapInfo(wire::RespMapInfo),
}

impl Reply {
    pub(crate) fn type_(&self) -> ResponseType {
        match self {
            Self::NoData | Self::InFlight => ResponseType::OK_NODATA,
            Self::DisplayInfo(_) => ResponseType::OK_DISPLAY_INFO,
            Self::Edid(_) => ResponseType::OK_EDID,
            Self::Uuid(_) => ResponseType::OK_RESOURCE_UUID,
            Self::CapsetInfo(_) => ResponseType::OK_CAPSET_INFO,
            Self::Capset(_) => ResponseType::OK_CAPSET,
            Self::MapInfo(_) => ResponseType::OK_MAP_INFO,
        }
    }

    pub(crate) fn body(&self) -> &[u8] {
        match self {
            Self::NoData | Self::InFlight => &[],
            Self::DisplayInfo(info) => info.as_bytes(),
            Self::Edid(edid) => edid.as_bytes(),
            Self::Uuid(uuid) => uuid,
            Self::CapsetInfo(info) => info.as_bytes(),
            Self::Capset(bytes) => bytes,
            Self::MapInfo(info) => info.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn a_reply_is_cut_at_the_guests_room_and_says_so() {
        let header = wire::CtrlHdr::new_zeroed();
        for (room, kept, lost) in [
            (0, 0, 34),
            (23, 23, 11),
            (24, 24, 10),
            (30, 30, 4),
            (99, 34, 0),
        ] {
            let mut response = Response::new(room);
            response.set(&header, &[7; 10]);
            assert_eq!((response.bytes().len(), response.lost()), (kept, lost));
            response.restart(room);
            assert_eq!((response.bytes(), response.lost()), (&[][..], 0));
        }
    }
}
