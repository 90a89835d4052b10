// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A window on a real compositor: weston without a screen, whose renderer reads what the guest drew.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use virtio_gpu_s3::{Activation, ResetKind};
use virtio_gpu_s3_testing::cross_domain::{BLOB, send};

use super::OK;
use super::compositor::new_path;
use super::proxy::{Proxy, Said};

/// Longer than a busy host takes.
const LIMIT: Duration = Duration::from_secs(20);

struct Weston {
    child: Child,
    directory: PathBuf,
}

impl Weston {
    /// `None` where it is not installed.
    fn start() -> Option<Self> {
        let directory = new_path("weston");
        fs::create_dir(&directory).unwrap();
        let started = Command::new("weston")
            .args(["--backend=headless-backend.so", "--use-pixman"])
            .args(["--socket=wayland-test", "--no-config", "--idle-time=0"])
            .env("XDG_RUNTIME_DIR", &directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::remove_dir(&directory).unwrap();
                return None;
            }
            started => started.unwrap(),
        };
        let weston = Self { child, directory };
        let start = Instant::now();
        while !weston.socket().exists() {
            assert!(start.elapsed() < LIMIT, "weston does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        Some(weston)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("wayland-test")
    }
}

impl Drop for Weston {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// A message: object, number, and words.
fn message(object: u32, opcode: u32, words: &[u32]) -> Vec<u8> {
    let size = u32::try_from(8 + words.len() * 4).unwrap();
    let head = [object, size << 16 | opcode];
    let all = head.iter().chain(words);
    all.flat_map(|word| word.to_le_bytes()).collect()
}

/// `wl_registry.bind`
fn bind(name: u32, interface: &str, version: u32, id: u32) -> Vec<u8> {
    let mut text = interface.as_bytes().to_vec();
    text.push(0);
    let length = u32::try_from(text.len()).unwrap();
    text.resize(text.len().next_multiple_of(4), 0);
    let (words, _) = text.as_chunks::<4>();
    let words = words.iter().map(|word| u32::from_le_bytes(*word));
    let all = [name, length].into_iter().chain(words).chain([version, id]);
    message(REGISTRY, 0, &all.collect::<Vec<_>>())
}

const DISPLAY: u32 = 1;
const REGISTRY: u32 = 2;
const CALLBACK: u32 = 3;
const COMPOSITOR: u32 = 4;
const SHM: u32 = 5;
const WM_BASE: u32 = 6;
const POOL: u32 = 7;
const BUFFER: u32 = 8;
const SURFACE: u32 = 9;
const XDG_SURFACE: u32 = 10;
const TOPLEVEL: u32 = 11;
const WIDTH: u32 = 64;
const HEIGHT: u32 = 48;
/// wl_shm's number of XRGB8888.
const XRGB8888: u32 = 1;

/// The guest's client of weston.
struct Client {
    proxy: Proxy,
    /// What was said, and not looked at.
    heard: Vec<u8>,
}

/// Something that was said: object, number, and what follows.
type Event = (u32, u32, Vec<u8>);

impl Client {
    fn new(path: &Path) -> Self {
        let proxy = Proxy::connected(path);
        let heard = Vec::new();
        Self { proxy, heard }
    }

    fn say(&mut self, messages: &[Vec<u8>]) {
        assert_eq!(self.proxy.run(&send(&messages.concat(), &[])), OK);
    }

    fn event(&mut self) -> Event {
        loop {
            if let Some((head, _)) = self.heard.split_first_chunk::<8>() {
                let [object, word] =
                    [0, 4].map(|at| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()));
                let size = (word >> 16) as usize;
                if self.heard.len() >= size {
                    let all: Vec<_> = self.heard.drain(..size).collect();
                    assert_ne!(
                        (object, word & 0xffff),
                        (DISPLAY, 0),
                        "weston's error: {}",
                        all[16..].escape_ascii()
                    );
                    return (object, word & 0xffff, all[8..].to_vec());
                }
            }
            let Said::Message(bytes, _) = self.proxy.hear() else {
                panic!("no message");
            };
            assert!(!bytes.is_empty(), "weston hung up");
            self.heard.extend(bytes);
        }
    }

