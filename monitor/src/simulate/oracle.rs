//! The best that any rule could do: a lower bound of all guests' stall together.
//!
//! The oracle knows each guest's need at each moment and moves memory in no time. With too little
//! for all, it serves the smallest needs first: each guest that stands still counts the same,
//! whatever it lacks, so this leaves the fewest standing. Fairness is no concern of its. Guests
//! that swap need their active memory only; of these the last one served gets a part.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::guest::{GuestPlan, KERNEL, need_at, stall_of_missing};

/// Returns the stall of all guests together in the best case.
pub(super) fn least_stall(guests: &[GuestPlan], pool: FrameCount, duration: Duration, tick: Duration) -> Duration {
    let minima = guests.iter().fold(FrameCount::ZERO, |sum, guest| sum.saturating_add(guest.limits.min));
    let beyond_minima = pool.saturating_sub(minima);
    let mut stalled = Duration::ZERO;
    let mut elapsed = tick;
    let mut missing: Vec<Missing> = Vec::with_capacity(guests.len());
    while elapsed <= duration {
        missing.clear();
        missing.extend(guests.iter().map(|guest| Missing::of(guest, elapsed)).filter(|guest| guest.count.0 > 0));
        stalled += tick.mul_f64(stall_of_tick(&mut missing, beyond_minima));
        elapsed += tick;
    }
    stalled
}

/// What a guest needs beyond its minimum.
#[derive(Debug)]
struct Missing {
    count: FrameCount,
    /// The active memory of a guest that can swap.
    active: Option<FrameCount>,
}

impl Missing {
    fn of(guest: &GuestPlan, elapsed: Duration) -> Self {
        let need = need_at(&guest.demand, guest.offset, guest.limits, elapsed);
        let on_disk = need.allocated.saturating_sub(need.active).min(guest.swap);
        let in_memory = KERNEL.saturating_add(need.allocated.saturating_sub(on_disk));
        let active = (guest.swap > FrameCount::ZERO).then_some(need.active);
        Self { count: in_memory.saturating_sub(guest.limits.min), active }
    }
}

/// Returns how many guests stand still, parts of guests included.
fn stall_of_tick(missing: &mut [Missing], available: FrameCount) -> f64 {
    missing.sort_by_key(|guest| guest.count);
    let mut left = available;
    let mut stall = 0.0;
    for guest in missing {
        let lacking = guest.count.saturating_sub(left);
        left = left.saturating_sub(guest.count);
        stall += match guest.active {
            _ if lacking == FrameCount::ZERO => 0.0,
            Some(active) => stall_of_missing(lacking, active),
            None => 1.0,
        };
    }
    stall
}

#[cfg(test)]
mod tests {
    use super::{GuestPlan, least_stall};
    use crate::scheduler::Limits;
    use crate::simulate::guest::Manners;
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    fn plan(demand: &str, swap_mib: u64) -> GuestPlan {
        let limits = Limits { min: FrameCount::from_mib(16), max: FrameCount::from_mib(256) };
        let swap = FrameCount::from_mib(swap_mib);
        let demand = demand.parse().unwrap();
        GuestPlan { limits, demand, offset: Duration::ZERO, swap, manners: Manners::Follows, paging_per_s: None }
    }

    fn stall(guests: &[GuestPlan], pool_mib: u64) -> Duration {
        least_stall(guests, FrameCount::from_mib(pool_mib), Duration::from_secs(2), Duration::from_millis(20))
    }

    #[test]
    fn the_fewest_guests_stand_still() {
        let fleet = [plan("200M:1s", 0), plan("60M:1s", 0), plan("60M:1s", 0)];
        assert_eq!(stall(&fleet, 512), Duration::ZERO);
        assert_eq!(stall(&fleet, 200), Duration::from_secs(2), "the largest waits");
        assert_eq!(stall(&fleet, 100), Duration::from_secs(4));
    }

    #[test]
    fn idle_memory_on_disk_costs_nothing() {
        let fleet = [plan("200M/40M:1s", 256), plan("200M/40M:1s", 256)];
        assert_eq!(stall(&fleet, 96), Duration::ZERO);
        assert!(stall(&fleet, 90) > Duration::ZERO);
    }
}
