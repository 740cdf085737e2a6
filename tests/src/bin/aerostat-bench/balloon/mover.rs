//! A guest whose target this process moves.

use std::thread;
use std::time::Instant;

use aerostat_abi::registers::Facts;
use aerostat_abi::units::FrameCount;
use aerostat_tests::{DEADLINE, Guest, Machine, PhysicalMeter, Plan};
use anyhow::{Result, ensure};

use super::READY;

/// A guest that is ready for the measurement.
pub(super) struct Mover(pub(super) Guest);

impl Mover {
    /// Boots the guest `bench_balloon` for its part `part` and waits until it is ready.
    pub(super) fn boot(memory_mib: u64, part: &str) -> Self {
        Self::boot_plan(&Plan::test_guest("bench_balloon").memory_mib(memory_mib), part)
    }

    /// Boots the guest of `plan` for its part `part` and waits until it is ready.
    pub(super) fn boot_plan(plan: &Plan, part: &str) -> Self {
        let mut guest = plan.clone().command_line(&format!("bench={part}")).boot(Machine::Kvm);
        guest.wait_for_line(READY);
        Self(guest)
    }

    /// Sets the target; returns the seconds until the guest has that size.
    pub(super) fn resize(&self, mib: u64) -> Result<f64> {
        let size = FrameCount::from_mib(mib);
        self.retarget(mib, |facts| facts.size == size)
    }

    /// Lowers the target to `mib`; returns the seconds until the guest has that size and all but 2
    /// % of the memory that has left it is neither resident nor physically in use. Only then may a
    /// supervisor grant the memory to another guest.
    pub(super) fn squeeze(&self, mib: u64, meter: &PhysicalMeter) -> Result<f64> {
        let before = self.0.facts();
        let size = FrameCount::from_mib(mib);
        let leaving = FrameCount(before.size.saturating_sub(size).0 * 98 / 100);
        let resident = before.resident.saturating_sub(leaving);
        let in_use = meter.bytes()?.saturating_sub(leaving.bytes());
        let start = Instant::now();
        self.retarget(mib, |facts| facts.size == size && facts.resident <= resident)?;
        while meter.bytes()? > in_use {
            ensure!(start.elapsed() < DEADLINE, "memory that has left the guest is not free: {:?}", self.0.facts());
            thread::yield_now();
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Sets the target; returns the seconds until the register page's facts are `wanted`. It yields
    /// between two reads and does not sleep, as a sleep would take longer than many measured times.
    pub(super) fn retarget(&self, mib: u64, wanted: impl Fn(&Facts) -> bool) -> Result<f64> {
        let start = Instant::now();
        self.0.set_target_mib(mib);
        while !wanted(&self.0.facts()) {
            ensure!(
                start.elapsed() < DEADLINE,
                "the guest does not follow its target of {mib} MiB: {:?}",
                self.0.facts()
            );
            thread::yield_now();
        }
        Ok(start.elapsed().as_secs_f64())
    }
}
