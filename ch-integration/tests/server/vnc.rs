// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! VNC viewers of a device that a guest draws on.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use ch_integration::GpuDevice;
use tempfile::TempDir;
use virtio_gpu_s3::Rect;
use virtio_gpu_s3::protocol::{Format, ResponseType};
use virtio_gpu_s3_testing::{GuestBuffer, request};
use virtio_gpu_vnc::{VncAddress, limits, serve};
use virtio_gpu_worker::{Answered, Controlled, Event, Job, Status};
use vm_memory::{Bytes, GuestAddress};

use crate::vmm::{RAM_BASE, Server, Vmm, wait_until};

const BACKING: u64 = RAM_BASE + 0x4_0000;
const BACKING_BYTES: u32 = 0x1_0000;
/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// A device that counts what is asked of its worker.
#[derive(Debug)]
struct Counted {
    device: Arc<GpuDevice>,
    jobs: AtomicUsize,
}

impl Controlled for Counted {
    fn status(&self) -> Answered<Status> {
        self.device.status()
    }

    fn subscribe(&self) -> Receiver<Event> {
        self.device.subscribe()
    }

    fn run(&self, job: Job) {
        self.jobs.fetch_add(1, Ordering::SeqCst);
        self.device.run(job);
    }
}

struct Rig {
    device: Arc<Counted>,
    _server: Server,
    vmm: Vmm,
    size: (u32, u32),
    _directory: TempDir,
    path: PathBuf,
}

impl Rig {
    /// A guest with a screen of this size, on a server with room for viewers.
    fn start(width: u32, height: u32) -> Self {
        let server = Server::start();
        let mut vmm = Vmm::connect(&server.socket());
        vmm.start_driver();
        let bytes = width * height * 4;
        let piece = |at: u32| (BACKING, BACKING_BYTES.min(bytes - at));
        let pieces: Vec<_> = (0..bytes)
            .step_by(BACKING_BYTES as usize)
            .map(piece)
            .collect();
        let format = Format::B8G8R8X8_UNORM.0;
        for request in [
            request::resource_create_2d(1, format, width, height),
            request::resource_attach_backing(1, GuestBuffer::of(&pieces).entries()),
            request::set_scanout(0, 1, Rect::sized(width, height)),
        ] {
            must(&mut vmm, &request);
        }
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("vnc");
        let (listener, _) = VncAddress::Unix(path.clone()).listen().unwrap();
        let device = Arc::new(Counted {
            device: server.device.clone(),
            jobs: AtomicUsize::new(0),
        });
        serve(listener, device.clone()).unwrap();
        Self {
            device,
            _server: server,
            vmm,
            size: (width, height),
            _directory: directory,
            path,
        }
    }

    /// Has the guest draw the whole screen from a piece of memory that is like this all over.
    fn draw(&mut self, pixels: impl Fn(u32) -> u32) {
        let bytes: Vec<u8> = (0..BACKING_BYTES / 4)
            .flat_map(|at| pixels(at).to_le_bytes())
            .collect();
        let memory = &self.vmm.memory;
        memory.write_slice(&bytes, GuestAddress(BACKING)).unwrap();
        let whole = Rect::sized(self.size.0, self.size.1);
        must(&mut self.vmm, &request::transfer_to_host_2d(1, whole, 0));
        must(&mut self.vmm, &request::resource_flush(1, whole));
    }

    fn jobs(&self) -> usize {
        self.device.jobs.load(Ordering::SeqCst)
    }
}

fn must(vmm: &mut Vmm, request: &[u8]) {
    let answer = vmm.command(0, request, 24);
    assert_eq!(answer[..4], ResponseType::OK_NODATA.0.to_le_bytes());
}

/// A viewer that takes raw pixels.
struct Viewer {
    stream: UnixStream,
    size: (u16, u16),
}

