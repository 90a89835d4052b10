// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest's proxy asks for: mostly what means something, with few ids and small sizes.

use std::collections::BTreeMap;
use std::mem;

use super::peer::Said;
use super::{Answered, ChannelStep, PAGE};
use crate::cross_domain::{
    BLOB, READ_PIPE, cmd, command, create_blob, init, poll, query_image, send, write,
};
use crate::program::Code;
use crate::request;
use virtio_gpu_s3::command::{Command, Rendering};
use virtio_gpu_s3::protocol::BLOB_MEM_GUEST;
use virtio_gpu_s3::protocol::wire::MemEntry;

/// Sorts of commands that a stream can have.
pub(super) const COUNT: u8 = 5;
const READ_PIPES: u32 = 0x8000_0000;
/// Bytes and files of one SEND whose size still fits its field.
const MOST_BYTES: usize = 60_000;

/// What guests know without being told.
#[derive(Default)]
pub(super) struct Guest {
    /// How many pipes each context made, which is the next one's number.
    pipes: BTreeMap<u32, u32>,
    /// Those of the stream that is under way.
    asked: u32,
    /// The bytes of its last message.
    said: Vec<u8>,
    /// No byte is as the one before.
    last: u8,
}

impl Guest {
    pub(super) fn stream(
        &mut self,
        ctx_id: u32,
        step: ChannelStep,
        code: &mut Code<'_>,
    ) -> Vec<u8> {
        match step {
            ChannelStep::Command(index) => self.command(ctx_id, index, code),
            ChannelStep::Raw => {
                let count = usize::from(code.value());
                (0..count).map(|_| code.value()).collect()
            }
            _ => {
                let count = 1 + code.value() % 4;
                let parts = (0..count).map(|_| {
                    let index = code.value();
                    self.command(ctx_id, index, code)
                });
                let mut stream = parts.collect::<Vec<_>>().concat();
                change(&mut stream, code);
                stream
            }
        }
    }

    /// What a stream said that was carried out, or refused.
    pub(super) fn answered(&mut self, ctx_id: u32, step: ChannelStep, answer: Answered) -> Said {
        let asked = mem::take(&mut self.asked);
        let said = mem::take(&mut self.said);
        if answer != Answered::Refused {
            *self.pipes.entry(ctx_id).or_default() += asked;
        }
        match (step, answer) {
            (ChannelStep::Command(_), Answered::Refused) => Said::Nothing,
            (ChannelStep::Command(_), Answered::Well) => Said::Bytes(ctx_id, said),
            _ => Said::Unknown(ctx_id),
        }
    }

    /// A context that begins or ends begins to count anew.
    pub(super) fn note(&mut self, ctx_id: u32, command: &Command<'_>) {
        if let Command::Rendering(Rendering::CtxCreate { .. } | Rendering::CtxDestroy) = command {
            self.pipes.remove(&ctx_id);
        }
    }

    fn command(&mut self, ctx_id: u32, index: u8, code: &mut Code<'_>) -> Vec<u8> {
        match index % COUNT {
            0 => self.send(ctx_id, code),
            1 => poll(),
            2 => {
                let (query, channel) = (code.below(6), code.below(6));
                match code.value() {
                    0..=191 => init(query, channel),
                    192..=223 => command(cmd::INIT, &[query, 1], &[]),
                    _ => command(cmd::INIT, &[query, channel, code.below(3), 0, 0, 0, 0], &[]),
                }
            }
            3 => write(code.below(12), code.value() >= 192, &vec![4; length(code)]),
            _ => {
                let format = [*b"XR24", *b"NV12", *b"R8  ", *b"none"];
                let (width, height) = (code.below(64), code.below(64));
                query_image(width, height, format[usize::from(code.value() % 4)])
            }
        }
    }

    fn send(&mut self, ctx_id: u32, code: &mut Code<'_>) -> Vec<u8> {
        let bytes = length(code);
        let count = code.below(4).min(30);
        let files: Vec<_> = (0..count)
            .map(|_| match code.value() {
                0..=127 => (code.below(6), BLOB),
                128..=239 => {
                    self.asked += 1;
                    let made = self.pipes.get(&ctx_id).copied().unwrap_or_default();
                    (READ_PIPES + made + self.asked, READ_PIPE)
                }
                _ => (code.word(), code.below(6)),
            })
            .collect();
        self.said.clear();
        for _ in 0..bytes {
            self.last = self.last.wrapping_add(1);
            self.said.push(self.last);
        }
        send(&self.said, &files)
    }
}

/// Little, or now and then more than a socket or a pipe takes.
pub(super) fn length(code: &mut Code<'_>) -> usize {
    match usize::from(code.value()) {
        little @ 0..=191 => little,
        much => ((much - 191) * 1000).min(MOST_BYTES),
    }
}

/// Another word at some place.
fn change(stream: &mut [u8], code: &mut Code<'_>) {
    for _ in 0..code.value() % 4 {
        let at = usize::from(code.value());
        let word = code.word().to_le_bytes();
        for (slot, byte) in stream.iter_mut().skip(at * 2).zip(word) {
            *slot = byte;
        }
    }
}

/// One to four pages, some of them cut.
pub(super) fn entries(code: &mut Code<'_>) -> Vec<MemEntry> {
    let page = PAGE as u64;
    let count = 1 + code.value() % 4;
    let entries = (0..count).map(|_| {
        let addr = u64::from(code.below(16)) * page;
        let length = match code.value() {
            cut @ 224..=255 => u32::from(cut - 223) * 16,
            _ => 4096,
        };
        MemEntry {
            addr: addr.into(),
            length: length.into(),
            padding: 0.into(),
        }
    });
    entries.collect()
}

/// A blob of guest memory, one in eight times without the memory.
pub(super) fn ring(id: u32, code: &mut Code<'_>) -> Vec<u8> {
    let backed = code.value() % 8 != 7;
    let entries = entries(code);
    let all: u64 = entries.iter().map(|it| u64::from(it.length.get())).sum();
    let size = match code.value() {
        0..=223 => all,
        _ => u64::from(code.word()),
    };
    let entries = if backed { &entries[..] } else { &[] };
    request::resource_create_blob(id, BLOB_MEM_GUEST, 0, size, entries)
}

/// A blob of the host's memory: the smallest pictures and files have a page.
pub(super) fn blob(id: u32, code: &mut Code<'_>) -> Vec<u8> {
    let number = code.below(12);
    let size = match code.value() {
        0..=191 => PAGE as u64,
        192..=223 => 2 * PAGE as u64,
        _ => u64::from(code.word()),
    };
    create_blob(id, number, size)
}
