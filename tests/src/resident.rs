//! Reads the resident memory of a process, which includes its guest's.

use std::fs;

use anyhow::{Context, Result};

/// Returns the resident memory of a process in MiB, from `/proc/PID/status` (proc_pid_status(5)).
///
/// # Errors
/// When the process is gone.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let file = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    resident_kib(&status).map(|kib| kib / 1024.0).with_context(|| format!("{file} has no resident memory"))
}

fn resident_kib(status: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::resident_kib;

    #[test]
    fn the_line_with_resident_memory_is_found() {
        assert_eq!(resident_kib("VmHWM:\t  900 kB\nVmRSS:\t  512 kB\n"), Some(512.0));
        assert_eq!(resident_kib("VmHWM:\t  900 kB\n"), None);
    }
}
