// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A VNC viewer that says anything, in pieces of any length, to a desktop that changes meanwhile.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virtio_gpu_vnc::{Cursor, Desktop, Layout, Patch, Session, limits};

/// What a viewer that behaves says first, so that not every input has to find it.
const BEGIN: &[u8] = b"RFB 003.008\n\x01\x01";

fn change(desktop: &mut Desktop, by: u8) {
    let (width, _) = desktop.layout().size();
    match by % 4 {
        0 => {
            desktop.patch(&Patch {
                x: u32::from(by),
                y: u32::from(by) / 2,
                width: 3,
                pixels: vec![by.into(); 9],
            });
        }
        1 => {
            desktop.move_cursor((i32::from(by) - 20, i32::from(by)));
        }
        2 => {
            desktop.set_cursor((by & 4 != 0).then(|| Cursor {
                width: 5,
                height: 2,
                hot: (4, 1),
                pixels: vec![u32::from(by) << 22; 10],
            }));
        }
        _ => desktop.arrange(Layout::new([(
            0,
            (width % 300 + u32::from(by), 70 + u32::from(by)),
        )])),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, mut rest)) = bytes.split_first() else {
        return;
    };
    let mut desktop = Desktop::default();
    desktop.arrange(Layout::new([(0, (100, 90)), (1, (30, 20))]));
    let (mut out, mut wishes) = (Vec::new(), Vec::new());
    let mut session = Session::new(&mut out);
    if how & 1 == 0 && session.receive(BEGIN, &mut out, &mut wishes).is_ok() {
        session.update(&desktop, &mut out);
    }
    while let Some((&length, more)) = rest.split_first() {
        let (piece, after) = more.split_at(usize::from(length).min(more.len()));
        rest = after;
        out.clear();
        wishes.clear();
        if session.receive(piece, &mut out, &mut wishes).is_err() {
            return;
        }
        assert!(out.len() <= 32 && wishes.len() <= 4100 / 6 + piece.len());
        out.clear();
        while session.update(&desktop, &mut out) {}
        assert!(out.len() <= limits::UPDATE_BYTES);
        change(&mut desktop, length);
    }
});
