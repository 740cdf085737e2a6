//! Processes of this host, by what `/proc` says of them.

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
    /// The VMM processes whose parent is `supervisor`.
    pub(crate) fn children_of(supervisor: Pid) -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("/proc can be read");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
        let of_supervisor = pids.filter(|&pid| status_field(pid, 1) == Some(supervisor.as_raw_nonzero().to_string()));
        of_supervisor.filter_map(|pid| Some(Self { guest: guest_name(pid)?, pid })).collect()
    }

    /// Whether it still runs: a zombie does not, and its new parent may take its time to reap it.
    fn is_alive(&self) -> bool {
        status_field(self.pid, 0).is_some_and(|state| state != "Z" && state != "X")
    }

    /// Waits until it is gone.
    ///
    /// # Panics
    /// When it is still there at the deadline.
    #[track_caller]
    pub fn wait_until_gone(&self) {
        let start = Instant::now();
        while self.is_alive() {
            assert!(start.elapsed() < DEADLINE, "{self:?} is still there");
            thread::sleep(POLL);
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap_or_else(|error| panic!("sending {signal:?} to {self:?}: {error}"));
    }
}

/// The field number `place` behind the program's name in `/proc/PID/stat` (proc_pid_stat(5)):
/// state, parent, ...
fn status_field(pid: Pid, place: usize) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, parentheses too.
    let (_, fields) = line.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(place).map(str::to_owned)
}

/// The guest of a VMM process: `aerostat-vmm NAME BUILD`. A process that has been forked and not
/// become one yet has none.
fn guest_name(pid: Pid) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split('\0');
    (words.next()? == "aerostat-vmm").then_some(())?;
    words.next().map(str::to_owned)
}
