// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a process of the server ends, and with which status.

use std::io::{Write, stdout};
use std::panic::{set_hook, take_hook};

use signal_hook::low_level::exit;

/// It did what it was asked to.
pub const SUCCESS: i32 = 0;
/// It could not, and said why.
pub const FAILURE: i32 = 1;
/// A thread panicked, which is a mistake of ours: Rust's own status for a panic of `main`. Whoever supervises the server
/// starts it again (systemd: `Restart=on-failure`).
pub const PANICKED: i32 = 101;

/// Ends the process without its exit handlers (_exit). Mesa's take away what the renderer's threads may be working with,
/// which kills the process or hangs it; and to wait for those threads takes as long as what a guest has them do. Nothing
/// here needs the handlers: the log has no buffer, files close by themselves, and the renderer's process sees its sockets
/// close.
pub fn leave(status: i32) -> ! {
    drop(stdout().flush());
    exit(status)
}

/// Has a panic of any thread end the process, once it is reported. A server whose worker, lobby or control thread is gone
/// lives and serves nobody; one that ended is started again.
pub fn end_on_panic() {
    let report = take_hook();
    set_hook(Box::new(move |panic| {
        report(panic);
        exit(PANICKED);
    }));
}
