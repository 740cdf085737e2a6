//! The guest's serial line: a 16550 as the guest sees it, lines of text as we keep them.
//!
//! The last lines stay in memory to explain a fault; all of them go to the log, if there is one. A line ends at a line feed or at
//! [`LINE_BYTES`], so a guest that never ends one costs nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::RangeInclusive;

use vm_superio::{Serial, Trigger, serial::NoEvents};

/// The ports of the first serial line (COM1).
pub(super) const PORTS: RangeInclusive<u16> = 0x3f8..=0x3ff;
/// Lines that are kept.
const LINES: usize = 40;
/// Bytes after which a line is cut.
const LINE_BYTES: usize = 512;

/// The device.
pub(super) struct Console {
    serial: Serial<NoInterrupt, NoEvents, Lines>,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("lines", self.serial.writer()).finish_non_exhaustive()
    }
}

impl Console {
    /// A console that appends whole lines to `log`.
    pub(super) fn new(log: Option<File>) -> Self {
        Self { serial: Serial::new(NoInterrupt, Lines { log, ..Lines::default() }) }
    }

    /// The guest wrote bytes to one of [`PORTS`], in one access or in a row.
    pub(super) fn write(&mut self, port: u16, bytes: &[u8]) {
        let register = register(port);
        for byte in bytes {
            // A full or failing log is no fault of the guest's: `Lines` never fails.
            let _ = self.serial.write(register, *byte);
        }
    }

    /// The guest reads one of [`PORTS`].
    pub(super) fn read(&mut self, port: u16, bytes: &mut [u8]) {
        let register = register(port);
        for byte in bytes {
            *byte = self.serial.read(register);
        }
    }

    /// The last lines, the unfinished one included, which goes to the log now.
    pub(super) fn finish(&mut self) -> Vec<String> {
        let lines = self.serial.writer_mut();
        if !lines.current.is_empty() {
            lines.end_line();
        }
        lines.last.drain(..).collect()
    }
}

fn register(port: u16) -> u8 {
    port.to_le_bytes()[0] & 7
}

/// We never have input, and output never blocks: no interrupts.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Bytes in, lines out.
#[derive(Debug, Default)]
struct Lines {
    current: Vec<u8>,
    last: VecDeque<String>,
    log: Option<File>,
}

impl Lines {
    fn push(&mut self, byte: u8) {
        match byte {
            b'\n' => self.end_line(),
            b'\r' => {}
            byte => {
                self.current.push(byte);
                if self.current.len() == LINE_BYTES {
                    self.end_line();
                }
            }
        }
    }

    fn end_line(&mut self) {
        if self.last.len() == LINES {
            self.last.pop_front();
        }
        self.last.push_back(String::from_utf8_lossy(&self.current).into_owned());
        self.current.push(b'\n');
        if let Some(log) = &mut self.log
            && log.write_all(&self.current).is_err()
        {
            // The disk is full or gone. The guest goes on; its last lines are still here.
            self.log = None;
        }
        self.current.clear();
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.push(*byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Console, LINE_BYTES, LINES};
    use std::io::{Read, Seek};

    #[test]
    fn lines_are_kept_and_logged() {
        let mut log = tempfile::tempfile().unwrap();
        let mut console = Console::new(Some(log.try_clone().unwrap()));
        console.write(0x3f8, b"first\r\nsec");
        console.write(0x3f8, b"ond\n\xffthird");
        assert_eq!(console.finish(), ["first", "second", "\u{fffd}third"]);
        let mut bytes = Vec::new();
        log.rewind().unwrap();
        log.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"first\nsecond\n\xffthird\n");
    }

    #[test]
    fn memory_is_bounded() {
        let mut console = Console::new(None);
        console.write(0x3f8, &vec![b'x'; LINE_BYTES * 100]);
        let lines = console.finish();
        assert_eq!(lines.len(), LINES);
        assert!(lines.iter().all(|line| line.len() == LINE_BYTES));
    }

    #[test]
    fn the_transmitter_is_always_ready() {
        let mut status = [0];
        Console::new(None).read(0x3fd, &mut status);
        assert_eq!(status[0] & 0x20, 0x20);
    }
}
