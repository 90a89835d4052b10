// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Advice to the processor and the host about memory, which changes nothing but time: a crate of its own, because it takes
//! raw addresses and a system call, and the device's model has neither.

mod large_pages;
mod prefetch;

pub use large_pages::zeros;
pub use prefetch::{prefetch, prefetch_row, prefetch_start};
