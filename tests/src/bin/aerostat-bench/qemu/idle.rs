//! What an idle guest leaves resident in QEMU, once it has reported its free memory.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::machine::{Devices, Machines, Software};
use crate::row::Row;
use aerostat_tests::resident_mib;

const MEMORY_MIB: u64 = 1024;
/// What the guest has written to and freed before.
const TOUCHED_MIB: u64 = 512;
/// What the guest may have of its own, besides the floor.
const GOAL_MIB: f64 = 16.0;
/// The time in which resident memory must not change, apart from noise.
const STEADY: Duration = Duration::from_secs(3);
const NOISE_MIB: f64 = 0.5;
/// The time between two readings.
const POLL: Duration = Duration::from_millis(50);

pub(super) fn measure(machines: &Machines) -> Result<Vec<Row>> {
    let floor = {
        let stopped = machines.start_stopped(MEMORY_MIB)?;
        settled(stopped.pid())?
    };
    let command_line = format!("phases={TOUCHED_MIB}M:1s,1M:3600s");
    let guest = Software::aerostat("memwalk", &command_line, "1 MiB in use of 1 MiB").with(Devices::Reporting);
    let guest = machines.boot(&guest, MEMORY_MIB)?;
    let idle = settled(guest.pid())?;
    Ok(vec![Row::cost("qemu_idle_mib", idle, "MiB", floor).goal(floor + GOAL_MIB)])
}

/// Waits until resident memory has been steady for a while; returns it.
fn settled(pid: u32) -> Result<f64> {
    let mut noted = resident_mib(pid)?;
    let mut since = Instant::now();
    while since.elapsed() < STEADY {
        thread::sleep(POLL);
        let now = resident_mib(pid)?;
        if (now - noted).abs() > NOISE_MIB {
            (noted, since) = (now, Instant::now());
        }
    }
    resident_mib(pid)
}
