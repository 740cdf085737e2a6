//! A simulated guest: an application that needs memory, a kernel that follows a target.
//!
//! The guest is ideal: it deflates at once, gives up free memory at once, evicts idle memory before
//! active memory, and its VMM process acts on no old target. Without swap it cannot shrink below
//! what its application has allocated. With swap it shrinks further, at the rate of a disk.
//! A guest may also ignore its target, and the host page it at random.
//!
//! *Stall.* While the application waits for an allocation, it stands still. While a part of its
//! active memory is on the swap disk, it stands still for ten times that part of its time: an
//! access to a page on disk costs far more than one to memory, so the loss is much larger than the
//! part that is missing. The factor only scales figures of swapping guests; it is the same for all
//! rules.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::demand::{Demand, Need};
use super::scaled;
use crate::scheduler::{
    Acknowledgement, Control, GuestSample, Hints, IgnoredTarget, Limits, Means, StalledTime, Usage,
};

/// Memory of the guest's kernel and of the application's image.
pub(super) const KERNEL: FrameCount = FrameCount::from_mib(8);
/// What a guest writes to its swap disk in a second.
const SWAP_OUT_PER_S: FrameCount = FrameCount::from_mib(1024);
/// How many times the missing part of active memory a guest stalls.
const STALL_FACTOR: f64 = 10.0;
/// How often in a second active memory that has no room is restored and evicted again.
const RETURNS_PER_S: f64 = 1.0;

/// One guest.
#[derive(Debug)]
pub(super) struct SimulatedGuest {
    pub(super) limits: Limits,
    demand: Demand,
    /// Where in its demand the guest begins.
    offset: Duration,
    /// Size of the swap disk.
    swap: FrameCount,
    pub(super) target: FrameCount,
    pub(super) size: FrameCount,
    /// Host memory behind the guest.
    pub(super) resident: FrameCount,
    manners: Manners,
    /// What the host can page out in a second; `None` where it can't.
    paging_per_s: Option<FrameCount>,
    /// What resident memory is limited to, by paging.
    pub(super) limit: Option<FrameCount>,
    paged_out: FrameCount,
    /// The time that the last tick took.
    ticked: Duration,
    /// What the application has of what it needs.
    allocated: FrameCount,
    /// The part of it on the swap disk.
    evicted: FrameCount,
    /// Evicted pages that were restored since the start.
    restored: f64,
    /// What the application needs now.
    need: Need,
    /// The time in which the application stood still.
    pub(super) stalled: Duration,
}

/// The demand and the limits of a guest before its start.
#[derive(Clone, Debug)]
pub(super) struct GuestPlan {
    pub(super) limits: Limits,
    pub(super) demand: Demand,
    pub(super) offset: Duration,
    pub(super) swap: FrameCount,
    pub(super) manners: Manners,
    pub(super) paging_per_s: Option<FrameCount>,
}

/// Whether a guest does as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    Follows,
    /// It grows to its target and never shrinks.
    IgnoresTargets,
}

impl SimulatedGuest {
    pub(super) fn new(plan: &GuestPlan) -> Self {
        let GuestPlan { limits, demand, offset, swap, manners, paging_per_s } = plan.clone();
        Self {
            limits,
            demand,
            offset,
            swap,
            target: limits.min,
            size: limits.min,
            resident: KERNEL.min(limits.min),
            manners,
            paging_per_s,
            limit: None,
            paged_out: FrameCount::ZERO,
            ticked: Duration::ZERO,
            allocated: FrameCount::ZERO,
            evicted: FrameCount::ZERO,
            restored: 0.0,
            need: Need::default(),
            stalled: Duration::ZERO,
        }
    }

    /// Lives through one tick that ends at `elapsed`; returns the share of it in which the guest
    /// stood still, 0 to 1.
    pub(super) fn tick(&mut self, elapsed: Duration, tick: Duration) -> f64 {
        self.need = need_at(&self.demand, self.offset, self.limits, elapsed);
        self.free_unneeded();
        self.follow_target(tick);
        self.grow();
        self.restore(tick);
        self.page(tick);
        self.ticked = tick;
        let share = self.stall_share();
        self.stalled += tick.mul_f64(share);
        share
    }

