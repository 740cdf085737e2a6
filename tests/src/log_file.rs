//! The file to which a guest's serial port writes, read while the guest runs.

use std::fs;
use std::path::{Path, PathBuf};

/// The path of a log, whose file need not exist yet.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
}

impl LogFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what was written so far. A guest that has not written yet has no file.
    pub(crate) fn text(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns the first whole line that contains `text`.
    pub(crate) fn line_with(&self, text: &str) -> Option<String> {
        let log = self.text();
        let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.find(|line| line.contains(text)).map(|line| line.trim_end().to_owned())
    }
}
