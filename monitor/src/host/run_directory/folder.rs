//! An open directory of the user's own, and what is done in it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;

use super::{RunDirectoryError, UNFINISHED};

/// The longest file that is read.
const LONGEST_FILE: u64 = 16 << 20;

/// A directory.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Opens the directory at `path`, which must be the user's own; makes it and its parents where
    /// they are missing.
    pub(super) fn open_own(path: &Path) -> Result<Self, RunDirectoryError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let unusable = |source| RunDirectoryError::Unusable { path: path.to_owned(), source };
            std::fs::create_dir_all(parent).map_err(unusable)?;
        }
        open_own_at(CWD, path, path)
    }

    /// Opens a directory in this one, in the same way. `path` is for messages.
    pub(super) fn open_own_below(&self, name: &str, path: &Path) -> Result<Self, RunDirectoryError> {
        open_own_at(self.0.as_fd(), name.as_ref(), path)
    }

    /// Opens an existing directory; `None` if there is none.
    pub(super) fn open_existing(path: &Path) -> io::Result<Option<Self>> {
        match open_directory(CWD, path) {
            Ok(folder) => Ok(Some(Self(folder))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn open_existing_below(&self, name: &str) -> io::Result<Self> {
        Ok(Self(open_directory(self.0.as_fd(), name.as_ref())?))
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Returns whether `name` still leads to `folder`.
    pub(super) fn still_has(&self, name: &str, folder: &Self) -> bool {
        let (Ok(named), Ok(open)) =
            (rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW), rustix::fs::fstat(&folder.0))
        else {
            return false;
        };
        (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino)
    }

    /// Opens a file in the directory, never through a link, with mode 0600 where it is made.
    pub(super) fn open_file(&self, name: &str, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    pub(super) fn write_atomically(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Threads may write at the same time.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unfinished = format!("{UNFINISHED}{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut file = self.open_file(&unfinished, OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY)?;
        let written =
            file.write_all(bytes).and_then(|()| Ok(rustix::fs::renameat(&self.0, &unfinished, &self.0, name)?));
        if written.is_err() {
            let _ = self.remove(&unfinished);
        }
        written
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open_file(name, OFlags::RDONLY) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST_FILE { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(bytes)) }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what was not finished when its writer ended.
    pub(super) fn remove_unfinished(&self) -> io::Result<()> {
        self.names()?.iter().filter(|name| name.starts_with(UNFINISHED)).try_for_each(|name| self.remove(name))
    }

    /// Removes the directory `name`, which is `folder`, with its files and its one directory.
    pub(super) fn remove_tree(&self, name: &str, folder: &Self, inner: &str) {
        // What can't be removed is found again by the fleet's next supervisor.
        for file in folder.names().unwrap_or_default() {
            let _ = folder.remove(&file);
        }
        let _ = rustix::fs::unlinkat(&folder.0, inner, AtFlags::REMOVEDIR);
        let _ = rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR);
    }

    /// Returns the names of what is in the directory, sorted.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let entries = Dir::read_from(&self.0)?;
        let mut names = Vec::new();
        for entry in entries {
            // Names that are not UTF-8 are not ours.
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    /// Creates a socket named `name`, with mode 0600, which does not listen yet.
    pub(super) fn bind(&self, name: &str, kind: SocketType) -> io::Result<OwnedFd> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        // The mode of the name comes from the socket's.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &self.address(name)?)?;
        Ok(socket)
    }

    /// Connects to a socket of the directory, without waiting.
    pub(super) fn connect(&self, name: &str, kind: SocketType) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        rustix::net::connect(&socket, &self.address(name)?)?;
        Ok(socket)
    }

    /// Connects to a stream socket of the directory.
    pub(super) fn connect_stream(&self, name: &str) -> io::Result<UnixStream> {
        UnixStream::connect(self.path_of(name))
    }

    fn address(&self, name: &str) -> io::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new(self.path_of(name))?)
    }

    /// Returns a short path to what is in the directory. The kernel takes at most 108 bytes as a
    /// socket's address.
    fn path_of(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }
}

fn open_own_at(parent: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<Folder, RunDirectoryError> {
    let unusable = |error: Errno| RunDirectoryError::Unusable { path: path.to_owned(), source: error.into() };
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(unusable(error)),
    }
    let folder = open_directory(parent, name).map_err(unusable)?;
    let stat = rustix::fs::fstat(&folder).map_err(unusable)?;
    let problem = if stat.st_uid != geteuid().as_raw() {
        "belongs to another user"
    } else if Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        "can be used by other users"
    } else {
        return Ok(Folder(folder));
    };
    Err(RunDirectoryError::Exposed { path: path.to_owned(), problem })
}

fn open_directory(parent: BorrowedFd<'_>, name: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    debug_assert_eq!(
        rustix::fs::fstat(&folder).map(|stat| FileType::from_raw_mode(stat.st_mode)),
        Ok(FileType::Directory)
    );
    Ok(folder)
}
