// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The series on repositories that the tests make, with the git that is installed.

mod checks;
mod command;
mod hostile;
mod mails;
mod overlaps;
mod refusals;
mod repo;
mod round_trip;
