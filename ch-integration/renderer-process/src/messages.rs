// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the renderer prints.

use std::io::{BufRead, BufReader, Read};

use host_util::log_source::RENDERER;

/// Bytes of a line; the rest is dropped.
const MAX_LINE: u64 = 512;

/// Puts what the renderer prints on the log until it ends. virglrenderer has a line for every mistake of a guest, and a
/// guest that makes them in a loop must not fill the host's disk.
pub(super) fn log(output: impl Read) {
    each_line(output, |line| {
        RENDERER.info(format_args!("renderer: {line}"));
    });
}

fn each_line(output: impl Read, mut tell: impl FnMut(&str)) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        // Where it fails nobody prints any more.
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if read.unwrap_or(0) == 0 {
            return;
        }
        let whole = line.ends_with(b"\n");
        let text = String::from_utf8_lossy(&line);
        // What a guest writes shall not move a person's cursor.
        let text: String = text
            .trim_end()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        if !text.is_empty() {
            tell(&text);
        }
        if !whole && reader.skip_until(b'\n').unwrap_or(0) == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let mut output = vec![b'x'; 10_000];
        output.extend_from_slice(b"\n\n\x1b[2Jsecond\xff\nthird");
        let mut lines = Vec::new();
        each_line(output.as_slice(), |line| lines.push(line.to_owned()));
        assert_eq!(lines[0].len() as u64, MAX_LINE);
        assert_eq!(lines[1..], ["[2Jsecond\u{fffd}", "third"]);
    }
}
