//! Memory slots: which parts of guest memory KVM knows.
//!
//! KVM allocates and clears arrays for every frame of a slot when the slot is made, whether the
//! guest has the frame or not: 2 to 3 MiB and some milliseconds for a GiB where it shadows page
//! tables. So the slots of a large machine are made as the guest grows. Memory up to
//! [`ALWAYS_ATTACHED`], and what the guest starts with, is attached before it runs. A guest gets
//! each further frame by a DEFLATE, which is an exit, and its slot is made before the answer.
//!
//! An access to a frame whose slot was never made is one to no memory: reads return all ones, and
//! writes do nothing. Such a frame is ballooned, so the guest has no business there.

use std::ops::Range;
use std::sync::Arc;

use aerostat_abi::units::{FRAME_SIZE, FrameCount, MAX_ORDER};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

use super::layout::{GuestAddress, MemoryLayout, Region};
use super::machine::{KvmError, failed};
use super::memory::GuestMemory;

/// Memory that has slots from the start, which then cost nothing later: half a millisecond's.
pub const ALWAYS_ATTACHED: FrameCount = STEP;
/// What each further slot holds. The largest block that an entry may name lies in one of them.
const STEP: FrameCount = FrameCount::of_order(MAX_ORDER);
/// Where slots begin to hold twice as much: KVM had no more than 509 before Linux 5.14.
const FAR: FrameCount = FrameCount::from_mib(64 << 10);

/// The slots of a machine. Pure.
#[derive(Debug)]
struct Plan {
    /// All slots, ascending; a slot's number is its place.
    slots: Vec<Region>,
    /// How many of the first ones are made before the guest runs.
    at_start: usize,
}

impl Plan {
    fn new(layout: &MemoryLayout, initial: FrameCount) -> Self {
        let first = initial.0.next_multiple_of(STEP.0).max(ALWAYS_ATTACHED.0) << 12;
        let mut slots = Vec::new();
        let mut at_start = 0;
        for region in layout.regions() {
            let mut done = 0;
            while done < region.bytes {
                let offset = region.offset + done;
                let step = if offset < FAR.bytes() { STEP.bytes() } else { 2 * STEP.bytes() };
                let most = if offset < first { first - offset } else { step };
                let bytes = most.min(region.bytes - done);
                slots.push(Region { start: GuestAddress(region.start.0 + done), offset, bytes });
                at_start += usize::from(offset < first);
                done += bytes;
            }
        }
        Self { slots, at_start }
    }

    /// Returns the numbers of the slots that hold the frames of these indexes.
    fn holding(&self, frames: &Range<usize>) -> Range<usize> {
        let [start, end] = [frames.start, frames.end].map(|index| (index * FRAME_SIZE) as u64);
        let first = self.slots.partition_point(|slot| slot.offset + slot.bytes <= start);
        first..self.slots.partition_point(|slot| slot.offset < end)
    }
}

/// A machine's memory slots.
#[derive(Debug)]
pub(super) struct MemorySlots {
    vm: Arc<VmFd>,
    /// Where guest memory is mapped.
    host_start: u64,
    plan: Plan,
    /// For each slot, whether it is made.
    is_made: Vec<bool>,
}

impl MemorySlots {
    /// Makes the first slots of a guest that starts with the first `initial` frames of `memory`.
    ///
    /// # Safety
    /// `memory` has to stay mapped as long as the machine's processor may run.
    pub(super) unsafe fn new(vm: Arc<VmFd>, memory: &GuestMemory, initial: FrameCount) -> Result<Self, KvmError> {
        let plan = Plan::new(memory.layout(), initial);
        let first = 0..plan.at_start;
        let is_made = vec![false; plan.slots.len()];
        let mut slots = Self { vm, host_start: memory.host_address(0).addr() as u64, plan, is_made };
        slots.make(first)?;
        Ok(slots)
    }

    /// Makes the slots of the frames of these indexes, as far as they are missing.
    pub(super) fn attach(&mut self, frames: &Range<usize>) -> Result<(), KvmError> {
        self.make(self.plan.holding(frames))
    }

    fn make(&mut self, numbers: Range<usize>) -> Result<(), KvmError> {
        for (number, slot) in (0_u32..).zip(&self.plan.slots).take(numbers.end).skip(numbers.start) {
            let is_made = &mut self.is_made[number as usize];
            if *is_made {
                continue;
            }
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
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, STEP};
    use crate::layout::MemoryLayout;
    use aerostat_abi::units::{FrameCount, to_usize};

    const GIB: u64 = 1 << 30;

    fn plan(gib: u64, initial_gib: u64) -> Plan {
        let frames = |gib: u64| FrameCount::from_mib(gib << 10);
        Plan::new(&MemoryLayout::new(frames(gib)).unwrap(), frames(initial_gib))
    }

    /// The offsets in GiB at which slots begin and the last one ends.
    fn borders(plan: &Plan) -> Vec<u64> {
        let end = plan.slots.last().map(|slot| slot.offset + slot.bytes);
        plan.slots.iter().map(|slot| slot.offset).chain(end).map(|offset| offset / GIB).collect()
    }

    #[test]
    fn a_guest_has_the_slots_of_its_first_memory_at_the_start() {
        for (gib, expected) in [(1, vec![0, 1]), (3, vec![0, 3]), (8, vec![0, 3, 8]), (16, vec![0, 3, 16])] {
            let plan = plan(gib, gib);
            assert_eq!((borders(&plan), plan.at_start), (expected, plan.slots.len()), "{gib}");
        }
        assert_eq!(plan(1, 0).at_start, 1);
    }

    #[test]
    fn slots_of_large_guests_follow_later() {
        let large = plan(5, 1);
        assert_eq!((borders(&large), large.at_start), (vec![0, 1, 2, 3, 4, 5], 1));
        let granted = plan(40, 33);
        assert_eq!((borders(&granted)[..4].to_vec(), granted.at_start), (vec![0, 3, 33, 34], 2));
        let whole = plan(40, 40);
        assert_eq!((borders(&whole), whole.at_start), (vec![0, 3, 40], 2));
    }

    #[test]
    fn every_frame_is_in_one_slot() {
        let plan = plan(511, 1);
        // KVM had no more before Linux 5.14.
        assert!(plan.slots.len() <= 509, "{}", plan.slots.len());
        let mut end = 0;
        for slot in &plan.slots {
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
            assert_eq!(plan.holding(&frames), expected, "{frames:?}");
        }
    }
}
