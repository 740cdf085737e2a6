//! The guest's serial line: a 16550 as the guest sees it, and lines of text as the monitor keeps
//! them.
//!
//! The last lines stay in memory to explain a fault. The log, if there is one, gets all lines,
//! within the bounds of [`ConsoleLog`]. A line ends at a line feed or at [`LINE_BYTES`], so a guest
//! that never ends a line costs nothing. Most bytes come through the [`SerialRing`], which the
//! owner of the console drains from time to time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io::{self, Write};
use std::ops::RangeInclusive;

use vm_superio::{Serial, Trigger, serial::NoEvents};

use super::console_log::ConsoleLog;
use super::serial_ring::SerialRing;
use aerostat_link::clock::Moment;

/// The ports of the first serial line (COM1).
pub(super) const PORTS: RangeInclusive<u16> = 0x3f8..=0x3ff;
/// How many lines are kept.
const LINES: usize = 40;
/// Bytes after which a line is cut.
const LINE_BYTES: usize = 512;

/// The serial line's device.
pub(super) struct Console {
    serial: Serial<NoInterrupt, NoEvents, Lines>,
    ring: Option<SerialRing>,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("lines", self.serial.writer()).finish_non_exhaustive()
    }
}

impl Console {
    /// Creates a console that appends whole lines to `log`, and whose data port may be written
    /// through `ring`.
    pub(super) fn new(log: Option<ConsoleLog>, ring: Option<SerialRing>) -> Self {
        Self { serial: Serial::new(NoInterrupt, Lines::new(log)), ring }
    }

    /// Drains the ring of what the guest has written without an exit.
    pub(super) fn drain(&mut self, now: Moment) {
        self.serial.writer_mut().now = now;
        if let Some(ring) = &mut self.ring {
            // A full or failing log is not the guest's fault: `Lines` never fails.
            ring.drain(|byte| drop(self.serial.write(register(*PORTS.start()), byte)));
        }
    }

    /// Handles bytes that the guest wrote to one of [`PORTS`], in one access or several.
    pub(super) fn write(&mut self, port: u16, bytes: &[u8], now: Moment) {
        self.drain(now);
        let register = register(port);
        for byte in bytes {
            // As above.
            let _ = self.serial.write(register, *byte);
        }
    }

    /// Handles the guest's read of one of [`PORTS`].
    pub(super) fn read(&mut self, port: u16, bytes: &mut [u8]) {
        let register = register(port);
        for byte in bytes {
            *byte = self.serial.read(register);
        }
    }

    /// Returns how many lines the log did not get.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.serial.writer().log.as_ref().map_or(0, ConsoleLog::dropped)
    }

    /// Returns the last lines without control characters. An unfinished line is included, and goes
    /// to the log now.
    pub(super) fn finish(&mut self, now: Moment) -> Vec<String> {
        self.drain(now);
        let lines = self.serial.writer_mut();
        if !lines.current.is_empty() {
            lines.end_line();
        }
        let now = lines.now;
        if let Some(log) = &mut lines.log {
            log.note_dropped(now);
        }
        lines.last.drain(..).collect()
    }
}

fn register(port: u16) -> u8 {
    port.to_le_bytes()[0] & 7
}

/// The guest never gets input, and output never blocks: no interrupts.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Makes lines of bytes.
#[derive(Debug)]
struct Lines {
    current: Vec<u8>,
    last: VecDeque<String>,
    log: Option<ConsoleLog>,
    now: Moment,
}

impl Lines {
    fn new(log: Option<ConsoleLog>) -> Self {
        Self { current: Vec::new(), last: VecDeque::new(), log, now: Moment::default() }
    }

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
        let line = String::from_utf8_lossy(&self.current);
        self.last.push_back(line.replace(char::is_control, "\u{fffd}"));
        self.current.push(b'\n');
        if let Some(log) = &mut self.log {
            log.append(&self.current, self.now);
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
    use super::{Console, ConsoleLog, LINE_BYTES, LINES};
    use crate::console_log::LOGGED;
    use crate::fault;
    use aerostat_link::clock::Moment;
    use aerostat_link::message::{Ending, FromVmm, Reason};
    use aerostat_link::{Link, Patience};
    use std::fs::File;
    use std::io::{Read, Seek};

    const NOW: Moment = Moment::from_ns(1 << 40);

    fn text(log: &mut File) -> Vec<u8> {
        let mut bytes = Vec::new();
        log.rewind().unwrap();
        log.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn lines_are_kept_and_logged() {
        let mut log = tempfile::tempfile().unwrap();
        let mut console = Console::new(Some(ConsoleLog::new(log.try_clone().unwrap(), None)), None);
        console.write(0x3f8, b"first\r\nsec", NOW);
        console.write(0x3f8, b"ond\n\xffth\x07ird", NOW);
        assert_eq!(console.finish(NOW), ["first", "second", "\u{fffd}th\u{fffd}ird"]);
        assert_eq!(text(&mut log), b"first\nsecond\n\xffth\x07ird\n");
    }

    #[test]
    fn memory_is_bounded() {
        let mut console = Console::new(None, None);
        console.write(0x3f8, &vec![b'x'; LINE_BYTES * 100], NOW);
        let lines = console.finish(NOW);
        assert_eq!(lines.len(), LINES);
        assert!(lines.iter().all(|line| line.len() == LINE_BYTES));
    }

    #[test]
    fn a_million_lines_do_not_fill_the_log() {
        let mut log = tempfile::tempfile().unwrap();
        let mut console = Console::new(Some(ConsoleLog::new(log.try_clone().unwrap(), None)), None);
        let burst = u64::from(LOGGED.burst);
        for _ in 0..1_000_000 {
            console.write(0x3f8, b"hello\n", NOW);
        }
        assert_eq!(console.dropped_lines(), 1_000_000 - burst);
        console.write(0x3f8, b"later\n", NOW.after(std::time::Duration::from_secs(1)));
        let lines = text(&mut log);
        let end = format!("hello\n[{} lines dropped]\nlater\n", 1_000_000 - burst);
        assert!(lines.len() == 6 * 20_000 + end.len() - 6 && lines.ends_with(end.as_bytes()));
        assert_eq!(console.finish(NOW).last().unwrap(), "later");
    }

    #[test]
    fn lines_dropped_at_the_end_are_reported_too() {
        let mut log = tempfile::tempfile().unwrap();
        let mut console = Console::new(Some(ConsoleLog::new(log.try_clone().unwrap(), None)), None);
        console.write(0x3f8, "\n".repeat(20_003).as_bytes(), NOW);
        console.finish(NOW);
        assert!(text(&mut log).ends_with(b"\n[3 lines dropped]\n"));
    }

    #[test]
    fn the_worst_last_lines_fit_a_message() {
        for byte in 0..=u8::MAX {
            let mut console = Console::new(None, None);
            console.write(0x3f8, &[byte; LINE_BYTES * LINES], NOW);
            let details = fault::log_lines(console.finish(NOW));
            let ending = Ending { reason: Reason::Fault("triple fault".to_owned()), details };
            let (ours, _theirs) = Link::pair().unwrap();
            assert!(ours.send(&FromVmm::Ended(ending), &[], Patience::DoNotWait).is_ok(), "lines of {byte:#x}");
        }
    }

    #[test]
    fn the_transmitter_is_always_ready() {
        let mut status = [0];
        Console::new(None, None).read(0x3fd, &mut status);
        assert_eq!(status[0] & 0x20, 0x20);
    }
}