impl Viewer {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut viewer = Self {
            stream,
            size: (0, 0),
        };
        assert_eq!(viewer.take(12), b"RFB 003.008\n");
        viewer.say(b"RFB 003.008\n");
        assert_eq!(viewer.take(2), [1, 1]);
        viewer.say(&[1]);
        assert_eq!(viewer.take(4), [0; 4]);
        viewer.say(&[1]);
        let init = viewer.take(24);
        viewer.size = (be(&init[0..2]), be(&init[2..4]));
        viewer.take(usize::from(be(&init[22..24])));
        viewer
    }

    fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn ask(&mut self, incremental: bool) {
        let (width, height) = (self.size.0.to_be_bytes(), self.size.1.to_be_bytes());
        let message = [&[3, u8::from(incremental), 0, 0, 0, 0], &width[..], &height];
        self.say(&message.concat());
    }

    /// An update's pixels, of raw rectangles.
    fn update(&mut self) -> Vec<u32> {
        let head = self.take(4);
        let mut pixels = Vec::new();
        for _ in 0..be(&head[2..4]) {
            let rect = self.take(12);
            let area = usize::from(be(&rect[4..6])) * usize::from(be(&rect[6..8]));
            assert_eq!(rect[8..], [0; 4]);
            let bytes = self.take(area * 4);
            let (bytes, _) = bytes.as_chunks();
            pixels.extend(bytes.iter().map(|it| u32::from_le_bytes(*it)));
        }
        pixels
    }

    /// Whether the server has hung up.
    fn is_refused(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn be(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

#[test]
fn a_viewer_sees_what_the_guest_flushes() {
    let mut rig = Rig::start(200, 100);
    rig.draw(|_| 0x00ff_8800);
    let mut viewer = Viewer::connect(&rig.path);
    assert_eq!(viewer.size, (200, 100));
    viewer.ask(false);
    assert!(viewer.update() == vec![0x00ff_8800; 200 * 100]);
    for colour in [0x11, 0x2200, 0x33_0000] {
        viewer.ask(true);
        rig.draw(|_| colour);
        let pixels = viewer.update();
        assert!(pixels == vec![colour; 200 * 100], "{colour:x}");
    }
}

#[test]
fn no_viewer_costs_nothing_and_one_that_sees_no_change_little() {
    let mut rig = Rig::start(64, 64);
    rig.draw(|at| at);
    assert_eq!(rig.jobs(), 0);
    let mut viewer = Viewer::connect(&rig.path);
    viewer.ask(false);
    viewer.update();
    viewer.ask(true);
    // Looks are rare where nothing moved for a second.
    thread::sleep(Duration::from_millis(1500));
    let before = rig.jobs();
    thread::sleep(Duration::from_secs(1));
    let looks = rig.jobs() - before;
    assert!((1..=11).contains(&looks), "{looks} looks in a second");
    // A viewer that has its picture and asks for no other is not looked for either, nor is one that left.
    rig.draw(|at| at + 1);
    viewer.update();
    thread::sleep(Duration::from_millis(200));
    let before = rig.jobs();
    rig.draw(|at| at + 2);
    viewer.stream.shutdown(Shutdown::Both).unwrap();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(rig.jobs(), before);
}

/// Twelve viewers that ask and never read: a picture of 8 MiB is more than their sockets hold.
#[test]
fn viewers_that_do_not_read_hold_up_neither_the_guest_nor_one_that_does() {
    let mut rig = Rig::start(1920, 1080);
    let noise = |seed: u32| move |at: u32| (at ^ seed).wrapping_mul(0x9e37_79b1) >> 8;
    rig.draw(noise(0));
    let mut stuck: Vec<_> = (0..12).map(|_| Viewer::connect(&rig.path)).collect();
    for viewer in &mut stuck {
        viewer.ask(false);
        viewer.ask(true);
    }
    let mut good = Viewer::connect(&rig.path);
    good.ask(false);
    let start = Instant::now();
    for seed in 1..6 {
        rig.draw(noise(seed));
        let mut updates = 0;
        let mut pixels = 0;
        while pixels < 1920 * 1080 && updates < 20 {
            pixels += good.update().len();
            good.ask(true);
            updates += 1;
        }
    }
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    for mut viewer in stuck {
        // Each gets what it asked for when it reads at last.
        assert!(!viewer.update().is_empty());
    }
}

#[test]
fn one_viewer_too_many_is_refused_until_another_leaves() {
    let rig = Rig::start(64, 64);
    let mut viewers: Vec<_> = (0..limits::MAX_VIEWERS)
        .map(|_| Viewer::connect(&rig.path))
        .collect();
    let stream = UnixStream::connect(&rig.path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut more = Viewer {
        stream,
        size: (0, 0),
    };
    assert!(more.is_refused());
    viewers.pop();
    wait_until("room for another", || {
        let mut stream = UnixStream::connect(&rig.path).unwrap();
        let mut version = [0; 12];
        stream.read_exact(&mut version).is_ok()
    });
}

#[test]
fn what_is_no_viewer_is_hung_up_on_and_the_next_one_served() {
    let rig = Rig::start(64, 64);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"RFB 003.008\n\x02"] {
        let stream = UnixStream::connect(&rig.path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut viewer = Viewer {
            stream,
            size: (0, 0),
        };
        viewer.say(bytes);
        let mut rest = Vec::new();
        // It ends, however it does.
        drop(viewer.stream.read_to_end(&mut rest));
        assert!(rest.len() <= 14, "{rest:?}");
    }
    let mut viewer = Viewer::connect(&rig.path);
    viewer.say(&[9]);
    assert!(viewer.is_refused());
    let mut viewer = Viewer::connect(&rig.path);
    viewer.ask(false);
    assert_eq!(viewer.update().len(), 64 * 64);
}

#[test]
fn a_viewer_that_resizes_has_the_guest_told() {
    let rig = Rig::start(64, 64);
    let mut viewer = Viewer::connect(&rig.path);
    let list = [&[2, 0, 0, 1][..], &(-308_i32).to_be_bytes()].concat();
    viewer.say(&list);
    let mut wish = vec![251, 0, 4, 0, 3, 0, 1, 0];
    wish.extend([0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0]);
    viewer.say(&wish);
    let device = &rig.device;
    wait_until("another preferred size", || {
        let info = device.status().unwrap();
        info.scanouts.len() == 1 && rig.jobs() > 1
    });
    let mut vmm = rig.vmm;
    wait_until("the guest to see 1024x768", || {
        let answer = vmm.command(0, &request::get_display_info(), 408);
        let size =
            [&answer[32..36], &answer[36..40]].map(|it| u32::from_le_bytes(it.try_into().unwrap()));
        size == [1024, 768]
    });
}

/// The worker's queue has room for 256 commands, and who finds none ends it.
#[test]
fn a_viewer_that_lists_outputs_without_end_asks_the_device_for_those_that_are_there() {
    let rig = Rig::start(64, 64);
    let mut viewer = Viewer::connect(&rig.path);
    let mut wish = vec![251, 0, 4, 0, 3, 0, 255, 0];
    for id in 0..255_u32 {
        wish.extend((id % 2 * 7).to_be_bytes());
        wish.extend([0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0]);
    }
    let before = rig.jobs();
    viewer.say(&wish);
    wait_until("the wish to be granted", || rig.jobs() > before);
    thread::sleep(Duration::from_millis(300));
    // One output, and looks at what comes of it.
    let jobs = rig.jobs() - before;
    assert!(jobs < 40, "{jobs} jobs");
}
