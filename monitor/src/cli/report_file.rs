//! The file of a report: the old one stays as it is until the new one is complete.
//!
//! The report is written to a temporary file in the same directory, which takes the report's name
//! by one rename. So a reader never sees half a report, a run that fails leaves the old one behind,
//! and a symbolic link is not followed.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use super::Failure;
use crate::display::Sink;

/// A report that has no name yet. A value that is dropped leaves nothing behind.
#[derive(Debug)]
struct ReportFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

/// Why a report can't have this name: a sentence without the name.
#[derive(Debug, thiserror::Error)]
enum ReportFileError {
    #[error("is not a regular file; name a new file, or one to be replaced")]
    NotRegular,
    #[error("can't be written: {0}; choose another place")]
    Unwritable(#[from] io::Error),
}

impl ReportFile {
    /// Creates the temporary file for a report at `path`, which shows that the directory can be
    /// written to.
    fn create(path: &Path) -> Result<Self, ReportFileError> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() => return Err(ReportFileError::NotRegular),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        if path.file_name().is_none() {
            return Err(ReportFileError::NotRegular);
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As for any new file: the creation mask restricts them.
        let permissions = Permissions::from_mode(0o666);
        let temporary = Builder::new().prefix(".report-").permissions(permissions).tempfile_in(directory)?;
        Ok(Self { path: path.to_owned(), temporary })
    }

    /// Writes the report by `write`, and gives it its name.
    fn publish(mut self, write: impl FnOnce(&mut NamedTempFile) -> io::Result<()>) -> io::Result<()> {
        write(&mut self.temporary)?;
        self.temporary.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// A file that a user has named for a report or a plot.
#[derive(Debug)]
pub(super) struct NamedFile<'a> {
    path: &'a Path,
    /// What it is for, in a word.
    purpose: &'static str,
    file: ReportFile,
}

impl<'a> NamedFile<'a> {
    /// Checks before a run that the file can be written after it.
    pub(super) fn create(path: &'a Path, purpose: &'static str) -> Result<Self, Failure> {
        let file = ReportFile::create(path);
        let file = file.map_err(|error| Failure::refused(format!("{}: the {purpose} {error}", path.display())))?;
        Ok(Self { path, purpose, file })
    }

    /// Writes `text`, and gives the file its name. A disk that does not answer is given up.
    pub(super) fn publish(self, text: String) -> Result<(), Failure> {
        let written = self.file.publish(|file| {
            let sink = Sink::to_descriptor(file.as_file())?;
            sink.last_text(text);
            sink.finish().map_err(io::Error::other)
        });
        let (path, purpose) = (self.path, self.purpose);
        written.map_err(|error| failure(path, purpose, format_args!("can't be written: {error}")))
    }

    /// Returns the failure to make the file's contents; `what` follows the file's purpose.
    pub(super) fn failure(&self, what: fmt::Arguments<'_>) -> Failure {
        failure(self.path, self.purpose, what)
    }
}

fn failure(path: &Path, purpose: &str, what: fmt::Arguments<'_>) -> Failure {
    Failure::broken(format!("{}: the {purpose} {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{ReportFile, ReportFileError};
    use std::fs;
    use std::io::{self, Write};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_report_stays_until_the_new_one_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        fs::write(&path, "old").unwrap();
        let report = ReportFile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        drop(report);
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), fs::read_dir(directory.path()).unwrap().count()),
            ("old", 1)
        );

        let broken = ReportFile::create(&path).unwrap();
        assert!(broken.publish(|_| Err(io::ErrorKind::StorageFull.into())).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");

        ReportFile::create(&path).unwrap().publish(|file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn nothing_but_a_regular_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (link, victim) = (directory.path().join("link"), directory.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &link).unwrap();
        let refused = |path: &Path| ReportFile::create(path).unwrap_err();
        for path in [&link, directory.path(), Path::new("/dev/null"), Path::new("/dev/stdout"), Path::new("/")] {
            assert!(matches!(refused(path), ReportFileError::NotRegular), "{}", path.display());
        }
        assert!(matches!(refused(&directory.path().join("nowhere/report")), ReportFileError::Unwritable(_)));
        assert_eq!((fs::read_to_string(&victim).unwrap().as_str(), names(directory.path()).len()), ("precious", 2));
        fs::remove_file(&victim).unwrap();
        assert!(matches!(refused(&link), ReportFileError::NotRegular), "a link that leads nowhere is a link");
    }
}
