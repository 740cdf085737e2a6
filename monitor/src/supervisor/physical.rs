//! Physical memory that the guests' processes use, measured from outside them: by the charge of a
//! control group that holds them all.
//!
//! A process begins in the group of its parent, so the supervisor is in the group while it starts
//! guests, and outside it otherwise. A process is in a group as a whole, so this holds for the
//! threads that start guests too. When the supervisor ends, the group is removed. Of a supervisor
//! that was killed a group is left: with the guests that the next supervisor takes over, and whose
//! charges stay there, or empty, for the next run to remove (`host::cgroup`). Where no group can be
//! made, what the guests' processes report counts instead.

use aerostat_abi::units::FrameCount;

use crate::host::cgroup::{Location, MemoryGroup};

/// How physical memory is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhysicalMemory {
    /// By the charge of a control group, where one can be made; else as reported.
    ByControlGroup,
    /// As the guests' processes report it.
    AsReported,
}

/// The meter of a run.
#[derive(Debug)]
pub(super) struct PhysicalMeter {
    group: Option<MemoryGroup>,
    /// The groups of guests that were taken over.
    earlier: Vec<MemoryGroup>,
}

impl PhysicalMeter {
    /// Creates a meter that reads zero.
    pub(super) fn new(how: PhysicalMemory) -> Self {
        Self {
            group: match how {
                PhysicalMemory::ByControlGroup => MemoryGroup::create().ok(),
                PhysicalMemory::AsReported => None,
            },
            earlier: Vec::new(),
        }
    }

    /// Measures the group of a guest that was taken over, too. Where an earlier supervisor has made
    /// none, nothing is measured.
    pub(super) fn add(&mut self, group: Option<&Location>) {
        match group.and_then(MemoryGroup::left_behind) {
            Some(group) if self.earlier.iter().all(|known| known.folder() != group.folder()) => {
                self.earlier.push(group);
            }
            Some(_) => {}
            None => self.group = None,
        }
    }

    /// Begins the starts: processes that are started from now on are measured from their first
    /// instruction.
    pub(super) fn enter(&self) {
        if let Some(group) = &self.group {
            // Where it fails, no process is measured, and the group reads zero.
            let _ = group.enter();
        }
    }

    /// Ends the starts. A process that is started later is not measured.
    pub(super) fn leave(&self) {
        if let Some(group) = &self.group {
            // Fails only where the group is gone that this process came from; then the supervisor's
            // own memory is counted too.
            let _ = group.leave();
        }
    }

    /// Returns the anonymous memory of all processes of the group, without their page tables and
    /// the kernel's other memory.
    pub(super) fn measure(&self) -> Option<FrameCount> {
        let groups = self.earlier.iter().chain([self.group.as_ref()?]);
        let anonymous = groups.map(|group| Some(group.usage().ok()?.anonymous())).sum::<Option<u64>>()?;
        Some(FrameCount::from_bytes_ceil(anonymous))
    }
}
