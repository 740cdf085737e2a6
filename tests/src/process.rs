//! VMM processes of a fleet, found in `/proc`.

use std::fs;
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::guest::{DEADLINE, POLL};

/// A VMM process of a running fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmm {
    /// The guest's name.
    pub guest: String,
    pid: Pid,
}

impl Vmm {
    /// Finds the VMM processes whose parent is `supervisor`.
    pub(crate) fn children_of(supervisor: Pid) -> Vec<Self> {
        let of_supervisor = pids().filter(|&pid| status_field(pid, 1) == Some(supervisor.as_raw_nonzero().to_string()));
        of_supervisor.filter_map(|pid| Some(Self { guest: guest_name(pid)?, pid })).collect()
    }

    /// Finds the VMM process of the guest `name`, whatever its parent is; for names that no other
    /// fleet has.
    #[must_use]
    pub fn of_guest(name: &str) -> Option<Self> {
        let vmms = pids().filter_map(|pid| Some(Self { guest: guest_name(pid)?, pid }));
        vmms.filter(Self::is_alive).find(|vmm| vmm.guest == name)
    }

    /// Returns the number of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns whether the process still runs. A zombie does not; its new parent may reap it late.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        status_field(self.pid, 0).is_some_and(|state| state != "Z" && state != "X")
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When the deadline passes.
    #[track_caller]
    pub fn wait_until_gone(&self) {
        let start = Instant::now();
        while self.is_alive() {
            assert!(start.elapsed() < DEADLINE, "{self:?} has not ended in time");
            thread::sleep(POLL);
        }
    }

    /// Sends the process a signal, unless it is gone.
    pub fn signal_if_alive(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }

    /// Sends the process a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("sending {signal:?} to {self:?}: {error}"));
    }
}

/// Returns the numbers of all processes.
fn pids() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

/// Returns the field at `place` after the program's name in `/proc/PID/stat` (proc_pid_stat(5)): 0
/// is the state, 1 the parent.
fn status_field(pid: Pid, place: usize) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain any character, a parenthesis too.
    let (_, fields) = line.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(place).map(str::to_owned)
}

/// Returns the guest of a VMM process, `aerostat-vmm NAME BUILD`; `None` for a process that has
/// been forked and has not executed its program yet.
fn guest_name(pid: Pid) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split('\0');
    (words.next()? == "aerostat-vmm").then_some(())?;
    words.next().map(str::to_owned)
}
