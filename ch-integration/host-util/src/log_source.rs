// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The one way to the log for lines that somebody else causes.
//!
//! A guest that resets its device in a loop, a VMM whose maps fail and a program that connects without end must not fill
//! the host's disk. So whoever can cause lines has a quota of them, here; what is left out is counted, and told with the
//! next line. `clippy.toml` forbids the macros of the `log` crate, and each exception says who alone can cause its lines.

use std::fmt::Arguments;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, log, log_enabled, max_level};

/// How long a quota lasts.
const WINDOW: Duration = Duration::from_secs(10);
/// So many times more lines has each source where a person asked for debug messages.
const DEBUG: u32 = 100;
/// Bytes of a line; the rest is dropped. Errors quote what others wrote.
const MAX_LINE: usize = 1024;

/// What a guest does: every event but a VMM's coming and going. One that only sleeps stays far below.
pub static GUEST: LogSource = LogSource::new("guest", 100);
/// What a VMM asks for, and that it comes and goes.
pub static VMM: LogSource = LogSource::new("vmm", 30);
/// What a renderer's process prints: virglrenderer has a line for every mistake of a guest.
pub static RENDERER: LogSource = LogSource::new("renderer", 100);
/// Who connects to the control socket, and what they ask.
pub static CONTROL: LogSource = LogSource::new("control", 10);
/// Who looks at the outputs.
pub static VIEWER: LogSource = LogSource::new("viewer", 30);

/// Somebody who can cause lines.
#[derive(Debug)]
pub struct LogSource {
    name: &'static str,
    /// Lines in each [`WINDOW`].
    lines: u32,
    ordinary: Mutex<Used>,
    /// Debug and trace messages, so that they leave room for the others.
    debug: Mutex<Used>,
}

impl LogSource {
    const fn new(name: &'static str, lines: u32) -> Self {
        Self {
            name,
            lines,
            ordinary: Mutex::new(Used::NOTHING),
            debug: Mutex::new(Used::NOTHING),
        }
    }

    /// Writes an error, or counts it.
    #[inline]
    pub fn error(&self, line: Arguments<'_>) {
        self.write(Level::Error, line);
    }

    /// Writes a warning, or counts it.
    #[inline]
    pub fn warn(&self, line: Arguments<'_>) {
        self.write(Level::Warn, line);
    }

    /// Writes a message, or counts it.
    #[inline]
    pub fn info(&self, line: Arguments<'_>) {
        self.write(Level::Info, line);
    }

    /// Writes a debug message, or counts it.
    #[inline]
    pub fn debug(&self, line: Arguments<'_>) {
        self.write(Level::Debug, line);
    }

    /// Writes a trace message, or counts it.
    #[inline]
    pub fn trace(&self, line: Arguments<'_>) {
        self.write(Level::Trace, line);
    }

    /// What nobody asked for costs a comparison.
    #[inline]
    fn write(&self, level: Level, line: Arguments<'_>) {
        if level <= max_level() {
            self.write_wanted(level, line);
        }
    }

    #[expect(clippy::disallowed_macros, reason = "this is the one way")]
    fn write_wanted(&self, level: Level, line: Arguments<'_>) {
        let target = self.name;
        if !log_enabled!(target: target, level) {
            return;
        }
        let Some(dropped) = self.admit(level, Instant::now()) else {
            return;
        };
        let line = shortened(line.to_string());
        match dropped {
            0 => log!(target: target, level, "{line}"),
            _ => {
                log!(target: target, level, "{line} ({dropped} lines of the {target} before it were left out)");
            }
        }
    }

    /// Whether a line may be written now, and if so how many were not since the last one.
    fn admit(&self, level: Level, now: Instant) -> Option<u64> {
        let (used, lines) = if level <= Level::Info {
            (&self.ordinary, self.lines)
        } else {
            (&self.debug, self.lines.saturating_mul(DEBUG))
        };
        let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
        used.admit(lines, now)
    }
}

/// What is used of a quota.
#[derive(Debug)]
struct Used {
    since: Option<Instant>,
    written: u32,
    dropped: u64,
}

impl Used {
    const NOTHING: Self = Self {
        since: None,
        written: 0,
        dropped: 0,
    };

    fn admit(&mut self, lines: u32, now: Instant) -> Option<u64> {
        let since = self.since.get_or_insert(now);
        if now.saturating_duration_since(*since) >= WINDOW {
            *since = now;
            self.written = 0;
        }
        if self.written >= lines {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.written = self.written.saturating_add(1);
        Some(mem::take(&mut self.dropped))
    }
}

fn shortened(mut line: String) -> String {
    if line.len() > MAX_LINE {
        let end = (0..=MAX_LINE).rev().find(|&end| line.is_char_boundary(end));
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_never_stops_gets_so_many_lines_a_window_and_the_rest_are_counted() {
        let start = Instant::now();
        let source = LogSource::new("test", 7);
        let admit = |after| source.admit(Level::Warn, start + after);
        let written = (0..1000).filter(|_| admit(Duration::ZERO).is_some());
        assert_eq!(written.count(), 7);
        assert_eq!(admit(WINDOW / 2), None);
        assert_eq!(admit(WINDOW), Some(1001 - 7));
        assert_eq!(admit(WINDOW), Some(0));
    }

    #[test]
    fn debug_messages_leave_room_for_the_others() {
        let now = Instant::now();
        let source = LogSource::new("test", 1);
        let debug = (0..1000).filter(|_| source.admit(Level::Debug, now).is_some());
        assert_eq!(debug.count(), 100);
        assert_eq!(source.admit(Level::Error, now), Some(0));
        assert_eq!(source.admit(Level::Info, now), None);
    }

    #[test]
    fn a_long_line_is_cut_between_two_letters() {
        let line = shortened("ö".repeat(MAX_LINE));
        assert_eq!(line.chars().count(), MAX_LINE / 2 + 1);
    }
}
