//! The files of one guest, by which the next supervisor finds it.
//!
//! They are made before the guest's process is started, and removed by the supervisor that has
//! reported the guest's end.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::net::SocketType;

use super::folder::Folder;

/// What is needed to take the guest over.
const RECORD: &str = ".json";
/// Where its process listens for the next supervisor.
const SOCKET: &str = ".sock";
/// Where its QEMU is controlled.
const MONITOR: &str = ".qmp";
/// How it ended, written by its process.
const ENDED: &str = ".ended";

/// A guest's files.
#[derive(Debug)]
pub struct GuestFiles {
    folder: Folder,
    name: String,
}

/// Returns the names of the guests that have a record.
pub(super) fn names(folder: &Folder) -> io::Result<Vec<String>> {
    let names = folder.names()?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(RECORD)).map(str::to_owned).collect())
}

impl GuestFiles {
    pub(super) fn new(folder: Folder, name: &str) -> Self {
        Self { folder, name: name.to_owned() }
    }

    /// Returns the guest's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates the socket for the guest's process, which listens on it.
    ///
    /// # Errors
    ///
    /// Returns the system's error: `AddrInUse` where a process of this guest still listens.
    pub fn bind(&self) -> io::Result<OwnedFd> {
        if self.connect().is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let name = self.file(SOCKET);
        self.folder.remove(&name)?;
        self.folder.bind(&name, SocketType::SEQPACKET)
    }

    /// Connects to the guest's process; does not wait.
    ///
    /// # Errors
    ///
    /// Returns the system's error: `NotFound` or `ConnectionRefused` where there is no process.
    pub fn connect(&self) -> io::Result<OwnedFd> {
        self.folder.connect(&self.file(SOCKET), SocketType::SEQPACKET)
    }

    /// Creates the socket by which the guest's QEMU is controlled, and listens on it.
    ///
    /// # Errors
    ///
    /// Returns the system's error: `AddrInUse` where a QEMU of this guest still listens.
    pub fn listen_monitor(&self) -> io::Result<OwnedFd> {
        if self.connect_monitor().is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let name = self.file(MONITOR);
        self.folder.remove(&name)?;
        let socket = self.folder.bind(&name, SocketType::STREAM)?;
        rustix::net::listen(&socket, 4)?;
        Ok(socket)
    }

    /// Connects to the guest's QEMU; does not wait.
    ///
    /// # Errors
    ///
    /// Returns the system's error: `NotFound` or `ConnectionRefused` where there is no process.
    pub fn connect_monitor(&self) -> io::Result<OwnedFd> {
        self.folder.connect(&self.file(MONITOR), SocketType::STREAM)
    }

    /// Creates the empty file that the guest's process writes its end to.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn create_ended(&self) -> io::Result<File> {
        Ok(self.folder.open_file(&self.file(ENDED), OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY)?)
    }

    /// Reads what the guest's process has written at its end.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn read_ended(&self) -> io::Result<Option<Vec<u8>>> {
        self.folder.read(&self.file(ENDED))
    }

    /// Writes the guest's record, as a whole.
    ///
    /// # Errors
    ///
    /// Returns the system's error; then the old record is there.
    pub fn write_record(&self, bytes: &[u8]) -> io::Result<()> {
        self.folder.write_atomically(&self.file(RECORD), bytes)
    }

    /// Reads the guest's record; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn read_record(&self) -> io::Result<Option<Vec<u8>>> {
        self.folder.read(&self.file(RECORD))
    }

    /// Removes the files. The record goes last: as long as it is there, the others are found.
    pub fn remove(&self) {
        for kind in [SOCKET, MONITOR, ENDED, RECORD] {
            // What can't be removed is reported by the next supervisor once more.
            let _ = self.folder.remove(&self.file(kind));
        }
    }

    fn file(&self, kind: &str) -> String {
        format!("{}{kind}", self.name)
    }
}
