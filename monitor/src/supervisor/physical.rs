//! Physical memory that the guests' processes use, measured from outside them: by the charge of the
//! fleet's control group, which holds those of its guests. Of a supervisor that was killed a group
//! is left with the guests that the next supervisor takes over, and whose charges stay there
//! (`host::cgroup`). Where no group can be made, what the guests' processes report counts instead.

use std::sync::Arc;

use aerostat_abi::units::FrameCount;

use crate::host::cgroup::{Location, MemoryGroup, PoolGroup};

/// How physical memory is measured.
#[derive(Clone, Debug)]
pub enum PhysicalMemory {
    /// By the charge of this group, in which the guests' processes are started.
    ByControlGroup(Arc<PoolGroup>),
    /// As the guests' processes report it.
    AsReported,
}

/// The meter of a run.
#[derive(Debug)]
pub(super) struct PhysicalMeter {
    pool: Option<Arc<PoolGroup>>,
    /// The groups of guests that were taken over.
    earlier: Vec<MemoryGroup>,
}

impl PhysicalMeter {
    /// Creates a meter that reads zero.
    pub(super) fn new(how: PhysicalMemory) -> Self {
        let pool = match how {
            PhysicalMemory::ByControlGroup(pool) => Some(pool),
            PhysicalMemory::AsReported => None,
        };
        Self { pool, earlier: Vec::new() }
    }

    /// Measures the group of a guest that was taken over, too. Where an earlier supervisor has made
    /// none, nothing is measured.
    pub(super) fn add(&mut self, group: Option<&Location>) {
        match group.and_then(MemoryGroup::left_behind) {
            Some(group) if self.earlier.iter().all(|known| known.folder() != group.folder()) => {
                self.earlier.push(group);
            }
            Some(_) => {}
            None => self.pool = None,
        }
    }

    /// Returns the anonymous memory of all processes of the fleet, without their page tables and
    /// the kernel's other memory.
    pub(super) fn measure(&self) -> Option<FrameCount> {
        let usages = self.earlier.iter().map(MemoryGroup::usage).chain([self.pool.as_ref()?.usage()]);
        let anonymous = usages.map(|usage| Some(usage.ok()?.anonymous())).sum::<Option<u64>>()?;
        Some(FrameCount::from_bytes_ceil(anonymous))
    }
}
