//! Reads how long a guest's processor has run: the time of QEMU's vCPU threads in user mode, in
//! which neither the host's kernel nor QEMU's device models have a part worth mentioning.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::sample::to_f64;

/// Returns the seconds that the vCPU threads of the QEMU process `pid` have run in user mode.
pub(super) fn guest_seconds(pid: u32) -> Result<f64> {
    let folder = format!("/proc/{pid}/task");
    let mut ticks = 0;
    let mut vcpus = 0;
    for task in fs::read_dir(&folder).with_context(|| format!("reading {folder}"))? {
        let stat = fs::read_to_string(task?.path().join("stat")).context("reading the times of a thread")?;
        if let Some(user) = vcpu_ticks(&stat) {
            ticks += user;
            vcpus += 1;
        }
    }
    ensure!(vcpus > 0, "QEMU has no thread that is named as its vCPUs are");
    Ok(to_f64(ticks) / to_f64(rustix::param::clock_ticks_per_second()))
}

/// Returns the ticks in user mode of a thread if it is a vCPU's (proc_pid_stat(5)).
fn vcpu_ticks(stat: &str) -> Option<u64> {
    let (name, fields) = stat.rsplit_once(')')?;
    let is_vcpu = name.contains("(CPU ");
    // The fields after the name begin with the third, and user time is the fourteenth.
    is_vcpu.then(|| fields.split_whitespace().nth(11)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::vcpu_ticks;

    #[test]
    fn threads_of_vcpus_are_known_by_their_name() {
        let rest = "R 1 2 3 4 5 6 7 8 9 10 1234 77 0";
        assert_eq!(vcpu_ticks(&format!("9 (CPU 0/TCG) {rest}")), Some(1234));
        assert_eq!(vcpu_ticks(&format!("9 (qemu-system) {rest}")), None);
    }
}
