//! Reading a log that its writer rotates.
//!
//! A guest's process empties a full log after it has copied the contents to the previous generation
//! (`host/log_file.rs`); a guest that starts again gets a new file. Neither loses a line here: what
//! was not read yet is in the previous generation, or in the file that is still open.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hyper::body::Bytes;

use crate::host::log_file::previous;

/// Bytes that are read at a time.
const PART_BYTES: usize = 64 << 10;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At the beginning of the file.
    Beginning,
    /// At the last so many lines, in the previous generation where the file has fewer.
    Last(usize),
}

/// A log that is read from its beginning to its end, and further.
#[derive(Debug)]
pub(super) struct LogReader {
    path: PathBuf,
    current: Place,
    /// What comes first, of the previous generation.
    earlier: Option<Place>,
}

/// A place in a file.
#[derive(Debug)]
struct Place {
    file: File,
    offset: u64,
}

impl LogReader {
    /// Opens the log at `path`.
    pub(super) fn open(path: &Path, start: Start) -> io::Result<Self> {
        let mut current = Place::open(path)?;
        let mut earlier = None;
        if let Start::Last(lines) = start {
            let missing = current.seek_last(lines)?;
            if missing > 0
                && let Ok(mut place) = Place::open(&previous(path))
            {
                place.seek_last(missing)?;
                earlier = Some(place);
            }
        }
        Ok(Self { path: path.to_owned(), current, earlier })
    }

    /// Returns what comes next; `None` where nothing has been added.
    pub(super) fn read(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(earlier) = &mut self.earlier {
                match earlier.read()? {
                    Some(part) => return Ok(Some(part)),
                    None => self.earlier = None,
                }
            }
            let metadata = self.current.file.metadata()?;
            if metadata.len() < self.current.offset {
                // It was emptied: the rest of the old contents is in the previous generation.
                let offset = std::mem::take(&mut self.current.offset);
                self.earlier = Place::open(&previous(&self.path)).ok().map(|place| Place { offset, ..place });
                continue;
            }
            if let Some(part) = self.current.read()? {
                return Ok(Some(part));
            }
            match Place::open(&self.path) {
                Ok(new) if new.file.metadata()?.ino() != metadata.ino() => self.current = new,
                // Between two starts there may be none.
                _ => return Ok(None),
            }
        }
    }
}

impl Place {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(Self { file, offset: 0 })
    }

    fn read(&mut self) -> io::Result<Option<Bytes>> {
        let mut part = vec![0; PART_BYTES];
        let count = self.file.read_at(&mut part, self.offset)?;
        part.truncate(count);
        self.offset += count as u64;
        Ok(Some(part.into()).filter(|part: &Bytes| !part.is_empty()))
    }

    /// Goes to the last so many lines; returns how many of them the file does not have.
    fn seek_last(&mut self, lines: usize) -> io::Result<usize> {
        let mut end = self.file.metadata()?.len();
        self.offset = end;
        let mut missing = lines;
        let mut part = vec![0; PART_BYTES];
        // A line begins at the file's begin and after each line feed but the last.
        let mut is_last = true;
        while end > 0 && missing > 0 {
            let begin = end.saturating_sub(PART_BYTES as u64);
            let part = &mut part[..usize::try_from(end - begin).unwrap_or(PART_BYTES)];
            self.file.read_exact_at(part, begin)?;
            for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let next = begin + index as u64 + 1;
                if std::mem::take(&mut is_last) && next == self.offset {
                    continue;
                }
                missing -= 1;
                if missing == 0 {
                    self.offset = next;
                    return Ok(0);
                }
            }
            is_last = false;
            end = begin;
        }
        if missing > 0 {
            missing -= usize::from(self.offset > 0);
            self.offset = 0;
        }
        Ok(missing)
    }
}

/// Returns the last lines of the log at `path`, none where it can't be read.
pub(super) fn last_lines(path: &Path, lines: usize) -> Vec<String> {
    let mut text = Vec::new();
    if let Ok(mut reader) = LogReader::open(path, Start::Last(lines)) {
        while let Ok(Some(part)) = reader.read() {
            text.extend_from_slice(&part);
        }
    }
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{LogReader, Start, last_lines};
    use crate::host::log_file::{begin, previous};
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    fn rest(reader: &mut LogReader) -> String {
        let mut text = Vec::new();
        while let Some(part) = reader.read().unwrap() {
            text.extend_from_slice(&part);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_last_lines_may_reach_into_the_previous_generation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.log");
        fs::write(previous(&path), "one\ntwo\nthree\n").unwrap();
        fs::write(&path, "four\nfive").unwrap();
        for (lines, text) in [
            (0, ""),
            (1, "five"),
            (2, "four\nfive"),
            (3, "three\nfour\nfive"),
            (5, "one\ntwo\nthree\nfour\nfive"),
            (9, "one\ntwo\nthree\nfour\nfive"),
        ] {
            assert_eq!(rest(&mut LogReader::open(&path, Start::Last(lines)).unwrap()), text, "{lines}");
        }
        assert_eq!(rest(&mut LogReader::open(&path, Start::Beginning).unwrap()), "four\nfive");
        assert_eq!(last_lines(&path, 3), ["three", "four", "five"]);
        assert!(last_lines(&directory.path().join("none.log"), 3).is_empty());
    }

    #[test]
    fn lines_are_found_across_parts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.log");
        let lines: Vec<String> = (0..30_000).map(|number| number.to_string()).collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        for count in [1, 2, 11_000, 25_000, 30_000] {
            assert_eq!(last_lines(&path, count), lines[30_000 - count..], "{count}");
        }
    }

    #[test]
    fn no_line_is_lost_when_a_log_is_emptied_or_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.log");
        let mut log = begin(&path).unwrap();
        log.write_all(b"one\n").unwrap();
        let mut reader = LogReader::open(&path, Start::Beginning).unwrap();
        assert_eq!(rest(&mut reader), "one\n");
        // As a full log is rotated: its contents are copied, then it is emptied.
        log.write_all(b"two\n").unwrap();
        fs::write(previous(&path), "one\ntwo\n").unwrap();
        log.set_len(0).unwrap();
        log.write_all(b"3\n").unwrap();
        assert_eq!(rest(&mut reader), "two\n3\n");
        // As a guest starts again.
        log.write_all(b"four\n").unwrap();
        begin(&path).unwrap().write_all(b"five\n").unwrap();
        assert_eq!(rest(&mut reader), "four\nfive\n");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"six\n").unwrap();
        assert_eq!(rest(&mut reader), "six\n");
    }

    #[test]
    fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("web.log"), directory.path().join("victim"));
        fs::write(&victim, "secret").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(LogReader::open(&path, Start::Beginning).is_err());
        assert!(LogReader::open(directory.path(), Start::Beginning).is_err());
    }
}
