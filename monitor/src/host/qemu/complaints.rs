//! What QEMU writes to standard error: why it does not start, in most cases.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::qmp::printable;

/// Bytes of the output that are read, from its end.
const READ: usize = 4096;
/// Lines that are shown.
const LINES: usize = 4;

/// A file without a name that QEMU's standard error goes to.
#[derive(Debug)]
pub(super) struct Complaints(File);

impl Complaints {
    pub(super) fn new() -> io::Result<Self> {
        tempfile::tempfile().map(Self)
    }

    /// Returns the file for QEMU to write to.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// Returns the last lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let length = self.0.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = vec![0; READ];
        let count = self.0.read_at(&mut bytes, length.saturating_sub(READ as u64)).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..count]);
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).map(printable).collect();
        lines[lines.len().saturating_sub(LINES)..].to_vec()
    }

    /// Returns the last line, less QEMU's own name.
    pub(super) fn last(&self) -> Option<String> {
        let line = self.lines().pop()?;
        Some(
            line.split_once(": ")
                .filter(|(name, _)| name.starts_with("qemu"))
                .map_or(line.clone(), |(_, why)| why.into()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Complaints;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_shown() {
        let complaints = Complaints::new().unwrap();
        assert_eq!((complaints.lines(), complaints.last()), (vec![], None));
        let mut writer = complaints.writer().unwrap();
        for number in 0..2000 {
            writeln!(writer, "qemu-system-x86_64: line {number}\x1b").unwrap();
        }
        assert_eq!(complaints.lines().len(), 4);
        assert_eq!(complaints.last().unwrap(), "line 1999\u{fffd}");
    }
}
