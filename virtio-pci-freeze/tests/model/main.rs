// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The model against what drivers do, what the standard says and what went wrong elsewhere.

mod common;
// It reads files, a million characters of them, and nothing of the crate.
#[cfg(not(miri))]
mod conformance;
mod freeze_mode;
mod guest;
mod hand_over;
mod interrupts;
mod patched;
mod pci;
mod properties;
mod queues;
mod reference;
mod registers;
mod regressions;
mod resets;
mod retention;
mod same_driver;
mod saved_state;
mod seeds;
mod status;
mod suspend;
