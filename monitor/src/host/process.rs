//! The process of a guest, whether this process has started it or not.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::host::reaper;

/// Seconds that dropping waits for the process, which has been killed.
const DROP_PATIENCE_S: i64 = 1;

/// A process. Killed, and reaped where it is a child, when dropped; unless it is left.
#[derive(Debug)]
pub(in crate::host) struct Process {
    pid: u32,
    pidfd: OwnedFd,
    kin: Kin,
}

#[derive(Debug)]
enum Kin {
    /// Reaped already, or another process's child: only the end itself can be seen.
    Other,
    Child(Child),
    /// It runs on.
    Left,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Exit {
    Status(ExitStatus),
    /// Only its parent can tell.
    Unknown,
}

impl Process {
    /// Watches a child, which is killed where that fails.
    pub(in crate::host) fn of_child(child: Child) -> io::Result<Self> {
        let mut child = Orphan(Some(child));
        let pidfd = pidfd_open(Pid::from_child(child.get()), PidfdFlags::empty())?;
        Ok(Self { pid: child.get().id(), pidfd, kin: Kin::Child(child.keep()) })
    }

    /// Watches another process, which is left where nothing else is done. Its number may belong to
    /// a later process already: the caller has to hear from it after this has returned.
    pub(in crate::host) fn of_other(pid: Pid) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid: pid.as_raw_nonzero().get().unsigned_abs(), pidfd, kin: Kin::Left })
    }

    /// Makes the process one that is killed when the value is dropped.
    pub(in crate::host) fn own(&mut self) {
        if matches!(self.kin, Kin::Left) {
            self.kin = Kin::Other;
        }
    }

    /// Lets the process run on when the value is dropped.
    pub(in crate::host) fn leave(&mut self) {
        self.kin = Kin::Left;
    }

    /// Returns another descriptor of the process.
    pub(in crate::host) fn pidfd(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    pub(in crate::host) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns how long the process's threads have been ready and have waited for a processor, all
    /// together, since they began. `None` where the kernel does not count that, or the process is
    /// gone.
    pub(in crate::host) fn waited_for_processor(&self) -> Option<Duration> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?;
        let waited = threads.flatten().filter_map(|thread| {
            // Nanoseconds on a processor, nanoseconds of waiting for one, time slices.
            let counts = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            counts.split(' ').nth(1)?.parse().ok().map(Duration::from_nanos)
        });
        waited.reduce(Duration::saturating_add)
    }

    /// Returns how the process ended, once it has.
    pub(in crate::host) fn exit(&mut self) -> Option<Exit> {
        if let Kin::Child(child) = &mut self.kin {
            return child.try_wait().ok().flatten().map(Exit::Status);
        }
        self.has_ended_within(0).then_some(Exit::Unknown)
    }

    /// Kills the process. One that is gone already needs no signal.
    pub(in crate::host) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn has_ended_within(&self, seconds: i64) -> bool {
        let mut end = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let patience = Timespec { tv_sec: seconds, tv_nsec: 0 };
        rustix::io::retry_on_intr(|| poll(&mut end, Some(&patience))).is_ok_and(|ended| ended > 0)
    }
}

impl AsFd for Process {
    /// Returns a descriptor that is readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let kin = std::mem::replace(&mut self.kin, Kin::Left);
        if matches!(kin, Kin::Left) {
            return;
        }
        self.kill();
        let has_ended = self.has_ended_within(DROP_PATIENCE_S);
        match kin {
            Kin::Child(mut child) if has_ended => drop(child.wait()),
            Kin::Child(child) => reaper::leave(Orphan(Some(child))),
            Kin::Other | Kin::Left => {}
        }
    }
}

/// A child that nothing watches: killed and reaped when dropped.
struct Orphan(Option<Child>);

impl Orphan {
    fn get(&self) -> &Child {
        self.0.as_ref().expect("kept last")
    }

    fn keep(&mut self) -> Child {
        self.0.take().expect("kept once")
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
