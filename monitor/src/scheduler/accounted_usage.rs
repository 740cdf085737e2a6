//! What one guest holds of the pool: the side of the accounts that must never be too low.
//!
//! *Held* is the largest of the guest's target, every target that its VMM process may still act on
//! (`targets.rs`), its size and its resident memory. Lowering a target therefore frees nothing by
//! itself; memory is free when the process has acknowledged the new target, and the guest's size
//! *and* its resident memory have fallen.
//!
//! A guest that ignores its target is *confined* by a limit of its resident memory
//! (`enforcement.rs`). Once its process has acknowledged the limit, that counts instead of targets
//! and size: the guest can't hold more, however large it is. Its resident memory counts in any
//! case, so a process that acknowledges a limit and does not keep it frees nothing.

use aerostat_abi::units::FrameCount;

use super::usage::GuestSample;

/// Resident memory beyond the target that is no sign of a guest that does not follow: page tables,
/// and memory of its VMM process. One frame for so many, and for every guest.
const OVERHEAD_DIVISOR: u64 = 50;
const OVERHEAD: FrameCount = FrameCount::from_mib(8);
/// The same for a confined guest, by its size: page tables of memory that was paged out stay.
const TABLES_DIVISOR: u64 = 256;

/// One guest's target, and what was last seen of it.
#[derive(Debug)]
pub(super) struct AccountedUsage {
    target: FrameCount,
    /// The largest target that the VMM process may still act on.
    allowed: FrameCount,
    size: FrameCount,
    resident: FrameCount,
    /// The largest limit of its resident memory that the process may still act on.
    limit: Option<FrameCount>,
}

impl AccountedUsage {
    pub(super) fn new(target: FrameCount) -> Self {
        Self { target, allowed: target, size: FrameCount::ZERO, resident: FrameCount::ZERO, limit: None }
    }

    /// Creates the account of a guest that has this target, and holds so much already.
    pub(super) fn held_already(target: FrameCount, held: FrameCount) -> Self {
        Self { size: held, ..Self::new(target) }
    }

    pub(super) fn target(&self) -> FrameCount {
        self.target
    }

    pub(super) fn observe(&mut self, sample: &GuestSample) {
        self.allowed = sample.allowed;
        self.size = sample.size;
        self.resident = sample.resident;
        self.limit = sample.control.limit;
    }

    /// Raises the target to `target`; the caller has made sure that the pool has what
    /// [`Self::held`] grows by.
    pub(super) fn raise(&mut self, target: FrameCount) {
        debug_assert!(target >= self.target, "a raise raises");
        self.target = target;
    }

    /// Lowers the target; the old one counts until a sample says that it does not any more.
    pub(super) fn lower(&mut self, target: FrameCount) {
        debug_assert!(target <= self.target, "a lowering lowers");
        self.allowed = self.allowed.max(self.target);
        self.target = target;
    }

    /// Returns the host memory that was last seen behind the guest.
    pub(super) fn resident(&self) -> FrameCount {
        self.resident
    }

    /// Returns the size that the guest has or may still grow to.
    pub(super) fn extent(&self) -> FrameCount {
        self.allowed.max(self.size)
    }

    /// Returns by how much the guest is larger than its target, or may still become.
    pub(super) fn withheld(&self) -> FrameCount {
        self.extent().saturating_sub(self.target)
    }

    /// Returns whether a limit of its resident memory is in force.
    pub(super) fn is_confined(&self) -> bool {
        self.limit.is_some()
    }

    /// Returns what the guest can hold by its size and its limit, without its resident memory.
    fn bound(&self) -> FrameCount {
        self.limit.map_or(self.extent(), |limit| limit.min(self.extent()))
    }

    /// Returns what the guest holds whatever its target is.
    pub(super) fn observed(&self) -> FrameCount {
        self.bound().max(self.resident)
    }

