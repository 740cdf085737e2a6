//! The log of a guest's console: bounded in size, and it says what is missing.
//!
//! * A guest may write [`LOGGED`]; lines beyond that rate are dropped.
//! * When the log reaches [`MOST_BYTES`], it becomes the previous generation, whose contents are
//!   lost. This process has two open files and no directory, so it copies the contents and empties
//!   the log, as logrotate's `copytruncate` does.
//! * Lines that can't be written, because the disk is full, are dropped. The log tries again a
//!   second later.
//!
//! The log says how many lines are missing where, and why.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::time::Duration;

use aerostat_link::clock::Moment;
use aerostat_link::token_bucket::{Allowance, TokenBucket};

/// The lines that go to the log: 10 MiB at once, then 100 KiB a second, if they have the full
/// length.
pub(super) const LOGGED: Allowance = Allowance { per_second: 200, burst: 20_000 };
/// Bytes at which the log is rotated. The copy takes some milliseconds, at most every 160 s in the
/// long run.
const MOST_BYTES: u64 = 16 << 20;
/// Time between attempts to write to a log that failed.
const RETRY: Duration = Duration::from_secs(1);

/// A console log.
#[derive(Debug)]
pub(super) struct ConsoleLog {
    current: File,
    /// Where the contents of a full log go.
    previous: Option<File>,
    bytes: u64,
    allowed: TokenBucket,
    /// Lines that the log did not get, and how many of them it has not reported.
    dropped: u64,
    unnoted: u64,
    failure: Option<Failure>,
}

/// Why the log can't be written to.
#[derive(Debug)]
struct Failure {
    error: io::Error,
    /// The last line is there in part.
    is_torn: bool,
    retry_at: Moment,
}

impl ConsoleLog {
    /// Creates a log in `current`, which is empty and open for reading and appending. Its previous
    /// generation goes to `previous`.
    pub(super) fn new(current: File, previous: Option<File>) -> Self {
        let allowed = TokenBucket::new(LOGGED);
        Self { current, previous, bytes: 0, allowed, dropped: 0, unnoted: 0, failure: None }
    }

    /// Returns how many lines the log did not get.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Appends a line, which includes its line feed.
    pub(super) fn append(&mut self, line: &[u8], now: Moment) {
        let is_hopeless = self.failure.as_ref().is_some_and(|failure| now < failure.retry_at);
        let is_written = !is_hopeless && self.allowed.take(now) && self.note_dropped(now) && self.write(line, now);
        if !is_written {
            self.dropped += 1;
            self.unnoted += 1;
        }
    }

    /// Reports in the log what is missing; returns whether that succeeded.
    pub(super) fn note_dropped(&mut self, now: Moment) -> bool {
        if self.unnoted == 0 {
            return true;
        }
        let note = match &self.failure {
            None => format!("[{} lines dropped]\n", self.unnoted),
            Some(Failure { error, is_torn, .. }) => {
                let gap = if *is_torn { "\n" } else { "" };
                format!("{gap}[{} lines dropped: {error}]\n", self.unnoted)
            }
        };
        let is_noted = self.write(note.as_bytes(), now);
        if is_noted {
            self.unnoted = 0;
            self.failure = None;
        }
        is_noted
    }

    /// Writes all of `bytes`, or as much as possible; returns whether it was all.
    fn write(&mut self, bytes: &[u8], now: Moment) -> bool {
        if self.bytes + bytes.len() as u64 > MOST_BYTES {
            self.begin_anew();
        }
        let mut left = bytes;
        while !left.is_empty() {
            let written = match self.current.write(left) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                other => other,
            };
            match written {
                Ok(count) => {
                    self.bytes += count as u64;
                    left = &left[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let was_torn = self.failure.as_ref().is_some_and(|failure| failure.is_torn);
                    let is_torn = left.len() < bytes.len() || was_torn;
                    self.failure = Some(Failure { error, is_torn, retry_at: now.after(RETRY) });
                    return false;
                }
            }
        }
        true
    }

