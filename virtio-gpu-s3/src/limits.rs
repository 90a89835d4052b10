// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest may make the host hold: one table, in which every size that a guest chooses ends.

use crate::config_error::ConfigError;
use crate::protocol::{MAX_IN_FENCES, wire};

/// A row of [`Limits::TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitInfo {
    /// The field's name, and the limit's in [`Limits::with`].
    pub name: &'static str,
    /// What it is unless set.
    pub default: u64,
    /// The least it can be set to.
    pub least: u64,
    /// The most.
    pub most: u64,
    /// Why there is one, and why this.
    pub reason: &'static str,
    /// What it limits, and why, in whole sentences.
    pub help: &'static str,
}

macro_rules! limits {
    ($($name:ident: $type:ty = $default:expr, $least:literal to $most:expr, $doc:literal, $reason:literal;)*) => {
        /// What a guest may make the host hold. Each is checked before anything is allocated.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Limits {
            $(#[doc = $doc] pub $name: $type,)*
        }

        impl Limits {
            /// Every limit.
            pub const TABLE: &[LimitInfo] = &[
                $(LimitInfo {
                    name: stringify!($name),
                    default: $default,
                    least: $least,
                    most: $most,
                    reason: $reason,
                    help: concat!($doc, " Why: ", $reason, "."),
                },)*
            ];

            /// The limit of that name, `None` if there is none.
            pub fn get(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($name) => u64::try_from(self.$name).ok(),)*
                    _ => None,
                }
            }

            /// The same with the limit of that name set.
            ///
            /// # Errors
            /// There is no such limit, or it cannot be that.
            pub fn with(mut self, name: &str, value: u64) -> Result<Self, ConfigError> {
                match name {
                    $(stringify!($name) => {
                        let limit = stringify!($name);
                        let refused = ConfigError::Limit { limit, value };
                        self.$name = <$type>::try_from(value).map_err(|_| refused)?;
                    })*
                    _ => return Err(ConfigError::UnknownLimit { name: name.to_owned() }),
                }
                self.check()?;
                Ok(self)
            }
        }

        impl Default for Limits {
            fn default() -> Self {
                const { Self { $($name: $default,)* } }
            }
        }
    };
}

limits! {
    max_host_bytes: u64 = 1 << 30, 1 to 1 << 40,
        "Bytes of pixels, scanout copies, backing tables and attachments to contexts, all together.",
        "1 GiB holds 16 outputs of 3840 × 2160, each with two framebuffers and a cursor; the host commits it page by page as the guest transfers into it";
    max_resources: usize = 16_384, 1 to 1 << 20,
        "Resources alive or retained at a time.",
        "a desktop has hundreds; each costs the host a table entry and a renderer object";
    max_blobs: usize = 4096, 0 to 1 << 20,
        "Blobs among them.",
        "one of the host may take a mapping and a file descriptor";
    max_backing_entries: u32 = 65_536, 1 to 1 << 24,
        "Guest memory ranges of one backing.",
        "256 MiB of single 4 KiB pages: one framebuffer across four 4K outputs (132 MiB), which QEMU's 16 384 would not hold";
    max_resource_dimension: u32 = 32_768, 1 to 32_768,
        "Width or height of a resource, in pixels.",
        "the largest texture there is; rows and offsets then fit 32 bits";
    max_contexts: usize = 1024, 0 to 65_536,
        "Rendering contexts at a time.",
        "a driver makes one for each process that draws; each is a thread's worth of renderer state";
    max_fences: usize = 4096, 1 to 65_536,
        "Commands that wait for a fence at a time.",
        "four times the longest ring offered; each holds its answer until the renderer is done";
    max_submit_bytes: u32 = 1 << 20, 0 to 1 << 26,
        "Bytes of one SUBMIT_3D command stream.",
        "Mesa flushes at 64 KiB; a stream is copied once, whole";
    max_renderer_bytes: u64 = 4 << 30, 0 to 1 << 44,
        "Estimated bytes of resources that live in the renderer, all together.",
        "what a small GPU has; an estimate, as only the renderer knows its formats";
    max_channels: usize = 64, 0 to 65_536,
        "Connections to the host's compositor at a time.",
        "a proxy in the guest has one for each client or one for all; each is a socket, and a client's state in the compositor";
    max_channel_files: usize = 512, 0 to 1 << 20,
        "Files of the host that channels hold: blobs, pipes, and what came with messages.",
        "a window has two or three buffers; half of the 1024 files that a process may have open where nobody said more";
    max_channel_bytes: u32 = 1 << 20, 1 to 1 << 30,
        "Bytes kept for a compositor or a pipe that does not read.",
        "four times what Linux keeps for a socket by itself; a compositor that is so far behind has stopped";
}

impl Limits {
    /// The longest request that any command can be, in bytes: what a caller needs to copy from
    /// the readable part of a descriptor chain, and no more.
    pub fn max_command_bytes(&self) -> usize {
        let entries =
            (self.max_backing_entries as usize).saturating_mul(size_of::<wire::MemEntry>());
        let backing = size_of::<wire::ResourceCreateBlob>().saturating_add(entries);
        let in_fences = (MAX_IN_FENCES as usize).saturating_mul(size_of::<u64>());
        let submit = size_of::<wire::CmdSubmit>()
            .saturating_add(in_fences)
            .saturating_add(self.max_submit_bytes as usize);
        backing.max(submit)
    }

    /// `Ok` if each is within its bounds.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for info in Self::TABLE {
            let value = self.get(info.name).unwrap_or(u64::MAX);
            if value < info.least || value > info.most {
                let limit = info.name;
                return Err(ConfigError::Limit { limit, value });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_can_be_set_by_name_within_its_bounds_and_no_further() {
        for info in Limits::TABLE {
            assert_eq!(Limits::default().get(info.name), Some(info.default));
            for value in [info.least, info.default, info.most] {
                let limits = Limits::default().with(info.name, value).unwrap();
                assert_eq!(limits.get(info.name), Some(value));
            }
            let below = info.least.checked_sub(1);
            for value in below
                .into_iter()
                .chain([info.most.saturating_add(1), u64::MAX])
            {
                let refused = Limits::default().with(info.name, value);
                let limit = info.name;
                assert_eq!(refused, Err(ConfigError::Limit { limit, value }));
            }
            assert!(info.reason.len() > 20);
        }
        let unknown = Limits::default().with("max_everything", 1).unwrap_err();
        assert_eq!(unknown.to_string(), "There is no limit max_everything");
        assert_eq!(Limits::default().get("max_everything"), None);
    }

    #[test]
    fn the_default_holds_sixteen_4k_outputs_twice_and_their_cursors() {
        let frame = 3840 * 2160 * 4;
        let cursor = 64 * 64 * 4;
        let needed: u64 = 16 * (2 * frame + cursor);
        assert!(needed <= Limits::default().max_host_bytes);
    }

    #[test]
    fn a_request_of_any_command_at_its_limit_is_copied_whole() {
        let limits = Limits::default();
        // A submission: header, fences, stream. A backing's entries are as many bytes.
        assert_eq!(limits.max_command_bytes(), 32 + 512 + (1 << 20));
        let backings = limits.with("max_backing_entries", 1 << 17).unwrap();
        assert_eq!(backings.max_command_bytes(), 56 + (16 << 17));
        let streams = limits.with("max_submit_bytes", 1 << 26).unwrap();
        assert_eq!(streams.max_command_bytes(), 32 + 512 + (1 << 26));
    }
}
