// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's log, by sequence number.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use guest_agent::protocol::KernelMessage;
use rustix::fs::OFlags;

use crate::{Error, file_error};

const KMSG: &str = "/dev/kmsg";
/// Larger than any record (Linux: CONSOLE_EXT_LOG_MAX, 8 KiB); a smaller read fails.
const RECORD_MAX: usize = 16 * 1024;

/// All records from `since` on that the kernel still has.
pub(crate) fn messages(since: u64) -> Result<Vec<KernelMessage>, Error> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(KMSG)
        .map_err(file_error("open", KMSG))?;
    let mut messages = Vec::new();
    while let Some(record) = next_record(&mut file)? {
        messages.extend(parse(&record).filter(|message| message.seq >= since));
    }
    Ok(messages)
}

/// The sequence number the next message will have.
pub(crate) fn mark() -> Result<u64, Error> {
    Ok(messages(0)?.last().map_or(0, |message| message.seq + 1))
}

/// One read is one record.
fn next_record(file: &mut File) -> Result<Option<String>, Error> {
    let mut record = vec![0; RECORD_MAX];
    loop {
        match file.read(&mut record) {
            Ok(0) => return Ok(None),
            Ok(length) => {
                record.truncate(length);
                return Ok(Some(String::from_utf8_lossy(&record).into_owned()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // EPIPE: the record was overwritten while we read; the next read goes on after the gap.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(file_error("read", KMSG)(error)),
        }
    }
}

/// `priority,sequence,microseconds,flags;text`, continuation lines start with a space.
fn parse(record: &str) -> Option<KernelMessage> {
    let (head, body) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    Some(KernelMessage {
        severity: u8::try_from(priority & 7).ok()?,
        seq: fields.next()?.parse().ok()?,
        time_us: fields.next()?.parse().ok()?,
        text: body.lines().next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_severity_sequence_time_and_text_without_its_tags() {
        let message = parse("30,17,123456,-;virtio_gpu virtio0: hello; world\n SUBSYSTEM=virtio\n");
        let message = message.expect("a well-formed record");
        assert_eq!(
            (message.severity, message.seq, message.time_us),
            (6, 17, 123_456)
        );
        assert_eq!(message.text, "virtio_gpu virtio0: hello; world");
    }

    #[test]
    fn a_record_without_its_fields_is_not_a_message() {
        assert!(parse("no separator").is_none());
        assert!(parse("6,x,1,-;text").is_none());
    }
}