    /// Makes the log the previous generation. Where it can't be kept, its contents are lost: the
    /// size must stay bounded.
    fn begin_anew(&mut self) {
        let kept = match &mut self.previous {
            Some(previous) => keep(&mut self.current, previous),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let note = match kept {
            Ok(()) => "[the log was full and goes on here; the file with \".1\" behind its name has what was before]\n",
            Err(_) => "[the log was full and goes on here; what was before is lost]\n",
        };
        // Where the log can't even be emptied, its size stays, and the next line tries again.
        if self.current.set_len(0).is_ok() {
            self.bytes = note.len() as u64;
            let _ = self.current.write_all(note.as_bytes());
        }
    }
}

/// Copies `current` over `previous`.
fn keep(current: &mut File, previous: &mut File) -> io::Result<()> {
    previous.set_len(0)?;
    previous.rewind()?;
    current.rewind()?;
    io::copy(current, previous).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{ConsoleLog, LOGGED, MOST_BYTES};
    use aerostat_link::clock::Moment;
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use std::fs::{self, File, OpenOptions};
    use std::io::Read;
    use std::time::Duration;

    const NOW: Moment = Moment::from_ns(1 << 40);

    #[test]
    fn a_guest_that_writes_for_ever_has_a_log_of_bounded_size() {
        let directory = tempfile::tempdir().unwrap();
        let open = |name| {
            let mut options = OpenOptions::new();
            options.read(true).create(true).append(name == "log").write(true).open(directory.path().join(name)).unwrap()
        };
        let mut log = ConsoleLog::new(open("log"), Some(open("log.1")));
        let mut now = NOW;
        let line = [b"x".repeat(511), b"\n".to_vec()].concat();
        for _ in 0..3 * MOST_BYTES / line.len() as u64 {
            log.append(&line, now);
            now = now.after(Duration::from_secs(1) / LOGGED.per_second);
        }
        let bytes = |name| fs::metadata(directory.path().join(name)).unwrap().len();
        assert_eq!(log.dropped(), 0);
        assert!(bytes("log") <= MOST_BYTES && bytes("log.1") <= MOST_BYTES, "{} and {}", bytes("log"), bytes("log.1"));
        assert!(bytes("log.1") > MOST_BYTES - 1024, "the generation before is there as a whole");
        let text = fs::read_to_string(directory.path().join("log")).unwrap();
        assert!(text.starts_with("[the log was full and goes on here; the file with"), "{}", &text[..100]);
    }

    /// A log that accepts nothing until it is read, like a full disk.
    fn pipe() -> (File, ConsoleLog) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        for end in [&reader, &writer] {
            fcntl_setfl(end, fcntl_getfl(end).unwrap() | OFlags::NONBLOCK).unwrap();
        }
        (reader.into(), ConsoleLog::new(writer.into(), None))
    }

    fn read(reader: &mut File) -> String {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_log_that_was_full_goes_on_and_says_what_is_missing() {
        let (mut reader, mut log) = pipe();
        let line = format!("{}\n", "x".repeat(9_999));
        for _ in 0..20 {
            log.append(line.as_bytes(), NOW);
        }
        let dropped = log.dropped();
        assert!((1..20).contains(&dropped));
        let text = read(&mut reader);
        log.append(b"too soon\n", NOW);
        let later = NOW.after(Duration::from_secs(2));
        log.append(b"again\n", later);
        log.append(b"and again\n", later);
        let note = format!("[{} lines dropped: Resource temporarily unavailable (os error 11)]\n", dropped + 1);
        let gap = if text.ends_with('\n') { "" } else { "\n" };
        assert_eq!(read(&mut reader), format!("{gap}{note}again\nand again\n"));
        assert_eq!(log.dropped(), dropped + 1);
    }
}
