//! The console: the serial port, to which whole lines are written, or what takes its place on a
//! machine without one.
//!
//! A line is assembled in a buffer of its own and sent byte by byte: monitors collect single bytes
//! without leaving the kernel, while a string instruction costs them an exit for each. On a machine
//! without a serial port, lines are kept until another console is there.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;

use super::early_lines::EarlyLines;
use super::port_io::{in_byte, out_byte};

const DEFAULT_PORT: u16 = 0x3f8;
/// A register of a 16550 without a meaning, which keeps what is written to it.
const SCRATCH: u16 = 7;
const LINE_BYTES: usize = 320;

static PORT: Once<u16> = Once::new();
static IS_MISSING: AtomicBool = AtomicBool::new(false);
static REPLACEMENT: Once<fn(&[u8])> = Once::new();
static EARLY_LINES: EarlyLines = EarlyLines::new();

/// Sets the port, if the boot information names one.
pub(crate) fn use_port(port: u16) {
    PORT.call_once(|| port);
}

/// Checks whether there is a serial port; until then, one is taken for granted.
pub(crate) fn detect() {
    let register = port() + SCRATCH;
    let keeps = |value| {
        out_byte(register, value);
        in_byte(register) == value
    };
    IS_MISSING.store(!(keeps(0x5a) && keeps(0xa5)), Ordering::Relaxed);
}

/// Returns whether lines go to the serial port.
pub(crate) fn is_there() -> bool {
    !IS_MISSING.load(Ordering::Relaxed)
}

/// Sets the function that lines are passed to on a machine without a serial port, and passes those
/// to it that were kept. It must not wait for ever, and is called from reports, too.
pub(crate) fn replace(write: fn(&[u8])) {
    EARLY_LINES.take(write);
    REPLACEMENT.call_once(|| write);
}

/// Writes a line. Takes no lock and never waits for long, so that any code can report its end.
pub(crate) fn write_line(arguments: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // `Line` cuts what is too long; it never fails.
    let _ = line.write_fmt(arguments);
    line.send();
}

fn port() -> u16 {
    PORT.get().copied().unwrap_or(DEFAULT_PORT)
}

/// A line that is being assembled; what is too long is cut off.
pub(crate) struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl Line {
    /// Returns an empty line.
    pub(crate) fn new() -> Self {
        Self { bytes: [0; LINE_BYTES], length: 0 }
    }

    /// Sends the line with a line break.
    pub(crate) fn send(&mut self) {
        let end = self.length.min(LINE_BYTES - 1);
        self.bytes[end] = b'\n';
        let line = &self.bytes[..=end];
        if is_there() {
            let port = port();
            line.iter().for_each(|byte| out_byte(port, *byte));
        } else if let Some(write) = REPLACEMENT.get() {
            write(line);
        } else {
            EARLY_LINES.keep(line);
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
