//! The control group of a fleet.
//!
//! It has no limit of its own: the limits of the guests add up to the pool and what their processes
//! need besides. A limit here could only have the kernel kill a guest for what another one has.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::FrameCount;

use super::{GuestGroup, MemoryGroup, Usage, Version};

/// A group that holds those of a fleet's guests, and no process itself.
#[derive(Debug)]
pub struct PoolGroup {
    group: MemoryGroup,
    /// Counts the groups of guests, for their names: a guest that is started again may come before
    /// the group of its predecessor is gone.
    made: AtomicU64,
}

impl PoolGroup {
    /// Makes a group, as [`MemoryGroup::create`] does.
    ///
    /// # Errors
    ///
    /// Fails where the host has no memory controller, or this process may not make groups.
    pub fn create() -> io::Result<Arc<Self>> {
        let group = MemoryGroup::create()?;
        if group.version() == Version::V2 {
            fs::write(group.folder().join("cgroup.subtree_control"), "+memory")?;
        }
        Ok(Arc::new(Self { group, made: AtomicU64::new(0) }))
    }

    /// Makes the group of a guest of this name, for a process that may have `limit` at first.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error.
    pub fn guest(self: &Arc<Self>, name: &str, limit: FrameCount) -> io::Result<GuestGroup> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let mut group = GuestGroup::create(self, &self.group.folder().join(format!("{name}-{number}")))?;
        group.set_limit(limit);
        Ok(group)
    }

    /// Returns what is charged to the fleet now.
    ///
    /// # Errors
    ///
    /// Fails where a file can't be read or is not understood.
    pub fn usage(&self) -> io::Result<Usage> {
        self.group.usage()
    }

    pub(super) fn group(&self) -> &MemoryGroup {
        &self.group
    }
}
