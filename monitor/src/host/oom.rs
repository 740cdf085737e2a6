//! The kernel's OOM killer: which process it kills first, and whether it was the one that ended a
//! process.
//!
//! The kernel does not say why a process got SIGKILL. It counts the processes that it killed for
//! memory, by control group and for the whole host; each count explains one death.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cgroup::{Location, Version};

/// What a VMM process adds to its score: it is killed before the supervisor and before most other
/// processes on the host.
const VMM_SCORE: i32 = 500;
/// The supervisor's own score, where it may be lowered: without the supervisor all guests end.
const SUPERVISOR_SCORE: i32 = -500;

/// The kills that have explained a death, or came before the first guest.
static EXPLAINED: Mutex<Explained> = Mutex::new(Explained { host: None, groups: BTreeMap::new() });

#[derive(Debug)]
struct Explained {
    /// On the whole host; `None` before counting began.
    host: Option<u64>,
    /// By the folder of each control group.
    groups: BTreeMap<PathBuf, u64>,
}

/// Kills for lack of memory, counted by the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kills {
    /// In a control group, whose limit or whose parents' was reached.
    group: u64,
    /// On the whole host.
    host: u64,
}

/// Makes this process the last that the kernel kills, and begins to count. For the supervisor,
/// before it starts a process.
pub(crate) fn protect_supervisor() {
    // Only a privileged process may lower its score. An unprivileged one still comes after its
    // guests.
    let own = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse::<i32>().ok());
    if own.is_some_and(|own| own > SUPERVISOR_SCORE) {
        let _ = fs::write("/proc/self/oom_score_adj", SUPERVISOR_SCORE.to_string());
    }
    explained().host.get_or_insert_with(kills_on_host);
}

/// Makes the kernel kill `process` before the supervisor, from which it has inherited its score.
///
/// # Errors
///
/// Returns the kernel's error; a process's score may always be raised.
pub(crate) fn expose_vmm(process: u32) -> io::Result<()> {
    fs::write(format!("/proc/{process}/oom_score_adj"), VMM_SCORE.to_string())
}

/// Returns the control group that new processes start in, whose kills are counted from now on.
pub(crate) fn watch_group() -> Option<Location> {
    watch(Location::of_this_process().ok()?)
}

/// Returns the control group of a process, whose kills are counted from now on.
pub(crate) fn watch_group_of(process: u32) -> Option<Location> {
    watch(Location::of_process(process).ok()?)
}

/// Counts the kills of a group from now on.
pub(crate) fn watch(group: Location) -> Option<Location> {
    explained().groups.entry(group.folder.clone()).or_insert_with(|| kills_in(&group));
    Some(group)
}

/// Forgets a group that is about to be removed.
pub(crate) fn forget(group: &Location) {
    explained().groups.remove(&group.folder);
}

/// Returns why a process of `group` may have got a SIGKILL that this process has not sent, if the
/// kernel has killed one for memory and that explains no other death yet.
#[must_use]
pub(crate) fn explain_kill(group: Option<&Location>) -> Option<&'static str> {
    let mut explained = explained();
    let host_now = kills_on_host();
    // Where nothing was counted on the host, only a kill in the group explains a death.
    let host = explained.host.unwrap_or(host_now);
    let before = group.and_then(|group| explained.groups.get(&group.folder)).copied();
    let mut kills = Kills { group: before.unwrap_or(0), host };
    let now = Kills { group: before.and(group).map_or(0, kills_in), host: host_now };
    let why = kills.explain(now);
    explained.host = Some(kills.host);
    if let (Some(_), Some(group)) = (before, group) {
        explained.groups.insert(group.folder.clone(), kills.group);
    }
    why
}

fn explained() -> MutexGuard<'static, Explained> {
    EXPLAINED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kills_on_host() -> u64 {
    count(&fs::read_to_string("/proc/vmstat").unwrap_or_default())
}

fn kills_in(group: &Location) -> u64 {
    let file = match group.version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    count(&fs::read_to_string(group.folder.join(file)).unwrap_or_default())
}

impl Kills {
    /// Uses one of the kills between `self` and `now` as the explanation of a death.
    fn explain(&mut self, now: Self) -> Option<&'static str> {
        let (in_group, on_host) = (now.group > self.group, now.host > self.host);
        // A kill in the group also counts on the host.
        self.group += u64::from(in_group);
        self.host += u64::from(on_host);
        match (in_group, on_host) {
            (true, _) => Some("probably by the kernel, because the memory limit of its control group was reached"),
            (false, true) => Some("probably by the kernel, because the host had no memory left"),
            (false, false) => None,
        }
    }
}

/// Returns the value of the line `oom_kill N` of `memory.oom_control`, `memory.events` or `vmstat`.
fn count(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Kills, count};

    #[test]
    fn all_three_files_are_parsed() {
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), 7);
        assert_eq!(count("low 0\nhigh 4\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(count("nr_free_pages 5\noom_kill 1\n"), 1);
        assert_eq!(count("oom_kill_disable 0\n"), 0);
    }

    #[test]
    fn a_kill_explains_one_death() {
        let mut kills = Kills { group: 1, host: 5 };
        assert_eq!(kills.explain(Kills { group: 1, host: 5 }), None);
        let now = Kills { group: 2, host: 7 };
        assert!(kills.explain(now).unwrap().contains("control group"));
        assert!(kills.explain(now).unwrap().contains("the host had no memory left"));
        assert_eq!(kills.explain(now), None, "another process has sent the signal");
    }
}
