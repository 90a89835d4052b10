// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whole conversations, with a viewer that decodes what it gets.

mod client;

use client::Client;
use proptest::collection::vec;
use proptest::prelude::*;
use virtio_gpu_vnc::limits::UPDATE_BYTES;
use virtio_gpu_vnc::{
    Area, Cursor, Desktop, Key, Layout, Patch, Pointer, ProtocolError, Screen, Session, Wish,
};

const ZRLE: i32 = 16;
const CURSOR: i32 = -239;
const CURSOR_WITH_ALPHA: i32 = -314;
const DESKTOP_SIZE: i32 = -223;
const EXTENDED_DESKTOP_SIZE: i32 = -308;
const EXTENDED_KEY: i32 = -258;

fn desktop(width: u32, height: u32) -> Desktop {
    let mut desktop = Desktop::default();
    desktop.arrange(Layout::new([(0, (width, height))]));
    desktop
}

/// Fills the whole of it by the pixels' numbers.
fn fill(desktop: &mut Desktop, colour: impl Fn(u32) -> u32) -> Vec<u32> {
    let (width, height) = desktop.layout().size();
    let pixels: Vec<u32> = (0..width * height).map(colour).collect();
    desktop.patch(&Patch {
        x: 0,
        y: 0,
        width,
        pixels: pixels.clone(),
    });
    pixels
}

fn noise(seed: u32, at: u32) -> u32 {
    (at ^ seed)
        .wrapping_mul(0x9e37_79b1)
        .rotate_left(13)
        .wrapping_mul(0x85eb_ca77)
        & 0x00ff_ffff
}

#[test]
fn a_viewer_sees_every_pixel_in_both_encodings() {
    for encodings in [vec![], vec![ZRLE], vec![0, ZRLE], vec![7, ZRLE, 0, -256]] {
        let mut desktop = desktop(200, 150);
        let mut client = Client::new(&desktop);
        client.list(&encodings);
        for seed in 0..3 {
            let pixels = fill(&mut desktop, |at| noise(seed, at));
            client.look_until_quiet(&desktop);
            assert!(client.pixels == pixels, "{encodings:?}");
        }
    }
}

#[test]
fn every_form_of_a_tile_comes_out_as_it_went_in() {
    let mut desktop = desktop(150, 70);
    let mut client = Client::new(&desktop);
    client.list(&[ZRLE]);
    for colours in [1, 2, 3, 4, 5, 16, 17, 100, 127, 128, 10_000] {
        for run in [1, 2, 5, 255, 256, 600] {
            let colour = |at: u32| noise(9, noise(4, at / run) % colours);
            let pixels = fill(&mut desktop, colour);
            client.look_until_quiet(&desktop);
            assert!(client.pixels == pixels, "{colours} in runs of {run}");
        }
    }
    let forms: Vec<u8> = client.forms.into_iter().collect();
    assert_eq!(forms, [0, 1, 2, 3, 4, 128, 129]);
}

#[test]
fn only_what_changed_goes_and_nothing_goes_where_nothing_did() {
    let mut desktop = desktop(1920, 1080);
    let mut client = Client::new(&desktop);
    client.list(&[ZRLE]);
    client.look_until_quiet(&desktop);
    assert_eq!(client.look_until_quiet(&desktop), 0);
    desktop.patch(&Patch {
        x: 1000,
        y: 500,
        width: 8,
        pixels: vec![7; 8 * 16],
    });
    client.ask(true);
    assert_eq!(client.look(&desktop), Some(1));
    assert!(client.bytes < 200, "{} bytes", client.bytes);
    assert_eq!(client.pixels[510 * 1920 + 1004], 7);
    // A viewer that asks for everything gets it, changed or not.
    client.ask(false);
    assert!(client.look(&desktop).unwrap() > 1);
    assert_eq!(client.look(&desktop), None, "nobody asked");
}

#[test]
fn an_update_is_bounded_and_the_rest_comes_with_the_next() {
    let mut desktop = desktop(3840, 2160);
    let pixels = fill(&mut desktop, |at| noise(1, at));
    let mut client = Client::new(&desktop);
    client.ask(false);
    let mut updates = 0;
    while client.look(&desktop).is_some() {
        updates += 1;
        assert!(client.bytes <= UPDATE_BYTES + (1 << 20) + 64);
        client.ask(true);
    }
    assert!(updates > 4);
    assert!(client.pixels == pixels);
}

