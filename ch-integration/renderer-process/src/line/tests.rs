// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Both ends, and what a renderer that a guest took over may do to the device's.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::scratch::Scratch;

/// The same memory, as each process maps it.
fn lines() -> (Line, Line) {
    let (ours, file) = Scratch::new(0).unwrap();
    let theirs = Scratch::map(file, ours.length()).unwrap();
    (ours.line(), theirs.line())
}

fn take(reader: &mut Reader) -> Result<Option<Vec<u8>>, MessageError> {
    let mut bytes = vec![0; MAX_HEAD];
    let length = reader.take(&mut bytes)?;
    Ok(length.map(|length| bytes[..length].to_vec()))
}

const fn on_ring(id: u64) -> Fence {
    let timeline = Timeline::Ring {
        ctx_id: u32::MAX,
        ring_idx: 63,
    };
    Fence { timeline, id }
}

const fn on_global(id: u64) -> Fence {
    let timeline = Timeline::Global;
    Fence { timeline, id }
}

#[test]
fn messages_are_taken_once_and_in_order_and_who_sleeps_is_to_be_waked_once() {
    let (device, renderer) = lines();
    let (mut writer, mut replies) = device.device();
    let (_, mut reader) = renderer.renderer();
    assert_eq!(take(&mut reader), Ok(None));
    let messages = [&[1_u8, 2, 3][..], &[4; MAX_HEAD], &[]];
    // Round the ring, more than once.
    for _ in 0..SLOTS {
        for message in messages {
            assert_eq!(writer.put(message), Ok(false));
        }
        assert!(reader.has_news() && !reader.sleep());
        for message in messages {
            assert_eq!(take(&mut reader), Ok(Some(message.to_vec())));
        }
        assert_eq!(take(&mut reader), Ok(None));
    }
    let longer = writer.put(&[0; MAX_HEAD + 1]);
    assert_eq!(longer, Err(MessageError::Encode));
    assert!(reader.sleep());
    assert_eq!(writer.put(&[1]), Ok(true));
    assert_eq!(writer.put(&[2]), Ok(false));
    reader.wake();
    // The other ring is another one.
    assert_eq!(take(&mut replies), Ok(None));
}

#[test]
fn no_message_is_lost_whenever_the_reader_falls_asleep() {
    let (device, renderer) = lines();
    let (socket, sleeper) = channel::<()>();
    let taken = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&taken);
    const COUNT: u32 = 20_000;
    let reader = thread::spawn(move || {
        let (_, mut reader) = renderer.renderer();
        for expected in 1..=COUNT {
            let looks = expected % 7;
            let found = (0..looks).any(|_| reader.has_news());
            while !found && reader.sleep() {
                sleeper.recv_timeout(Duration::from_secs(60)).unwrap();
                reader.wake();
            }
            let bytes = take(&mut reader).unwrap().unwrap();
            assert_eq!(u32::from_le_bytes(bytes.try_into().unwrap()), expected);
            seen.store(expected, Ordering::Release);
        }
    });
    let (mut writer, _) = device.device();
    for number in 1..=COUNT {
        if writer.put(&number.to_le_bytes()).unwrap() {
            socket.send(()).unwrap();
        }
        // Sometimes one at a time, sometimes as many as there is room for.
        let most = if number % 1000 < 500 { 0 } else { SLOTS - 1 };
        while number - taken.load(Ordering::Acquire) > most {
            assert!(!reader.is_finished());
            thread::yield_now();
        }
    }
    reader.join().unwrap();
}

#[test]
fn fences_come_in_order_and_as_they_were() {
    let (device, renderer) = lines();
    let mut writer = FenceWriter::new(renderer);
    let mut reader = FenceReader::new(device);
    let all = [on_ring(u64::MAX), on_global(0), on_global(u64::MAX)];
    // Round the ring, more than once.
    for _ in 0..FENCE_ROOM {
        assert_eq!(writer.put(&all), []);
        let mut taken = Vec::new();
        reader.take(&mut taken).unwrap();
        assert_eq!(taken, all);
    }
}

#[test]
fn who_wants_news_is_told_once_until_it_asks_again() {
    let (device, renderer) = lines();
    assert!(!renderer.has_to_tell(), "nobody asked");
    device.want_news(true);
    assert!(renderer.has_to_tell() && !renderer.has_to_tell());
    device.want_news(true);
    device.want_news(false);
    assert!(!renderer.has_to_tell());
}

