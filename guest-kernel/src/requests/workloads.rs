//! What the application has declared that it is going to need. Pure.

use aerostat_abi::requests::Urgency;
use aerostat_abi::units::FrameCount;

use crate::time::Instant;

/// The most declarations at a time.
const MOST: usize = 8;

/// A declaration's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkloadId(u64);

/// What the application is going to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Memory in addition to what it uses.
    pub(crate) amount: FrameCount,
    /// When it needs it.
    pub(crate) needed: Instant,
    pub(crate) urgency: Urgency,
    pub(crate) claim: Claim,
}

/// When the host is asked for a workload's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// When the guest has less than it is going to need.
    WhenShort,
    /// In any case, so that the host keeps for the guest what it has.
    Always,
}

/// The declarations.
#[derive(Debug)]
pub(super) struct Workloads {
    places: [Option<(WorkloadId, Workload)>; MOST],
    next: u64,
    /// What the guest used when the declarations last changed.
    base: FrameCount,
}

/// What all declarations need together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Total {
    /// What the guest uses when it has taken all of it.
    pub(super) used: FrameCount,
    /// What of that it had not taken when the declarations last changed.
    pub(super) amount: FrameCount,
    /// When the first part is needed.
    pub(super) needed: Instant,
    pub(super) urgency: Urgency,
    pub(super) claim: Claim,
}

impl Workloads {
    pub(super) const fn new() -> Self {
        Self { places: [None; MOST], next: 0, base: FrameCount::ZERO }
    }

    /// Adds a workload of a guest that uses `used`; `None` when there are too many.
    pub(super) fn add(&mut self, workload: Workload, used: FrameCount) -> Option<WorkloadId> {
        self.settle(used);
        let place = self.places.iter_mut().find(|place| place.is_none())?;
        let id = WorkloadId(self.next);
        self.next += 1;
        *place = Some((id, workload));
        Some(id)
    }

    /// Removes a workload.
    pub(super) fn remove(&mut self, id: WorkloadId, used: FrameCount) {
        self.settle(used);
        if let Some(place) = self.places.iter_mut().find(|place| place.is_some_and(|(number, _)| number == id)) {
            *place = None;
        }
    }

    /// Returns what is left of a workload for a guest that uses `used`.
    pub(super) fn left(&self, id: WorkloadId, used: FrameCount) -> Option<FrameCount> {
        let (_, workload) = self.places.iter().flatten().find(|(number, _)| *number == id)?;
        Some(workload.amount.min(self.total()?.used.saturating_sub(used)))
    }

    /// Returns what all workloads need that are not used up; `None` where there are none.
    pub(super) fn total(&self) -> Option<Total> {
        let open = || self.places.iter().flatten().map(|(_, workload)| workload);
        let amount = open().map(|workload| workload.amount).fold(FrameCount::ZERO, FrameCount::saturating_add);
        let is_claimed = open().any(|workload| workload.claim == Claim::Always);
        Some(Total {
            used: self.base.saturating_add(amount),
            amount,
            needed: open().map(|workload| workload.needed).min()?,
            urgency: open().map(|workload| workload.urgency).max()?,
            claim: if is_claimed { Claim::Always } else { Claim::WhenShort },
        })
    }

    /// Takes what the guest uses by now from what was declared, the earliest need first.
    fn settle(&mut self, used: FrameCount) {
        let mut grown = used.saturating_sub(self.base);
        self.base = used;
        let mut open: [_; MOST] = self.places.each_mut().map(Option::as_mut);
        open.sort_unstable_by_key(|place| {
            place.as_ref().map_or(Instant::from_nanos(u64::MAX), |(_, workload)| workload.needed)
        });
        for (_, workload) in open.into_iter().flatten() {
            let taken = grown.min(workload.amount);
            workload.amount = workload.amount.saturating_sub(taken);
            grown = grown.saturating_sub(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, MOST, Workload, Workloads};
    use crate::time::Instant;
    use aerostat_abi::requests::Urgency;
    use aerostat_abi::units::FrameCount;

    const fn frames(count: u64) -> FrameCount {
        FrameCount(count)
    }

    fn workload(amount: u64, needed: u64) -> Workload {
        Workload {
            amount: frames(amount),
            needed: Instant::from_nanos(needed),
            urgency: Urgency::Normal,
            claim: Claim::WhenShort,
        }
    }

    fn used_in_all(workloads: &Workloads) -> Option<u64> {
        workloads.total().map(|total| total.used.0)
    }

    #[test]
    fn workloads_add_up() {
        let mut workloads = Workloads::new();
        assert_eq!(workloads.total(), None);
        let first = workloads.add(workload(100, 9), frames(50)).unwrap();
        let urgent = Workload { urgency: Urgency::High, claim: Claim::Always, ..workload(30, 5) };
        let second = workloads.add(urgent, frames(50)).unwrap();
        let total = workloads.total().unwrap();
        assert_eq!((total.used, total.needed), (frames(180), Instant::from_nanos(5)));
        assert_eq!((total.urgency, total.claim), (Urgency::High, Claim::Always));
        workloads.remove(second, frames(50));
        assert_eq!(used_in_all(&workloads), Some(150));
        workloads.remove(first, frames(50));
        assert_eq!(workloads.total(), None);
    }

    #[test]
    fn what_is_used_is_not_needed_twice() {
        let mut workloads = Workloads::new();
        let first = workloads.add(workload(100, 1), frames(50)).unwrap();
        assert_eq!(workloads.left(first, frames(90)), Some(frames(60)));
        let second = workloads.add(workload(40, 2), frames(110)).unwrap();
        assert_eq!(used_in_all(&workloads), Some(190), "60 of the 100 are in use");
        assert_eq!(workloads.left(first, frames(110)), Some(frames(40)));
        workloads.remove(first, frames(150));
        assert_eq!((used_in_all(&workloads), workloads.left(second, frames(150))), (Some(190), Some(frames(40))));
        assert_eq!(workloads.left(first, frames(150)), None);
    }

    #[test]
    fn there_is_a_limit() {
        let mut workloads = Workloads::new();
        let added = (0..2 * MOST).filter(|_| workloads.add(workload(1, 1), frames(0)).is_some());
        assert_eq!(added.count(), MOST);
    }
}