    /// Returns whether the guest's resident memory is beyond its target.
    pub(super) fn is_resident_beyond_target(&self) -> bool {
        let tables = if self.is_confined() { self.extent().0 / TABLES_DIVISOR } else { 0 };
        let overhead = OVERHEAD.saturating_add(FrameCount(self.target.0 / OVERHEAD_DIVISOR + tables));
        self.resident > self.target.saturating_add(overhead)
    }

    /// Returns whether the guest still holds more than its target, by its own doing or by that of
    /// the host.
    pub(super) fn exceeds_target(&self) -> bool {
        self.bound() > self.target || self.is_resident_beyond_target()
    }

    /// Returns the frames of the pool that the guest holds.
    pub(super) fn held(&self) -> FrameCount {
        self.target.max(self.observed())
    }
}

#[cfg(test)]
mod tests {
    use super::AccountedUsage;
    use crate::scheduler::usage::{Control, GuestSample, Hints};
    use aerostat_abi::units::FrameCount;

    fn sample(allowed: u64, size: u64, resident: u64) -> GuestSample {
        let [allowed, size, resident] = [allowed, size, resident].map(FrameCount);
        GuestSample { allowed, size, resident, hints: Hints::None, control: Control::default() }
    }

    #[test]
    fn a_lowered_target_frees_nothing_before_it_is_acknowledged() {
        let mut accounted_usage = AccountedUsage::new(FrameCount(100));
        accounted_usage.observe(&sample(100, 60, 50));
        accounted_usage.lower(FrameCount(60));
        accounted_usage.lower(FrameCount(40));
        assert_eq!(accounted_usage.held(), FrameCount(100));
        accounted_usage.observe(&sample(100, 40, 40));
        assert_eq!(accounted_usage.held(), FrameCount(100), "the process may still act on the old target");
        accounted_usage.observe(&sample(60, 40, 40));
        assert_eq!(accounted_usage.held(), FrameCount(60));
        accounted_usage.observe(&sample(40, 40, 50));
        assert_eq!(accounted_usage.held(), FrameCount(50), "resident memory has not fallen yet");
        accounted_usage.observe(&sample(40, 40, 40));
        assert_eq!(accounted_usage.held(), FrameCount(40));
    }

    #[test]
    fn a_confined_guest_holds_its_limit_or_what_is_resident() {
        let mut accounted_usage = AccountedUsage::new(FrameCount(100));
        accounted_usage.lower(FrameCount(40));
        let mut held_with = |limit: Option<u64>, resident: u64| {
            let control = Control { limit: limit.map(FrameCount), ..Control::default() };
            accounted_usage.observe(&GuestSample { control, ..sample(40, 100, resident) });
            accounted_usage.held().0
        };
        assert_eq!(held_with(None, 30), 100, "it may touch all of its size");
        assert_eq!(held_with(Some(70), 30), 70, "its process may still act on that");
        assert_eq!(held_with(Some(40), 90), 90, "the limit is acknowledged and not kept yet");
        assert_eq!(held_with(Some(40), 40), 40);
        assert_eq!(held_with(Some(200), 40), 100, "a limit beyond its size means nothing");
        assert_eq!(held_with(Some(20), 20), 40, "its target is its own");
    }

    #[test]
    fn page_tables_of_a_guest_that_follows_are_no_excess() {
        let mut accounted_usage = AccountedUsage::new(FrameCount::from_mib(100));
        let mut exceeds_with = |size_mib: u64, resident: u64| {
            let size = FrameCount::from_mib(size_mib).0;
            accounted_usage.observe(&sample(size, size, resident));
            accounted_usage.exceeds_target()
        };
        let full = FrameCount::from_mib(100).0;
        assert!(!exceeds_with(100, full));
        assert!(!exceeds_with(100, full + full / 512 + 400));
        assert!(exceeds_with(102, full));
        assert!(exceeds_with(100, full + FrameCount::from_mib(11).0));
    }
}
