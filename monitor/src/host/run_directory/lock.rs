//! The lock that says that a fleet's supervisor runs. The kernel releases it with the process.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::folder::Folder;

/// The lock's file.
const LOCK: &str = "lock";
/// How often a lock is tried whose holder does not run: a process that it has just forked still
/// shares its descriptors, and a client that lists fleets holds the lock for a moment.
const TRIES: u32 = 200;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// A held lock.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    Taken(Lock),
    /// A process holds it; its number where it is known.
    HeldBy(Option<u32>),
    /// The directory was removed meanwhile.
    Gone,
}

impl Lock {
    /// Takes the lock of `folder`, and writes this process's number into it.
    pub(super) fn take(folder: &Folder) -> io::Result<Attempt> {
        let mut file = match folder.open_file(LOCK, OFlags::CREATE | OFlags::RDWR) {
            Err(Errno::NOENT) => return Ok(Attempt::Gone),
            opened => opened?,
        };
        for _ in 0..TRIES {
            if try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())?;
                return Ok(Attempt::Taken(Self { _file: file }));
            }
            let holder = read_holder(&mut file);
            if holder.is_some_and(runs) {
                return Ok(Attempt::HeldBy(holder));
            }
            thread::sleep(PAUSE);
        }
        Ok(Attempt::HeldBy(None))
    }

    /// Returns the process that holds the lock of `folder`, if one does.
    pub(super) fn holder(folder: &Folder) -> Option<u32> {
        let mut file = folder.open_file(LOCK, OFlags::RDONLY).ok()?;
        let is_free = try_lock(&file, FlockOperation::NonBlockingLockShared).unwrap_or(true);
        if is_free { None } else { read_holder(&mut file) }
    }
}

fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.parse().ok()
}

fn runs(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    // A process of another user's is no supervisor of this fleet's, but it runs.
    process.is_some_and(|process| test_kill_process(process) != Err(Errno::SRCH))
}
