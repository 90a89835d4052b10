// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Questions about the outputs.

use zerocopy::FromZeros;

use super::Gpu;
use crate::command_error::CommandError;
use crate::edid;
use crate::error::GuestError;
use crate::geometry::Rect;
use crate::protocol::wire;
use crate::response::Reply;

impl Gpu {
    /// Every configured output is connected; they stand side by side.
    pub(super) fn get_display_info(&self) -> Reply {
        let mut info = wire::RespDisplayInfo::new_zeroed();
        let mut x = 0_u32;
        for (mode, output) in info.pmodes.iter_mut().zip(self.config.outputs()) {
            mode.r = Rect {
                x,
                y: 0,
                width: output.width,
                height: output.height,
            }
            .into();
            mode.enabled = 1.into();
            x = x.saturating_add(output.width);
        }
        Reply::DisplayInfo(Box::new(info))
    }

    pub(super) fn get_edid(&self, scanout_id: u32) -> Result<Reply, CommandError> {
        let index = scanout_id as usize;
        let output = self.config.outputs().get(index);
        let output = output.ok_or(GuestError::NoSuchScanout { id: scanout_id })?;
        let edid = edid::edid(index, *output, self.config.refresh_hz());
        let mut reply = wire::RespEdid::new_zeroed();
        for (to, from) in reply.edid.iter_mut().zip(&edid) {
            *to = *from;
        }
        reply.size = u32::try_from(edid.len()).unwrap_or_default().into();
        Ok(Reply::Edid(Box::new(reply)))
    }
}