#[test]
fn a_viewer_follows_another_size_or_keeps_its_own() {
    for (encoding, size) in [
        (DESKTOP_SIZE, (300, 90)),
        (EXTENDED_DESKTOP_SIZE, (300, 90)),
        (ZRLE, (100, 100)),
    ] {
        let mut desktop = desktop(100, 100);
        let mut client = Client::new(&desktop);
        client.list(&[encoding]);
        client.look_until_quiet(&desktop);
        desktop.arrange(Layout::new([(0, (300, 90))]));
        fill(&mut desktop, |at| at);
        client.look_until_quiet(&desktop);
        assert_eq!(client.size, size, "{encoding}");
        assert_eq!(client.pixels[50], 50);
        assert_eq!(client.pixels[usize::from(size.0)], 300);
    }
}

#[test]
fn a_viewer_that_resizes_is_told_that_the_guest_was() {
    let mut desktop = Desktop::default();
    desktop.arrange(Layout::new([(0, (100, 80)), (1, (50, 60))]));
    let mut client = Client::new(&desktop);
    client.list(&[EXTENDED_DESKTOP_SIZE]);
    client.look_until_quiet(&desktop);
    let sizes = vec![(100, 80), (50, 60)];
    assert_eq!(client.layouts, [((0, 0), sizes.clone())]);
    let mut message = vec![251, 0, 4, 0, 3, 0, 1, 0];
    message.extend([0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0]);
    let (_, wishes) = client.say(&message).unwrap();
    let area = Area {
        width: 1024,
        height: 768,
        ..Area::default()
    };
    assert_eq!(wishes, [Wish::Layout(vec![Screen { id: 1, area }])]);
    client.look_until_quiet(&desktop);
    assert_eq!(client.layouts[1], ((1, 4), sizes));
}

fn cursor() -> Cursor {
    Cursor {
        width: 10,
        height: 3,
        hot: (2, 1),
        pixels: vec![0xff00_ff00; 30],
    }
}

#[test]
fn the_pointers_shape_goes_in_the_way_that_the_viewer_knows() {
    for encoding in [CURSOR, CURSOR_WITH_ALPHA] {
        let mut desktop = desktop(100, 100);
        desktop.set_cursor(Some(cursor()));
        let mut client = Client::new(&desktop);
        client.list(&[encoding]);
        client.look_until_quiet(&desktop);
        assert_eq!(client.pointers, [((2, 1), (10, 3), encoding)]);
        assert!(client.pixels.iter().all(|pixel| *pixel == 0), "not drawn");
        // It moves by itself there.
        desktop.move_cursor((50, 50));
        assert_eq!(client.look_until_quiet(&desktop), 0);
        desktop.set_cursor(None);
        client.look_until_quiet(&desktop);
        assert_eq!(client.pointers[1], ((0, 0), (0, 0), encoding));
    }
}

#[test]
fn a_viewer_that_knows_no_pointer_has_it_in_its_picture_where_it_is_and_nowhere_else() {
    let mut desktop = desktop(300, 200);
    desktop.set_cursor(Some(cursor()));
    let mut client = Client::new(&desktop);
    client.list(&[ZRLE]);
    for at in [(5, 5), (130, 64), (299, 199), (128, 128), (-20, -20)] {
        desktop.move_cursor(at);
        client.look_until_quiet(&desktop);
        let lit: Vec<usize> = (0..client.pixels.len())
            .filter(|at| client.pixels[*at] == 0xff00)
            .collect();
        let expected = match at {
            (299, 199) => 3 * 2,
            (-20, -20) => 0,
            _ => 30,
        };
        assert_eq!(lit.len(), expected, "{at:?}");
        if let Some(first) = lit.first() {
            let corner = i32::try_from(first % 300).unwrap() + 2;
            assert_eq!(corner, at.0);
        }
    }
}

#[test]
fn keys_and_the_pointer_come_out_in_order_however_they_are_cut() {
    let desktop = desktop(100, 100);
    let bytes = [
        &[4, 1, 0, 0, 0, 0, 0, 97][..],
        &[6, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3],
        &[255, 0, 0, 0, 0, 0, 0, 97, 0, 0, 0, 30],
        &[5, 1, 0, 10, 0, 20],
    ]
    .concat();
    let key = |down, scan_code| {
        Wish::Key(Key {
            down,
            symbol: 97,
            scan_code,
        })
    };
    let pointer = Wish::Pointer(Pointer {
        x: 10,
        y: 20,
        buttons: 1,
    });
    for piece in 1..bytes.len() {
        let mut client = Client::new(&desktop);
        let mut wishes = Vec::new();
        for part in bytes.chunks(piece) {
            wishes.extend(client.say(part).unwrap().1);
        }
        assert_eq!(
            wishes,
            [key(true, None), key(false, Some(30)), pointer.clone()]
        );
    }
}

