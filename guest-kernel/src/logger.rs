//! The log: whole lines to the serial port, through the `log` crate, with levels.
//!
//! A line is put together in a buffer of its own and sent byte by byte: monitors collect single
//! bytes without leaving the kernel, while a string instruction costs them an exit for each.
//! `log=LEVEL` on the command line chooses the level (`error`, `warn`, `info`, `debug`, `trace`);
//! `info` is the default.

use core::fmt::{self, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Once;

use crate::arch::x86_64::machine_ports::out_byte;
use crate::sync::SpinLock;
use crate::time::Instant;

const DEFAULT_PORT: u16 = 0x3f8;
const LINE_BYTES: usize = 320;

static PORT: Once<u16> = Once::new();
static WRITING: SpinLock<()> = SpinLock::new(());

/// Sets the port, if the boot information names one.
pub(crate) fn use_port(port: u16) {
    PORT.call_once(|| port);
}

/// Starts the log.
pub(crate) fn start(level: LevelFilter) {
    // A second start would find the logger set, which is what it wants.
    let _ = log::set_logger(&Logger);
    log::set_max_level(level);
}

/// Writes a line without waiting for anything: for reports from the middle of nowhere.
pub(crate) fn write_line(arguments: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // `Line` cuts what is too long; it never fails.
    let _ = line.write_fmt(arguments);
    line.send();
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Line::new();
        let micros = Instant::now().as_nanos() / 1000;
        let level = match record.level() {
            Level::Error => "ERROR",
            Level::Warn => "WARN ",
            Level::Info => "INFO ",
            Level::Debug => "DEBUG",
            Level::Trace => "TRACE",
        };
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        // `Line` cuts what is too long; it never fails.
        let _ = write!(line, "[{seconds:5}.{rest:06}] {level} {}: {}", record.target(), record.args());
        let _writing = WRITING.lock();
        line.send();
    }

    fn flush(&self) {}
}

/// A line in the making, cut to fit.
struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl Line {
    fn new() -> Self {
        Self { bytes: [0; LINE_BYTES], length: 0 }
    }

    fn send(&mut self) {
        let end = self.length.min(LINE_BYTES - 1);
        self.bytes[end] = b'\n';
        let port = PORT.get().copied().unwrap_or(DEFAULT_PORT);
        for byte in &self.bytes[..=end] {
            out_byte(port, *byte);
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length.min(LINE_BYTES - 1)..LINE_BYTES - 1];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}
