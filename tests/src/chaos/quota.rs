//! A process that gets hardly any processor time, by a control group of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::guest::POLL;

/// Where the `cpu` controller is mounted: version 1, and version 2.
const V1: &str = "/sys/fs/cgroup/cpu";
const V2: &str = "/sys/fs/cgroup";
/// The time that the process gets, and the period in which it does, in microseconds.
const TIME_US: &str = "2000";
const PERIOD_US: &str = "50000";
/// How often it is tried to remove the group.
const ATTEMPTS: u32 = 100;

/// The control group. The process leaves it when the value is dropped.
#[derive(Debug)]
pub(super) struct Quota {
    group: PathBuf,
    /// The group that the process was in before.
    home: PathBuf,
}

impl Quota {
    /// Throttles a process; `None` where that is not permitted, or the process is gone.
    pub(super) fn set(pid: u32) -> Option<Self> {
        let quota = Self::prepare(pid)?;
        fs::write(quota.group.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(quota)
    }

    fn prepare(pid: u32) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let name = format!("aerostat-chaos-{pid}");
        if Path::new(V1).join("cpu.cfs_quota_us").exists() || Path::new(V1).join("cpu.shares").exists() {
            let home = Path::new(V1).join(path(&groups, |controllers| controllers.split(',').any(|one| one == "cpu"))?);
            let group = home.join(name);
            let quota = Self { group, home };
            fs::create_dir(&quota.group).ok()?;
            fs::write(quota.group.join("cpu.cfs_period_us"), PERIOD_US).ok()?;
            fs::write(quota.group.join("cpu.cfs_quota_us"), TIME_US).ok()?;
            return Some(quota);
        }
        // In version 2 a process is in one group for all controllers, so it can't leave its
        // memory's group: the quota is set where it is, if that group is its own.
        let home = Path::new(V2).join(path(&groups, str::is_empty)?);
        let is_alone = fs::read_to_string(home.join("cgroup.procs")).is_ok_and(|pids| pids.lines().count() == 1);
        if !is_alone {
            return None;
        }
        fs::write(home.join("cpu.max"), format!("{TIME_US} {PERIOD_US}")).ok()?;
        Some(Self { group: home.clone(), home })
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // All of it fails where the process is gone.
        if self.group == self.home {
            let _ = fs::write(self.home.join("cpu.max"), "max");
            return;
        }
        // With all that it has started meanwhile; a process that ends leaves the group late.
        for _ in 0..ATTEMPTS {
            let pids = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines() {
                let _ = fs::write(self.home.join("cgroup.procs"), pid);
            }
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            thread::sleep(POLL);
        }
    }
}

/// Returns the path of a group in `/proc/PID/cgroup`, from the root of its hierarchy.
fn path(groups: &str, is_wanted: impl Fn(&str) -> bool) -> Option<&str> {
    let mut fields = groups.lines().map(|line| line.splitn(3, ':').skip(1));
    fields.find_map(|mut fields| {
        let (controllers, path) = (fields.next()?, fields.next()?);
        is_wanted(controllers).then(|| path.trim_start_matches('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn the_group_of_a_controller_is_found() {
        let groups = "4:memory:/a\n2:cpu,cpuacct:/b/c\n0::/\n";
        assert_eq!(path(groups, |names| names.split(',').any(|one| one == "cpu")), Some("b/c"));
        assert_eq!((path(groups, str::is_empty), path(groups, |names| names == "pids")), (Some(""), None));
    }
}
