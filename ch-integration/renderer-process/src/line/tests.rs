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

fn take(slot: &Slot<'_>) -> Result<Option<Vec<u8>>, MessageError> {
    let mut bytes = vec![0; MAX_HEAD];
    let length = slot.take(&mut bytes)?;
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
fn a_message_is_taken_once_by_who_looks_and_refused_for_who_sleeps() {
    let (device, renderer) = lines();
    let (put, taken) = (device.calls(), renderer.calls());
    assert_eq!(take(&taken), Ok(None));
    for message in [&[1_u8, 2, 3][..], &[4; MAX_HEAD], &[]] {
        assert!(put.put(message));
        assert!(!put.put(&[9]), "one at a time");
        assert!(taken.is_full() && !taken.sleep());
        assert_eq!(take(&taken), Ok(Some(message.to_vec())));
        assert_eq!(take(&taken), Ok(None));
    }
    assert!(!put.put(&[0; MAX_HEAD + 1]));
    assert!(taken.sleep());
    assert!(!put.put(&[1]));
    taken.wake();
    assert!(put.put(&[1]));
    // The other slot is another one.
    assert_eq!(take(&device.answers()), Ok(None));
}

#[test]
fn every_message_goes_one_way_and_none_is_lost_whenever_the_reader_falls_asleep() {
    let (device, renderer) = lines();
    let (socket, sleeper) = channel::<u32>();
    let answered = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&answered);
    const COUNT: u32 = 20_000;
    let reader = thread::spawn(move || {
        let slot = renderer.calls();
        for expected in 1..=COUNT {
            let looks = expected % 7;
            let found = (0..looks).any(|_| slot.is_full());
            let message = if found || !slot.sleep() {
                let bytes = take(&slot).unwrap().unwrap();
                u32::from_le_bytes(bytes.try_into().unwrap())
            } else {
                let message = sleeper.recv_timeout(Duration::from_secs(60)).unwrap();
                slot.wake();
                message
            };
            assert_eq!(message, expected);
            seen.store(message, Ordering::Release);
        }
    });
    for number in 1..=COUNT {
        if !device.calls().put(&number.to_le_bytes()) {
            socket.send(number).unwrap();
        }
        while answered.load(Ordering::Acquire) != number {
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
    let mut reader = FenceReader::new(device.clone());
    assert!(!writer.put(&[on_ring(1)]), "nobody looks");
    device.look_for_fences(true);
    let all = [on_ring(u64::MAX), on_global(0), on_global(u64::MAX)];
    // Round the ring, more than once.
    for _ in 0..FENCE_ROOM {
        assert!(writer.put(&all));
        let mut taken = Vec::new();
        reader.take(&mut taken).unwrap();
        assert_eq!(taken, all);
    }
    device.look_for_fences(false);
    assert!(!writer.put(&all));
}

#[test]
fn fences_that_find_no_room_are_refused_and_come_again_when_there_is() {
    let (device, renderer) = lines();
    let mut writer = FenceWriter::new(renderer);
    let mut reader = FenceReader::new(device.clone());
    device.look_for_fences(true);
    let full: Vec<_> = (0..FENCE_ROOM.into()).map(on_global).collect();
    assert!(writer.put(&full));
    assert!(!writer.put(&[on_global(999)]));
    let mut taken = Vec::new();
    reader.take(&mut taken).unwrap();
    assert_eq!(taken, full);
    assert!(writer.put(&[on_global(999)]));
}

#[test]
fn a_fence_is_either_seen_by_the_last_look_or_told() {
    let (device, renderer) = lines();
    let told = Arc::new(AtomicBool::new(false));
    let mut writer = FenceWriter::new(renderer);
    let mut reader = FenceReader::new(device.clone());
    for id in 0..2000 {
        device.look_for_fences(true);
        told.store(false, Ordering::SeqCst);
        let telling = Arc::clone(&told);
        let signal = thread::spawn(move || {
            if !writer.put(&[on_global(id)]) {
                telling.store(true, Ordering::SeqCst);
            }
            writer
        });
        // Somewhere in the middle of it.
        for _ in 0..id % 50 {
            thread::yield_now();
        }
        device.look_for_fences(false);
        let mut taken = Vec::new();
        reader.take(&mut taken).unwrap();
        writer = signal.join().unwrap();
        assert!(told.load(Ordering::SeqCst) || taken == [on_global(id)]);
        reader.take(&mut taken).unwrap();
    }
}

#[test]
fn a_length_that_no_message_has_is_refused_before_a_byte_is_copied() {
    let (device, renderer) = lines();
    for length in [u32::try_from(MAX_HEAD).unwrap() + 1, 1 << 31, u32::MAX] {
        renderer.word(ANSWER_BYTES).store(length, Ordering::Relaxed);
        renderer.word(ANSWER).store(FULL, Ordering::Release);
        let mut target = [7; 2 * MAX_HEAD];
        let refused = device.answers().take(&mut target);
        assert_eq!(refused, Err(MessageError::Decode));
        assert_eq!(target, [7; 2 * MAX_HEAD]);
    }
}

#[test]
fn a_word_that_means_nothing_is_neither_a_message_nor_a_reader_that_looks() {
    let (device, renderer) = lines();
    for word in [3, u32::MAX] {
        renderer.word(ANSWER).store(word, Ordering::Relaxed);
        renderer.word(CALL).store(word, Ordering::Relaxed);
        // The device asks through the socket, and finds that it can neither take nor wait.
        assert!(!device.calls().put(&[1]));
        assert!(!device.answers().is_full() && !device.answers().sleep());
        assert_eq!(take(&device.answers()), Ok(None));
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
    let (mut target, mut fences) = ([0; MAX_HEAD], Vec::new());
    while start.elapsed() < Duration::from_millis(300) {
        let before = Instant::now();
        device.calls().put(&[1; 64]);
        // Any answer will do, but for one that is longer than any.
        if let Ok(Some(length)) = device.answers().take(&mut target) {
            assert!(length <= MAX_HEAD);
        }
        device.answers().sleep();
        device.answers().wake();
        fences.clear();
        drop(reader.take(&mut fences));
        assert!(fences.len() <= FENCE_ROOM as usize);
        assert!(before.elapsed() < Duration::from_secs(5));
    }
    stop.store(true, Ordering::Relaxed);
    scribbler.join().unwrap();
}
