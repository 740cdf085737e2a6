//! Physical memory that the guests' processes take, measured from outside them: by the charge of a
//! control group that holds them all.
//!
//! A process is born into the group of its parent, so the supervisor is in the group while it
//! starts guests, and outside it otherwise. When it ends, the group goes with it; of a supervisor
//! that was killed an empty group stays behind, which the next run removes (`host::cgroup`). Where
//! no group can be made, the guests' own metrics have to do.

use aerostat_abi::units::FrameCount;

use crate::host::cgroup::MemoryGroup;

/// How physical memory is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhysicalMemory {
    /// By the charge of a control group, where one can be made; else as reported.
    ByControlGroup,
    /// As the guests' processes report it themselves.
    AsReported,
}

/// The meter of a run.
#[derive(Debug)]
pub(super) struct PhysicalMeter {
    group: Option<MemoryGroup>,
}

impl PhysicalMeter {
    /// A meter that reads zero.
    pub(super) fn new(how: PhysicalMemory) -> Self {
        Self {
            group: match how {
                PhysicalMemory::ByControlGroup => MemoryGroup::create().ok(),
                PhysicalMemory::AsReported => None,
            },
        }
    }

    /// Runs `start`, whose child processes are measured from their first instruction on.
    pub(super) fn around_starts<T>(&self, start: impl FnOnce() -> T) -> T {
        let is_in = self.group.as_ref().is_some_and(|group| group.enter().is_ok());
        let result = start();
        if is_in && let Some(group) = &self.group {
            // In vain only where the group it came from is gone; then the supervisor's own memory
            // is counted too.
            let _ = group.leave();
        }
        result
    }

    /// Anonymous memory of all processes of the group. Their page tables and the kernel's other
    /// memory are not among it.
    pub(super) fn measure(&self) -> Option<FrameCount> {
        let usage = self.group.as_ref()?.usage().ok()?;
        Some(FrameCount::from_bytes_ceil(usage.anonymous()))
    }
}
