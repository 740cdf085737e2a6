//! Memory slots: which parts of guest memory KVM knows.
//!
//! KVM allocates and clears arrays for every frame of a slot when the slot is made, whether the
//! guest has the frame or not: 2 to 3 MiB and some milliseconds for a GiB where it shadows page
//! tables. So only memory up to [`ALWAYS_ATTACHED`] is attached before the guest runs, and no guest
//! starts with more. The main thread attaches what the target calls for beyond it, once the guest
//! has started, and the guest is told of a larger target only when it can use that memory. A guest
//! that chooses other frames waits for their slot in its DEFLATE.
//!
//! An access to a frame whose slot was never made is one to no memory: reads return all ones, and
//! writes do nothing. Such a frame is ballooned, so the guest has no business there.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aerostat_abi::units::{FRAME_SIZE, FrameCount, MAX_ORDER};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

use super::layout::{GuestAddress, MemoryLayout, Region};
use super::lock::lock;
use super::machine::{KvmError, failed};
use super::memory::GuestMemory;

/// Memory that has a slot from the start, which takes a quarter of a millisecond. A guest that is
/// granted more gets it as soon as it runs.
pub const ALWAYS_ATTACHED: FrameCount = STEP;
/// What each slot holds. The largest block that an entry may name lies in one of them.
const STEP: FrameCount = FrameCount::of_order(MAX_ORDER);
/// Where slots begin to hold twice as much: KVM had no more than 509 before Linux 5.14.
const FAR: FrameCount = FrameCount::from_mib(64 << 10);

/// Returns all slots of a machine, ascending; a slot's number is its place. Pure.
fn plan(layout: &MemoryLayout) -> Vec<Region> {
    let mut slots = Vec::new();
    for region in layout.regions() {
        let mut done = 0;
        while done < region.bytes {
            let offset = region.offset + done;
            let step = if offset < FAR.bytes() { STEP.bytes() } else { 2 * STEP.bytes() };
            let bytes = step.min(region.bytes - done);
            slots.push(Region { start: GuestAddress(region.start.0 + done), offset, bytes });
            done += bytes;
        }
    }
    slots
}

/// Returns the numbers of the slots that hold the frames of these indexes.
fn holding(plan: &[Region], frames: &Range<usize>) -> Range<usize> {
    let [start, end] = [frames.start, frames.end].map(|index| (index * FRAME_SIZE) as u64);
    let first = plan.partition_point(|slot| slot.offset + slot.bytes <= start);
    first..plan.partition_point(|slot| slot.offset < end)
}

/// A machine's memory slots. Any thread may make one.
#[derive(Debug)]
pub(super) struct MemorySlots {
    vm: Arc<VmFd>,
    /// Where guest memory is mapped.
    host_start: u64,
    plan: Vec<Region>,
    /// For each slot, whether it is made. Locked while one is being made.
    is_made: Mutex<Vec<bool>>,
    /// The frames that have a slot.
    attached: AtomicU64,
    /// Whether a slot could not be made ahead of the guest.
    has_failed: AtomicBool,
}

impl MemorySlots {
    /// Makes the first slot of `memory`.
    ///
    /// # Safety
    /// `memory` has to stay mapped as long as the machine's processor may run.
    pub(super) unsafe fn new(vm: Arc<VmFd>, memory: &GuestMemory) -> Result<Self, KvmError> {
        let plan = plan(memory.layout());
        let is_made = Mutex::new(vec![false; plan.len()]);
        let host_start = memory.host_address(0).addr() as u64;
        let slots =
            Self { vm, host_start, plan, is_made, attached: AtomicU64::new(0), has_failed: AtomicBool::new(false) };
        slots.make(0..1)?;
        Ok(slots)
    }

    /// Returns how many frames the guest can use without waiting for a slot. Where one could not be
    /// made, there is no limit: the guest's next DEFLATE tries it again, and reports why it fails.
    pub(super) fn attached(&self) -> FrameCount {
        let attached = self.attached.load(Ordering::Acquire);
        FrameCount(if self.has_failed.load(Ordering::Acquire) { u64::MAX } else { attached })
    }

    /// Tries to make the next slot, if a guest that grows to `target` needs one. Returns whether
    /// [`Self::attached`] has grown.
    pub(super) fn attach_next(&self, target: FrameCount) -> bool {
        if self.attached() >= target {
            return false;
        }
        let Some(next) = lock(&self.is_made).iter().position(|is_made| !is_made) else { return false };
        if self.make(next..next + 1).is_err() {
            self.has_failed.store(true, Ordering::Release);
        }
        true
    }

    /// Makes the slots of the frames of these indexes, as far as they are missing.
    pub(super) fn attach(&self, frames: &Range<usize>) -> Result<(), KvmError> {
        self.make(holding(&self.plan, frames))
    }

    fn make(&self, numbers: Range<usize>) -> Result<(), KvmError> {
        let mut is_made = lock(&self.is_made);
        let missing = (0_u32..).zip(&self.plan).zip(is_made.iter_mut()).take(numbers.end).skip(numbers.start);
        for ((number, slot), is_made) in missing.filter(|(_, is_made)| !**is_made) {
            let region = kvm_userspace_memory_region {
                slot: number,
                flags: 0,
                guest_phys_addr: slot.start.0,
                memory_size: slot.bytes,
                userspace_addr: self.host_start + slot.offset,
            };
            // SAFETY: the slot lies in guest memory, which stays mapped, and overlaps no other.
            unsafe { self.vm.set_user_memory_region(region) }.map_err(failed("attach the guest's memory"))?;
            *is_made = true;
            self.attached.fetch_add(slot.bytes / FRAME_SIZE as u64, Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{STEP, holding, plan};
    use crate::layout::{MemoryLayout, Region};
    use aerostat_abi::units::{FrameCount, to_usize};

    const GIB: u64 = 1 << 30;

    fn plan_of(gib: u64) -> Vec<Region> {
        plan(&MemoryLayout::new(FrameCount::from_mib(gib << 10)).unwrap())
    }

    /// The offsets in GiB at which slots begin and the last one ends.
    fn borders(plan: &[Region]) -> Vec<u64> {
        let end = plan.last().map(|slot| slot.offset + slot.bytes);
        plan.iter().map(|slot| slot.offset).chain(end).map(|offset| offset / GIB).collect()
    }

    #[test]
    fn each_gibibyte_has_a_slot() {
        assert_eq!(borders(&plan_of(1)), [0, 1]);
        assert_eq!(borders(&plan_of(5)), [0, 1, 2, 3, 4, 5]);
        assert_eq!(borders(&plan_of(68))[62..], [62, 63, 64, 66, 68]);
    }

    #[test]
    fn every_frame_is_in_one_slot() {
        let plan = plan_of(511);
        // KVM had no more before Linux 5.14.
        assert!(plan.len() <= 509, "{}", plan.len());
        let mut end = 0;
        for slot in &plan {
            assert_eq!((slot.offset, slot.start.0), (end, if end < 3 * GIB { end } else { end + GIB }));
            end += slot.bytes;
        }
        assert_eq!(end, 511 * GIB);
        let step = to_usize(STEP.0);
        for (frames, expected) in [
            (0..1, 0..1),
            (3 * step - 1..3 * step, 2..3),
            (3 * step..3 * step + 1, 3..4),
            (2 * step..4 * step, 2..4),
            (16 * step - 1..16 * step + 1, 15..17),
            (63 * step..64 * step, 63..64),
            (65 * step..66 * step, 64..65),
            (510 * step..511 * step, 287..288),
        ] {
            assert_eq!(holding(&plan, &frames), expected, "{frames:?}");
        }
    }
}