    /// What comes of `object` by that number; `seen` hears of all before.
    fn expect(&mut self, object: u32, opcode: u32, mut seen: impl FnMut(&Event)) -> Vec<u8> {
        loop {
            let event = self.event();
            if (event.0, event.1) == (object, opcode) {
                return event.2;
            }
            seen(&event);
        }
    }

    /// Binds what the window needs.
    fn bind_all(&mut self) {
        self.say(&[
            message(DISPLAY, 1, &[REGISTRY]),
            message(DISPLAY, 0, &[CALLBACK]),
        ]);
        let mut globals = Vec::new();
        self.expect(CALLBACK, 0, |(object, _, data)| {
            if *object == REGISTRY {
                let name = u32::from_le_bytes(data[..4].try_into().unwrap());
                let text = data[8..].split(|byte| *byte == 0).next().unwrap();
                globals.push((name, String::from_utf8(text.to_vec()).unwrap()));
            }
        });
        for (interface, version, id) in [
            ("wl_compositor", 4, COMPOSITOR),
            ("wl_shm", 1, SHM),
            ("xdg_wm_base", 1, WM_BASE),
        ] {
            let (name, _) = globals.iter().find(|(_, of)| of == interface).unwrap();
            self.say(&[bind(*name, interface, version, id)]);
        }
    }

    /// A window whose buffer is memory that the guest maps, as blob 30.
    fn make_window(&mut self) {
        let (blob_id, stride, size) = self.proxy.image(WIDTH, HEIGHT, *b"XR24");
        self.proxy.make_blob(30, blob_id, size);
        let size = u32::try_from(size).unwrap();
        let pool = send(&message(SHM, 0, &[POOL, size]), &[(30, BLOB)]);
        assert_eq!(self.proxy.run(&pool), OK);
        self.say(&[
            message(POOL, 0, &[BUFFER, 0, WIDTH, HEIGHT, stride, XRGB8888]),
            message(COMPOSITOR, 0, &[SURFACE]),
            message(WM_BASE, 2, &[XDG_SURFACE, SURFACE]),
            message(XDG_SURFACE, 1, &[TOPLEVEL]),
            message(SURFACE, 6, &[]),
        ]);
        let serial = self.expect(XDG_SURFACE, 0, |_| {});
        let serial = u32::from_le_bytes(serial.try_into().unwrap());
        self.say(&[message(XDG_SURFACE, 4, &[serial])]);
    }

    /// Draws, and waits until weston has shown it. Wayland's new numbers follow each other.
    fn show(&mut self, callback: u32, value: u8) {
        let pixels = vec![value; (WIDTH * HEIGHT * 4) as usize];
        let drawn = self.proxy.driver.gpu().write_mapped(30, 0, &pixels);
        drawn.unwrap();
        self.say(&[
            message(SURFACE, 1, &[BUFFER, 0, 0]),
            message(SURFACE, 2, &[0, 0, WIDTH, HEIGHT]),
            message(SURFACE, 3, &[callback]),
            message(SURFACE, 6, &[]),
        ]);
        self.expect(callback, 0, |_| {});
    }
}

#[test]
fn a_window_on_weston_goes_on_after_the_guests_sleep() {
    let Some(weston) = Weston::start() else {
        eprintln!("skipped: weston is not installed");
        return;
    };
    let mut client = Client::new(&weston.socket());
    client.bind_all();
    client.make_window();
    client.show(12, 1);
    for (callback, how) in [(13, Activation::Reinstated), (14, Activation::Retained)] {
        let before = client.proxy.read_blob(30, 4);
        client.proxy.poll().unwrap_err();
        client.proxy.settle();
        client.proxy.driver.gpu().reset(ResetKind::Frozen);
        let features = client.proxy.driver.gpu().device_features();
        client.proxy.driver.gpu().activate(features, how);
        assert_eq!(client.proxy.read_blob(30, 4), before);
        client.show(callback, 2);
    }
}