#[test]
fn a_viewer_is_told_once_that_it_may_send_scan_codes() {
    let desktop = desktop(100, 100);
    let mut client = Client::new(&desktop);
    client.list(&[EXTENDED_KEY, ZRLE]);
    client.ask(true);
    let rects = client.look(&desktop).unwrap();
    assert!(client.may_send_scan_codes);
    client.ask(false);
    assert_eq!(client.look(&desktop), Some(rects - 1));
}

#[test]
fn older_viewers_begin_as_their_versions_do_and_what_is_no_viewer_does_not() {
    let begin = |version: &[u8], choice: &[u8]| {
        let (mut out, mut wishes) = (Vec::new(), Vec::new());
        let mut session = Session::new(&mut out);
        out.clear();
        session.receive(version, &mut out, &mut wishes)?;
        session.receive(choice, &mut out, &mut wishes)?;
        Ok::<_, ProtocolError>(out)
    };
    assert_eq!(begin(b"RFB 003.003\n", &[]).unwrap(), [0, 0, 0, 1]);
    assert_eq!(begin(b"RFB 003.007\n", &[1]).unwrap(), [1, 1]);
    assert_eq!(begin(b"RFB 003.889\n", &[1]).unwrap(), [1, 1, 0, 0, 0, 0]);
    for version in [b"GET / HTTP/1", b"RFB 003.00a\n", b"RFB 003-008\n"] {
        assert_eq!(begin(version, &[]), Err(ProtocolError::NotRfb));
    }
    assert_eq!(
        begin(b"RFB 003.008\n", &[2]),
        Err(ProtocolError::SecurityType { chosen: 2 })
    );
}

#[test]
fn before_the_first_picture_there_is_no_size_to_tell() {
    let mut out = Vec::new();
    let mut session = Session::new(&mut out);
    let begin = b"RFB 003.008\n\x01\x01";
    session.receive(begin, &mut out, &mut Vec::new()).unwrap();
    out.clear();
    assert!(session.is_waiting());
    assert!(!session.update(&Desktop::default(), &mut out));
    assert!(out.is_empty());
    assert!(session.update(&desktop(10, 10), &mut out));
}

/// A few colours in runs, as desktops have them, or noise.
fn picture() -> impl Strategy<Value = (u32, Vec<u32>)> {
    let run = (0..200_u32, 1..90_usize);
    let runs = (1..140_u32, vec(run, 1..120), 1..90_u32);
    runs.prop_map(|(colours, runs, width)| {
        let of = |(colour, length): (u32, usize)| vec![noise(3, colour % colours); length];
        let mut pixels: Vec<u32> = runs.into_iter().flat_map(of).collect();
        let wide = width as usize;
        pixels.resize(pixels.len().div_ceil(wide) * wide, 0);
        (width, pixels)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_picture_the_viewer_sees_it(pictures in vec(picture(), 1..4)) {
        let mut desktop = desktop(100, 130);
        let mut client = Client::new(&desktop);
        client.list(&[ZRLE]);
        let mut expected = vec![0; 100 * 130];
        for (width, pixels) in pictures {
            let pixels = &pixels[..pixels.len().min(width as usize * 130)];
            for (row, y) in pixels.chunks(width as usize).zip(0..) {
                expected[y * 100..][..row.len()].copy_from_slice(row);
            }
            desktop.patch(&Patch { x: 0, y: 0, width, pixels: pixels.to_vec() });
            client.look_until_quiet(&desktop);
            prop_assert!(client.pixels == expected);
        }
    }

    #[test]
    fn no_bytes_panic_or_grow_anything(bytes in vec(any::<u8>(), 0..400), kinds in vec(0..9_usize, 1..20)) {
        const KINDS: [u8; 9] = [0, 2, 3, 4, 5, 6, 251, 255, 9];
        let desktop = desktop(70, 70);
        let mut client = Client::new(&desktop);
        for (kind, part) in kinds.iter().zip(bytes.chunks(20)) {
            let message = [&[KINDS[*kind]], part].concat();
            let Ok((out, wishes)) = client.say(&message) else { break };
            prop_assert!(out.is_empty() && wishes.len() <= message.len());
            let mut out = Vec::new();
            client.session.update(&desktop, &mut out);
            prop_assert!(out.len() < 100_000);
        }
    }
}
