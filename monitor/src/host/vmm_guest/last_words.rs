//! What a VMM process writes to its standard error: why it aborts, or what its jail forbids. It is
//! read when the process has ended.

use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};

use aerostat_vmm::jail::VIOLATION;

/// Bytes that are read; a process may write as many as the pipe holds.
const MOST_BYTES: u64 = 4096;
/// Lines of the report of a guest's end.
const MOST_LINES: usize = 16;

/// The reading end of a process's standard error.
#[derive(Debug)]
pub(super) struct LastWords(OwnedFd);

/// Returns a pipe, of which neither end ever waits.
pub(super) fn pipe() -> std::io::Result<(LastWords, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok((LastWords(ours), theirs))
}

impl LastWords {
    /// Returns what is in the pipe, as lines without control characters.
    pub(super) fn read(&self) -> Vec<String> {
        let mut bytes = Vec::new();
        // It ends with an error where a copy of the other end is open.
        let _ = self.0.try_clone().map(std::fs::File::from).map(|pipe| pipe.take(MOST_BYTES).read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        text.lines().take(MOST_LINES).map(|line| line.replace(char::is_control, "\u{fffd}")).collect()
    }
}

/// Returns the line that says which system call the jail has forbidden.
pub(super) fn violation(lines: &[String]) -> Option<&String> {
    lines.iter().find(|line| line.starts_with(VIOLATION))
}

#[cfg(test)]
mod tests {
    use super::{MOST_LINES, pipe, violation};
    use rustix::io::write;

    #[test]
    fn words_are_bounded_and_tame() {
        let (words, theirs) = pipe().unwrap();
        while write(&theirs, b"a\x1b[31mb\xff\n").is_ok() {}
        let read = words.read();
        assert_eq!((read.len(), read[0].as_str()), (MOST_LINES, "a\u{fffd}[31mb\u{fffd}"));
    }

    #[test]
    fn a_violation_is_found_among_them() {
        let (words, theirs) = pipe().unwrap();
        assert!(words.read().is_empty());
        write(&theirs, b"other\nthe jail of its process forbids the system call openat (257)\n").unwrap();
        drop(theirs);
        let lines = words.read();
        assert_eq!(violation(&lines), Some(&lines[1]));
    }
}
