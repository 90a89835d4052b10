// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest S3 with stock Linux guests and the device server: does the display live on?

mod controls;
mod events;
mod firmware;
mod freeze_mode;
mod hibernation;
mod platforms;
mod resize;
mod resume_time;
mod rig;
mod survival;
mod virgl;

/// Makes each scenario, a `fn(Kernel) -> Result<()>`, a test on every kernel of the lab.
macro_rules! on_every_kernel {
    ($($scenario:ident),+ $(,)?) => {
        on_every_kernel!(@ linux_6_1, V6_1, $($scenario),+);
        on_every_kernel!(@ linux_6_12, V6_12, $($scenario),+);
        on_every_kernel!(@ linux_7, V7, $($scenario),+);
    };
    (@ $module:ident, $kernel:ident, $($scenario:ident),+) => {
        mod $module {
            $(#[test]
            fn $scenario() -> anyhow::Result<()> {
                super::$scenario(tests::lab::Kernel::$kernel)
            })+
        }
    };
}
use on_every_kernel;
