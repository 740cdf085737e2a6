//! A guest whose target this process moves.

use std::thread;
use std::time::Instant;

use aerostat_abi::registers::Facts;
use aerostat_abi::units::FrameCount;
use aerostat_tests::{DEADLINE, Guest, Machine, PhysicalMeter, Plan};
use anyhow::{Result, ensure};

use super::READY;

/// A guest that has made ready.
pub(super) struct Mover(pub(super) Guest);

impl Mover {
    /// Boots `plan` with the bench's guest doing its part `part`.
    pub(super) fn boot(memory_mib: u64, part: &str) -> Self {
        Self::boot_plan(&Plan::test_guest("bench_balloon").memory_mib(memory_mib), part)
    }

    pub(super) fn boot_plan(plan: &Plan, part: &str) -> Self {
        let mut guest = plan.clone().command_line(&format!("bench={part}")).boot(Machine::Kvm);
        guest.wait_for_line(READY);
        Self(guest)
    }

    /// Sets the target; returns the seconds until the guest is as large.
    pub(super) fn resize(&self, mib: u64) -> Result<f64> {
        let size = FrameCount::from_mib(mib);
        self.retarget(mib, |facts| facts.size == size)
    }

    /// Lowers the target to `mib`; returns the seconds until the guest is as small, and all but 2 %
    /// of what has left it is resident no more and physically free. Only then may a supervisor give
    /// memory to somebody else.
    pub(super) fn squeeze(&self, mib: u64, meter: &PhysicalMeter) -> Result<f64> {
        let before = self.0.facts();
        let size = FrameCount::from_mib(mib);
        let leaving = FrameCount(before.size.saturating_sub(size).0 * 98 / 100);
        let resident = before.resident.saturating_sub(leaving);
        let taken = meter.bytes()?.saturating_sub(leaving.bytes());
        let start = Instant::now();
        self.retarget(mib, |facts| facts.size == size && facts.resident <= resident)?;
        while meter.bytes()? > taken {
            ensure!(start.elapsed() < DEADLINE, "what has left the guest is not free: {:?}", self.0.facts());
            thread::yield_now();
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Sets the target; returns the seconds until the register page is as `wanted`. Does not sleep,
    /// as that would take longer than much of what is to be measured, but lets everybody else go
    /// first.
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
