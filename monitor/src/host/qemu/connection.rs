//! A connection to QEMU's socket: bytes between the socket, the session and the tracker.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::Pid;
use thiserror::Error;

use super::qmp::{QmpError, Received, Session};
use super::tracker::Tracker;
use crate::clock::Moment;
use crate::host::run_directory::GuestFiles;

/// Bytes that are read at a time.
const CHUNK: usize = 16 << 10;
/// The longest wait, so that a turn always ends.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Where QEMU listens.
#[derive(Clone, Debug)]
pub(super) enum Socket {
    /// At a path that a user has named.
    At(PathBuf),
    /// In the run directory.
    Of(Arc<GuestFiles>),
}

/// Why there is no connection: a phrase that follows the name of the socket.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    /// There is no socket.
    #[error("does not exist; start the machine with -qmp unix:PATH,server=on,wait=off, or correct the path")]
    Missing,
    /// Nothing listens.
    #[error("refuses the connection; its QEMU has ended, or listens on another socket")]
    Refused,
    /// Too many programs wait.
    #[error("is in use by other programs; give QEMU one more -qmp socket")]
    Busy,
    /// The user may not connect.
    #[error("may not be used; run as the user of the machine, or change the socket's permissions")]
    Forbidden,
    /// Anything else.
    #[error("can't be used: {0}")]
    Unusable(io::Error),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    session: Session,
    /// The process that listens, where it can be known.
    peer: Option<Pid>,
    is_ready: bool,
}

impl Socket {
    pub(super) fn connect(&self, now: Moment) -> Result<Connection, ConnectError> {
        let connected = match self {
            Self::At(path) => connect(path),
            Self::Of(files) => files.connect_monitor(),
        };
        let stream = UnixStream::from(connected.map_err(ConnectError::of)?);
        // Of a process in another PID namespace the kernel names 0, which is no process.
        let peer = sockopt::socket_peercred(&stream).ok().map(|credentials| credentials.pid);
        Ok(Connection { stream, session: Session::new(now), peer, is_ready: false })
    }
}

impl ConnectError {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::WouldBlock => Self::Busy,
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            _ => Self::Unusable(error),
        }
    }
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

impl Connection {
    /// Returns the process that listens on the socket.
    pub(super) fn peer(&self) -> Option<Pid> {
        self.peer
    }

    /// Sends what `tracker` has to send, waits for QEMU, for `bell` or until `until`, and passes on
    /// what QEMU says.
    ///
    /// # Errors
    ///
    /// Returns why the connection is of no use any more.
    pub(super) fn turn(
        &mut self,
        tracker: &mut Tracker,
        bell: Option<BorrowedFd<'_>>,
        until: Moment,
    ) -> Result<(), QmpError> {
        let now = Moment::now();
        while self.session.room() > 0
            && let Some(command) = tracker.next_command(now)
        {
            self.session.execute(command, now);
        }
        self.write()?;
        self.wait(tracker, bell, until, now);
        self.read(tracker)?;
        self.session.overdue(Moment::now()).map_or(Ok(()), Err)
    }

    fn write(&mut self) -> Result<(), QmpError> {
        while !self.session.output().is_empty() {
            match self.stream.write(self.session.output()) {
                Ok(0) => return Err(self.session.closed()),
                Ok(count) => self.session.sent(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The deadline of the command bounds how long QEMU may not read.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // QEMU may have said why before it closed the connection.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn wait(&self, tracker: &Tracker, bell: Option<BorrowedFd<'_>>, until: Moment, now: Moment) {
        let due = if self.session.room() > 0 { tracker.due() } else { None };
        let moments = [Some(until), due, self.session.deadline()];
        let earliest = moments.into_iter().flatten().min().unwrap_or(until);
        let patience = Timespec::try_from(earliest.since(now).min(LONGEST_WAIT)).unwrap_or_default();
        let wanted = if self.session.output().is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut sources = vec![PollFd::from_borrowed_fd(self.stream.as_fd(), wanted)];
        sources.extend(bell.map(|bell| PollFd::from_borrowed_fd(bell, PollFlags::IN)));
        // Whatever fails here is found by the read that follows.
        let _ = poll(&mut sources, Some(&patience));
    }

    fn read(&mut self, tracker: &mut Tracker) -> Result<(), QmpError> {
        let mut chunk = [0; CHUNK];
        loop {
            let count = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.session.closed()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(self.session.closed()),
            };
            let now = Moment::now();
            let (received, error) = self.session.receive(&chunk[..count], now);
            for what in received {
                match what {
                    Received::Ready => {
                        self.is_ready = true;
                        tracker.connected();
                    }
                    Received::Answer(command, result) => tracker.answered(&command, result, now),
                    Received::Event(event) => tracker.heard(event, now),
                }
            }
            if let Some(error) = error {
                return Err(error);
            }
            if count < CHUNK {
                return Ok(());
            }
        }
    }

    /// Returns whether QEMU accepts commands.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }
}