    /// Returns what the scheduler sees of the guest.
    pub(super) fn sample(&self) -> GuestSample {
        GuestSample {
            allowed: self.target,
            size: self.size,
            resident: self.resident,
            hints: Hints::Report(self.usage()),
            control: Control {
                limit: self.limit,
                acknowledgement: Acknowledgement::Given,
                could_run: self.ticked,
                means: match self.paging_per_s {
                    Some(_) => Means::Paging(IgnoredTarget::Page),
                    None => Means::None,
                },
            },
        }
    }

    /// Touches what is in use, and moves resident memory to its limit.
    fn page(&mut self, tick: Duration) {
        let touched = self.resident.saturating_add(self.paged_out).max(self.in_use()).min(self.size);
        let kept = self.limit.map_or(touched, |limit| limit.min(touched));
        let rate = scaled(self.paging_per_s.unwrap_or_default(), tick.as_secs_f64());
        self.resident = touched.saturating_sub(self.paged_out).saturating_sub(rate).max(kept);
        self.paged_out = touched.saturating_sub(self.resident);
    }

    /// Returns the active memory that the host has paged out. It does not know what is active.
    fn active_paged_out(&self) -> FrameCount {
        let touched = self.resident.saturating_add(self.paged_out);
        scaled(self.active(), self.paged_out.0 as f64 / touched.0.max(1) as f64)
    }

    /// Returns what the guest reports.
    pub(super) fn usage(&self) -> Usage {
        let idle = self.in_memory().saturating_sub(self.active());
        let swap_left = self.swap.saturating_sub(self.evicted);
        Usage {
            used: self.in_use(),
            droppable: FrameCount::ZERO,
            // A guest that can't evict does not find out what is idle.
            idle: if self.swap > FrameCount::ZERO { idle } else { FrameCount::ZERO },
            unshrinkable: self.in_use().saturating_sub(swap_left).max(KERNEL),
            wanted: self.need.allocated.saturating_sub(self.allocated),
            evicted: self.evicted.min(self.limits.max.saturating_sub(self.in_use())),
            restored: scaled(FrameCount(1), self.restored).0,
            stalled: StalledTime::from_per_mille(scaled(FrameCount(1000), self.stall_share()).0),
        }
    }

    fn in_use(&self) -> FrameCount {
        KERNEL.saturating_add(self.allocated).saturating_sub(self.evicted)
    }

    fn free(&self) -> FrameCount {
        self.size.saturating_sub(self.in_use())
    }

    /// The active memory that the application has allocated.
    fn active(&self) -> FrameCount {
        self.need.active.min(self.allocated)
    }

    fn in_memory(&self) -> FrameCount {
        self.allocated.saturating_sub(self.evicted)
    }

    fn free_unneeded(&mut self) {
        self.allocated = self.allocated.min(self.need.allocated);
        self.evicted = self.evicted.min(self.allocated);
    }

    fn follow_target(&mut self, tick: Duration) {
        if self.size <= self.target {
            self.size = self.target;
            return;
        }
        if self.manners == Manners::IgnoresTargets {
            return;
        }
        self.size = self.size.saturating_sub(self.free()).max(self.target);
        let rate = scaled(SWAP_OUT_PER_S, tick.as_secs_f64());
        let evicted = self.evict(self.size.saturating_sub(self.target).min(rate));
        self.size = self.size.saturating_sub(evicted);
    }

    fn grow(&mut self) {
        let missing = self.need.allocated.saturating_sub(self.allocated);
        let idle = self.in_memory().saturating_sub(self.active());
        self.evict(missing.saturating_sub(self.free()).min(idle));
        self.allocated = self.allocated.saturating_add(missing.min(self.free()));
    }

    /// Restores active memory as far as there is room. The rest of it is restored and evicted again
    /// all the time.
    fn restore(&mut self, tick: Duration) {
        let lacking = self.active().saturating_sub(self.in_memory());
        let restored = lacking.min(self.free());
        self.evicted = self.evicted.saturating_sub(restored);
        let still_lacking = lacking.saturating_sub(restored);
        self.restored += restored.0 as f64 + still_lacking.0 as f64 * RETURNS_PER_S * tick.as_secs_f64();
    }