#[test]
fn fences_that_find_no_room_are_refused_and_come_again_when_there_is() {
    let (device, renderer) = lines();
    let mut writer = FenceWriter::new(renderer);
    let mut reader = FenceReader::new(device);
    let full: Vec<_> = (0..FENCE_ROOM.into()).map(on_global).collect();
    assert_eq!(writer.put(&full), []);
    let more = [on_global(999), on_global(1000)];
    assert_eq!(writer.put(&more), more);
    let mut taken = Vec::new();
    reader.take(&mut taken).unwrap();
    assert_eq!(taken, full);
    assert_eq!(writer.put(&more), []);
}

#[test]
fn a_fence_is_either_seen_by_the_last_look_or_told() {
    let (device, renderer) = lines();
    let told = Arc::new(AtomicBool::new(false));
    let mut writer = FenceWriter::new(renderer);
    let mut reader = FenceReader::new(device.clone());
    for id in 0..2000 {
        device.want_news(false);
        told.store(false, Ordering::SeqCst);
        let telling = Arc::clone(&told);
        let signal = thread::spawn(move || {
            assert_eq!(writer.put(&[on_global(id)]), []);
            telling.store(writer.has_to_tell(), Ordering::SeqCst);
            writer
        });
        // Somewhere in the middle of it.
        for _ in 0..id % 50 {
            thread::yield_now();
        }
        device.want_news(true);
        let mut taken = Vec::new();
        reader.take(&mut taken).unwrap();
        writer = signal.join().unwrap();
        assert!(told.load(Ordering::SeqCst) || taken == [on_global(id)]);
        reader.take(&mut taken).unwrap();
    }
}

#[test]
fn a_length_that_no_message_has_is_refused_before_a_byte_is_copied() {
    for length in [u32::try_from(MAX_HEAD).unwrap() + 1, 1 << 31, u32::MAX] {
        let (device, renderer) = lines();
        let slot = renderer.word(REPLIES.slots);
        slot.store(length, Ordering::Relaxed);
        renderer.word(REPLIES.put).store(1, Ordering::Release);
        let mut target = [7; 2 * MAX_HEAD];
        let (_, mut replies) = device.device();
        let refused = replies.take(&mut target);
        assert_eq!(refused, Err(MessageError::Decode));
        assert_eq!(target, [7; 2 * MAX_HEAD]);
    }
}

#[test]
fn more_messages_than_there_is_room_for_are_refused() {
    for put in [SLOTS + 1, 1 << 31, u32::MAX] {
        let (device, renderer) = lines();
        renderer.word(REPLIES.put).store(put, Ordering::Release);
        let (_, mut replies) = device.device();
        assert_eq!(take(&mut replies), Err(MessageError::Decode));
    }
}

#[test]
fn fences_that_cannot_be_are_refused_however_many_they_are_said_to_be() {
    for put in [FENCE_ROOM + 1, 1 << 31, u32::MAX] {
        let (device, renderer) = lines();
        renderer.word(PUT_FENCES).store(put, Ordering::Relaxed);
        let mut taken = Vec::new();
        let refused = FenceReader::new(device).take(&mut taken);
        assert_eq!((refused, taken.len()), (Err(MessageError::Decode), 0));
    }
    for first in [GLOBAL | 1, 1 << 40, u64::MAX] {
        let (device, renderer) = lines();
        let word = renderer.fence_word(0, 0).unwrap();
        word.store(first, Ordering::Relaxed);
        renderer.word(PUT_FENCES).store(1, Ordering::Relaxed);
        let refused = FenceReader::new(device).take(&mut Vec::new());
        assert_eq!(refused, Err(MessageError::Decode));
    }
}

#[test]
fn a_renderer_that_writes_all_over_the_line_costs_the_device_no_time() {
    let (device, renderer) = lines();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let scribbler = thread::spawn(move || {
        let mut value = 1_u32;
        while !stopped.load(Ordering::Relaxed) {
            for at in (0..LINE_BYTES).step_by(4) {
                value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let small = value >> 16 & 3;
                renderer.word(at).store(small, Ordering::Relaxed);
            }
        }
    });
    let start = Instant::now();
    let mut reader = FenceReader::new(device.clone());
    let (mut requests, mut replies) = device.device();
    let (mut target, mut fences) = ([0; MAX_HEAD], Vec::new());
    while start.elapsed() < Duration::from_millis(300) {
        let before = Instant::now();
        requests.put(&[1; 64]).unwrap();
        // Any reply will do, but for one that is longer than any.
        if let Ok(Some(length)) = replies.take(&mut target) {
            assert!(length <= MAX_HEAD);
        }
        replies.sleep();
        replies.wake();
        device.want_news(true);
        fences.clear();
        drop(reader.take(&mut fences));
        assert!(fences.len() <= FENCE_ROOM as usize);
        assert!(before.elapsed() < Duration::from_secs(5));
    }
    stop.store(true, Ordering::Relaxed);
    scribbler.join().unwrap();
}
