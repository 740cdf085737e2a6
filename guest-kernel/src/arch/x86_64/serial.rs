//! The serial port, to which whole lines are written.
//!
//! A line is assembled in a buffer of its own and sent byte by byte: monitors collect single bytes
//! without leaving the kernel, while a string instruction costs them an exit for each.

use core::fmt::{self, Write};

use spin::Once;

use super::port_io::out_byte;

const DEFAULT_PORT: u16 = 0x3f8;
const LINE_BYTES: usize = 320;

static PORT: Once<u16> = Once::new();

/// Sets the port, if the boot information names one.
pub(crate) fn use_port(port: u16) {
    PORT.call_once(|| port);
}

/// Writes a line. Takes no lock and never waits, so that any code can report its end.
pub(crate) fn write_line(arguments: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // `Line` cuts what is too long; it never fails.
    let _ = line.write_fmt(arguments);
    line.send();
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
