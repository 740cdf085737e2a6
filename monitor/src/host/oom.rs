//! The kernel's way out of memory: whom it ends first, and whether it was the one that ended a process.
//!
//! The kernel does not say why a process got SIGKILL. It counts whom it ended for memory, by control group and for the whole host; each count
//! explains one death.

use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::cgroup::{Location, Version};

/// What a VMM process adds to its score: it is ended before the supervisor and before most of what else runs on the host.
const VMM_SCORE: i32 = 500;
/// The supervisor's own, where it may be lowered: without it all guests are gone.
const SUPERVISOR_SCORE: i32 = -500;

/// What the kernel has counted when this process was last explained a death.
static EXPLAINED: Mutex<Option<Kills>> = Mutex::new(None);

/// Processes that the kernel has ended for want of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kills {
    /// In the control group of this process, whose limit or whose parents' was reached.
    group: u64,
    /// On the whole host.
    host: u64,
}

/// Makes this process the last that the kernel ends, and begins to count. For the supervisor, before it starts anybody.
pub(crate) fn protect_supervisor() {
    // Only a privileged process may lower its score. One that runs unprivileged is still behind its guests.
    let own = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse::<i32>().ok());
    if own.is_some_and(|own| own > SUPERVISOR_SCORE) {
        let _ = fs::write("/proc/self/oom_score_adj", SUPERVISOR_SCORE.to_string());
    }
    explained(|last| {
        last.get_or_insert_with(Kills::read);
    });
}

/// Has the kernel end `process` before the supervisor, from whom it has inherited its score.
///
/// # Errors
///
/// What the kernel says; a process may always be made easier to end.
pub(crate) fn expose_vmm(process: u32) -> io::Result<()> {
    fs::write(format!("/proc/{process}/oom_score_adj"), VMM_SCORE.to_string())
}

/// Why a process may have got a SIGKILL that this process has not sent, if the kernel has ended one for memory that explains no other death yet.
#[must_use]
pub(crate) fn explain_kill() -> Option<&'static str> {
    explained(|last| last.as_mut()?.explain(Kills::read()))
}

fn explained<T>(act: impl FnOnce(&mut Option<Kills>) -> T) -> T {
    act(&mut EXPLAINED.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Kills {
    /// As the kernel counts them now; zero what it does not tell.
    fn read() -> Self {
        let vmstat = fs::read_to_string("/proc/vmstat").unwrap_or_default();
        let group = Location::of_this_process().ok().and_then(|location| {
            let file = match location.version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            };
            fs::read_to_string(location.folder.join(file)).ok()
        });
        Self { group: count(&group.unwrap_or_default()), host: count(&vmstat) }
    }

    /// Takes one of the kills between `self` and `now` as the explanation of a death.
    fn explain(&mut self, now: Self) -> Option<&'static str> {
        let (in_group, on_host) = (now.group > self.group, now.host > self.host);
        // A kill in the group is one on the host as well.
        self.group += u64::from(in_group);
        self.host += u64::from(on_host);
        match (in_group, on_host) {
            (true, _) => Some("probably by the kernel, because the memory limit of its control group was reached"),
            (false, true) => Some("probably by the kernel, because the host had no memory left"),
            (false, false) => None,
        }
    }
}

/// The line `oom_kill N` of `memory.oom_control`, `memory.events` or `vmstat`.
fn count(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Kills, count};

    #[test]
    fn all_three_files_are_understood() {
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
        assert_eq!(kills.explain(now), None, "somebody else has sent the signal");
    }
}
