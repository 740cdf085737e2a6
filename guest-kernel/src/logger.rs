//! The log: whole lines to the serial port, through the `log` crate, with levels.
//!
//! `log=LEVEL` on the command line chooses the level (`error`, `warn`, `info`, `debug`, `trace`);
//! `info` is the default.

use core::fmt::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::arch::x86_64::serial::Line;
use crate::sync::{LockRank, SpinLock};
use crate::time::Instant;

static WRITING: SpinLock<()> = SpinLock::new(LockRank::LogLine, ());

/// Starts the log.
pub(crate) fn start(level: LevelFilter) {
    // Fails only if a logger is set already, and this is the only one.
    let _ = log::set_logger(&Logger);
    log::set_max_level(level);
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
