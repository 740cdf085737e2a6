//! Taking a machine of another program into the fleet.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use rustix::process::Pid;
use thiserror::Error;

use super::connection::{ConnectError, Connection, Socket};
use super::guest::{Ownership, Parts, QemuGuest};
use super::memory::StatusFile;
use super::qmp::QmpError;
use super::tracker::{Owner, Tracker};
use super::worker::{Desk, Worker};
use crate::clock::Moment;
use crate::fleet::DetachRule;
use crate::host::Origin;
use crate::host::process::Process;

/// How long a machine may take to say what it is. Each of its answers has a shorter deadline.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a machine was not attached. It is as it was.
#[derive(Debug, Error)]
pub enum AttachError {
    /// There is no connection.
    #[error("the QMP socket {} {why}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The machine is this program's own process.
    #[error("the QMP socket {} belongs to this program; name that of a QEMU", .0.display())]
    Own(PathBuf),
    /// Something of the system can't be had.
    #[error("a machine can't be attached: {0}")]
    SetUp(#[from] std::io::Error),
}

impl QemuGuest {
    /// Takes the machine with this QMP socket into the fleet. For a thread that may wait.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    pub fn attach(path: PathBuf, rule: DetachRule) -> Result<Self, AttachError> {
        let socket = Socket::At(path.clone());
        let failed = |error: ConnectError| AttachError::Socket { path: path.clone(), why: error.to_string() };
        let connection = socket.connect(Moment::now()).map_err(failed)?;
        if connection.peer() == Some(rustix::process::getpid()) {
            return Err(AttachError::Own(path));
        }
        Self::attach_over(connection, path, rule)
    }

    pub(super) fn attach_over(connection: Connection, path: PathBuf, rule: DetachRule) -> Result<Self, AttachError> {
        let socket = Socket::At(path.clone());
        let (tracker, connection) = find_out(connection, Tracker::new(Owner::Others))
            .map_err(|error| AttachError::Socket { path, why: format!("can't be used: {error}") })?;
        let peer = connection.peer();
        let watched = peer.and_then(Watched::new);
        let machine = tracker.machine().unwrap_or_default();
        let size = tracker.size().unwrap_or(machine);
        let desk = Arc::new(Desk::new(tracker.observation())?);
        let (process, status) = watched.map(|watched| (watched.process, Arc::new(watched.status))).unzip();
        let worker =
            Worker { socket, process: peer, tracker, desk: Arc::clone(&desk), status: status.clone(), log: None };
        worker.start(connection)?;
        let origin = Origin::Found { machine, size };
        Ok(Self::new(Parts { desk, ownership: Ownership::Others(rule), origin, process, status })?)
    }
}

/// Returns the memory of the process that listens on a socket; `None` where there is none.
pub fn resident_behind(socket: &Path) -> Option<FrameCount> {
    let connection = Socket::At(socket.to_owned()).connect(Moment::now()).ok()?;
    Some(StatusFile::open(connection.peer()?)?.read()?.resident)
}

/// A process that was heard from after it was opened, so that its number can't have passed to
/// another.
pub(super) struct Watched {
    pub(super) process: Process,
    pub(super) status: StatusFile,
}

impl Watched {
    fn new(pid: Pid) -> Option<Self> {
        Some(Self { process: Process::of_other(pid).ok()?, status: StatusFile::open(pid)? })
    }

    /// Watches a process whose number is `pid`, and which was not reaped.
    pub(super) fn of(process: Process, pid: Pid) -> std::io::Result<Self> {
        let status = StatusFile::open(pid).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(Self { process, status })
    }
}

/// Asks what the machine is.
pub(super) fn find_out(mut connection: Connection, mut tracker: Tracker) -> Result<(Tracker, Connection), QmpError> {
    let until = Moment::now().after(PATIENCE);
    while !tracker.is_known() {
        connection.turn(&mut tracker, None, until)?;
        if Moment::now() >= until {
            return Err(QmpError::NoAnswer("what the machine is"));
        }
    }
    Ok((tracker, connection))
}