    /// Evicts up to `count` frames; returns how many.
    fn evict(&mut self, count: FrameCount) -> FrameCount {
        let evicted = count.min(self.swap.saturating_sub(self.evicted)).min(self.in_memory());
        self.evicted = self.evicted.saturating_add(evicted);
        evicted
    }

    /// Returns the share of the last tick in which the guest stood still, 0 to 1.
    pub(super) fn stall_share(&self) -> f64 {
        if self.allocated < self.need.allocated {
            return 1.0;
        }
        let missing = self.active().saturating_sub(self.in_memory()).saturating_add(self.active_paged_out());
        stall_of_missing(missing, self.active())
    }
}

/// Returns what an application needs at `elapsed`. No host can help one that wants more than its
/// guest's maximum, so that counts as no need.
pub(super) fn need_at(demand: &Demand, offset: Duration, limits: Limits, elapsed: Duration) -> Need {
    let need = demand.at(elapsed.saturating_add(offset));
    let most = limits.max.saturating_sub(KERNEL);
    Need { allocated: need.allocated.min(most), active: need.active.min(most) }
}

/// Returns the share of time in which a guest stands still while `missing` of its `active` memory
/// is not in memory.
pub(super) fn stall_of_missing(missing: FrameCount, active: FrameCount) -> f64 {
    if missing == FrameCount::ZERO {
        return 0.0;
    }
    (STALL_FACTOR * missing.0 as f64 / active.0.max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::{GuestPlan, KERNEL, Manners, SimulatedGuest};
    use crate::scheduler::Limits;
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    const TICK: Duration = Duration::from_millis(20);

    fn mib(count: u64) -> FrameCount {
        FrameCount::from_mib(count)
    }

    fn guest(demand: &str, swap: u64) -> SimulatedGuest {
        let limits = Limits { min: mib(16), max: mib(256) };
        SimulatedGuest::new(&GuestPlan {
            limits,
            demand: demand.parse().unwrap(),
            offset: Duration::ZERO,
            swap: mib(swap),
            manners: Manners::Follows,
            paging_per_s: None,
        })
    }

    fn run(guest: &mut SimulatedGuest, from_ms: u64, ticks: u64) -> f64 {
        (0..ticks)
            .map(|tick| guest.tick(Duration::from_millis(from_ms) + TICK * u32::try_from(tick).unwrap(), TICK))
            .sum()
    }

    #[test]
    fn a_guest_that_lacks_memory_stands_still_until_it_is_granted() {
        let mut guest = guest("100M:1s", 0);
        assert_eq!(run(&mut guest, 0, 5), 5.0);
        assert_eq!(guest.usage().wanted, mib(100 - 8));
        guest.target = mib(128);
        assert_eq!(run(&mut guest, 100, 5), 0.0);
        assert_eq!(guest.usage().used, mib(108));
        assert_eq!(guest.stalled, 5 * TICK);
    }

    #[test]
    fn a_guest_without_swap_keeps_what_its_application_has() {
        let mut guest = guest("100M:1s,10M:1s", 0);
        guest.target = mib(128);
        run(&mut guest, 0, 5);
        guest.target = mib(16);
        run(&mut guest, 100, 5);
        assert_eq!(guest.size, mib(108));
        run(&mut guest, 1000, 1);
        assert_eq!(guest.size, mib(18), "what the application frees goes at once");
        assert_eq!(guest.resident, guest.size);
    }

    #[test]
    fn a_guest_with_swap_loses_idle_memory_first() {
        let mut guest = guest("100M/20M:60s", 200);
        guest.target = mib(128);
        run(&mut guest, 0, 5);
        guest.target = mib(28);
        assert_eq!(run(&mut guest, 100, 10), 0.0, "idle memory is enough");
        assert_eq!(guest.size, KERNEL.saturating_add(mib(20)));
        guest.target = mib(18);
        assert!(run(&mut guest, 300, 10) > 9.0, "half of the active memory is missing");
        guest.target = mib(28);
        assert_eq!(run(&mut guest, 500, 2), 0.0, "it comes back");
    }
}
