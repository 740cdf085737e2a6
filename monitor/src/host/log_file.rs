//! Log files: each run begins new ones, and keeps one generation of the old contents. A run that
//! goes on after its supervisor was replaced appends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The suffix of the previous generation's name.
const PREVIOUS: &str = ".1";

/// Returns the name of the generation before the log at `path`.
#[must_use]
pub fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PREVIOUS);
    name.into()
}

/// Makes an empty log at `path`, to be read and appended to. An existing log becomes the previous
/// generation.
///
/// # Errors
///
/// Fails where the directory can't be written to, or either name belongs to something that is not a
/// regular file.
pub fn begin(path: &Path) -> io::Result<File> {
    check_regular(&previous(path))?;
    if check_regular(path)? {
        fs::rename(path, previous(path))?;
    }
    OpenOptions::new().read(true).append(true).create_new(true).open(path)
}

/// Opens the log at `path` to be read and appended to, and makes it where there is none.
///
/// # Errors
///
/// The same as for [`begin`].
pub fn append(path: &Path) -> io::Result<File> {
    check_regular(path)?;
    OpenOptions::new().read(true).append(true).create(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Opens the previous generation of the log at `path`, empty if there is none, to be overwritten.
///
/// # Errors
///
/// The same as for [`begin`].
pub fn open_previous(path: &Path) -> io::Result<File> {
    let path = previous(path);
    check_regular(&path)?;
    OpenOptions::new().write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Makes the log at `path` the previous generation and empties it, where it has more than `limit`
/// bytes: for a log that another process appends to. What that appends meanwhile may be lost.
///
/// # Errors
///
/// The same as for [`begin`].
pub fn cut(path: &Path, limit: u64) -> io::Result<()> {
    let log = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let length = log.metadata()?.len();
    if length <= limit {
        return Ok(());
    }
    let mut previous = open_previous(path)?;
    previous.set_len(0)?;
    io::copy(&mut (&log).take(limit), &mut previous)?;
    log.set_len(0)
}

/// Checks whether there is something at `path`, which must then be a regular file.
fn check_regular(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(io::Error::other(format!("{} is there and is not a regular file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{begin, cut, open_previous, previous};
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_run_has_a_log_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guest.log");
        for run in ["first", "second", "third"] {
            begin(&path).unwrap().write_all(run.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "third");
        assert_eq!(fs::read_to_string(previous(&path)).unwrap(), "second");
        open_previous(&path).unwrap();
        assert_eq!(fs::read_to_string(previous(&path)).unwrap(), "second", "nothing is lost before there is more");
    }

    #[test]
    fn a_log_that_grows_too_long_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guest.log");
        let mut log = begin(&path).unwrap();
        log.write_all(b"0123456789").unwrap();
        cut(&path, 10).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0123456789");
        log.write_all(b"more").unwrap();
        cut(&path, 10).unwrap();
        log.write_all(b"next").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "next", "it is appended to");
        assert_eq!(fs::read_to_string(previous(&path)).unwrap(), "0123456789");
    }

    #[test]
    fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("guest.log"), directory.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        assert!(begin(&path).is_err());
        fs::remove_file(&path).unwrap();
        symlink(&victim, previous(&path)).unwrap();
        assert!(begin(&path).is_err() && open_previous(&path).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}
