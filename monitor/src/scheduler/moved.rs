//! How much memory moved from one guest to another.
//!
//! *Moved* is host memory that one guest's balloon released, that was then granted to another guest
//! and became resident there. Memory has no names, so the account works with tokens:
//!
//! * The smaller of what a guest's balloon gained and what its resident memory lost becomes free
//!   tokens of that guest. So a balloon of untouched frames releases nothing, and a guest that ends
//!   releases nothing by its balloon.
//! * A grant takes free tokens. Those of the guest itself are spent: its own memory returned to it.
//!   Those of others become pending tokens of the guest.
//! * When the guest's resident memory grows, pending tokens count as moved.
//!
//! Balloon and resident memory are measured at different moments, so a change of one that has no
//! counterpart yet is kept for a short while.

use std::collections::BTreeMap;
use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::limits::GuestId;
use crate::clock::Moment;

/// How long a change of the balloon and one of resident memory may lie apart and still belong
/// together.
const MATCH_WINDOW: Duration = Duration::from_millis(500);

/// One reading of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Frames in the balloon.
    pub balloon: FrameCount,
    /// Host memory behind the guest.
    pub resident: FrameCount,
    /// The guest's target.
    pub target: FrameCount,
}

/// The account of a whole fleet.
#[derive(Debug, Default)]
pub struct MovedAccount {
    guests: BTreeMap<GuestId, Flow>,
    /// What balloons released and no guest was granted since, by origin.
    free: BTreeMap<GuestId, FrameCount>,
    moved: FrameCount,
}

#[derive(Debug, Default)]
struct Flow {
    last: Option<Reading>,
    /// Balloon growth that no fall of resident memory matches yet.
    inflated: FrameCount,
    /// Fall of resident memory that no balloon growth matches yet.
    fallen: FrameCount,
    /// When one of the two last grew.
    changed: Moment,
    /// Tokens of other guests that were granted and are not resident yet.
    pending: FrameCount,
}

impl MovedAccount {
    /// Returns what moved so far.
    #[must_use]
    pub fn moved(&self) -> FrameCount {
        self.moved
    }

    /// Records that `granted` frames of free pool memory were granted to `guest`.
    pub fn granted(&mut self, guest: GuestId, granted: FrameCount) {
        let own = self.free.entry(guest).or_default();
        let mut left = granted.saturating_sub(*own);
        *own = own.saturating_sub(granted);
        let flow = self.guests.entry(guest).or_default();
        for (_, tokens) in self.free.iter_mut().filter(|(origin, _)| **origin != guest) {
            let drawn = left.min(*tokens);
            *tokens = tokens.saturating_sub(drawn);
            left = left.saturating_sub(drawn);
            flow.pending = flow.pending.saturating_add(drawn);
        }
    }

    /// Records a reading of `guest`.
    pub fn observe(&mut self, guest: GuestId, reading: Reading, now: Moment) {
        let flow = self.guests.entry(guest).or_default();
        let last = flow.last.replace(reading).unwrap_or(reading);

        let arrived = reading.resident.saturating_sub(last.resident).min(flow.pending);
        self.moved = self.moved.saturating_add(arrived);
        // No more can be pending than may still become resident: a lowered target takes a grant
        // back.
        let room = reading.target.saturating_sub(reading.resident);
        flow.pending = flow.pending.saturating_sub(arrived).min(room);

        let released = flow.release(last, reading, now);
        let tokens = self.free.entry(guest).or_default();
        *tokens = tokens.saturating_add(released);
    }

    /// Removes a guest that ended. What its balloon released before stays for others.
    pub fn remove(&mut self, guest: GuestId) {
        self.guests.remove(&guest);
    }
}

impl Flow {
    /// Returns what the balloon released between two readings.
    fn release(&mut self, last: Reading, reading: Reading, now: Moment) -> FrameCount {
        if now.since(self.changed) > MATCH_WINDOW {
            self.inflated = FrameCount::ZERO;
            self.fallen = FrameCount::ZERO;
        }
        let inflated = reading.balloon.saturating_sub(last.balloon);
        let fallen = last.resident.saturating_sub(reading.resident);
        if inflated.max(fallen) > FrameCount::ZERO {
            self.changed = now;
        }
        // A change in the other direction takes away what has no counterpart yet: it released
        // nothing.
        self.inflated =
            self.inflated.saturating_sub(last.balloon.saturating_sub(reading.balloon)).saturating_add(inflated);
        self.fallen = self.fallen.saturating_sub(reading.resident.saturating_sub(last.resident)).saturating_add(fallen);
        let released = self.inflated.min(self.fallen);
        self.inflated = self.inflated.saturating_sub(released);
        self.fallen = self.fallen.saturating_sub(released);
        released
    }
}

#[cfg(test)]
mod tests {
    use super::{MovedAccount, Reading};
    use crate::clock::Moment;
    use crate::scheduler::GuestId;
    use aerostat_abi::units::FrameCount;

    const A: GuestId = GuestId(0);
    const B: GuestId = GuestId(1);

    /// Readings in frames: balloon, resident, target.
    fn observe(account: &mut MovedAccount, guest: GuestId, reading: [u64; 3], ms: u64) {
        let [balloon, resident, target] = reading.map(FrameCount);
        account.observe(guest, Reading { balloon, resident, target }, Moment::from_ns(ms * 1_000_000));
    }

    #[test]
    fn released_granted_and_touched_memory_has_moved() {
        let mut account = MovedAccount::default();
        observe(&mut account, A, [0, 100, 100], 0);
        observe(&mut account, B, [100, 0, 0], 0);
        observe(&mut account, A, [60, 40, 40], 20);
        account.granted(B, FrameCount(80));
        assert_eq!(account.moved(), FrameCount::ZERO, "nothing is resident there yet");
        observe(&mut account, B, [20, 30, 80], 40);
        assert_eq!(account.moved(), FrameCount(30));
        observe(&mut account, B, [20, 80, 80], 60);
        assert_eq!(account.moved(), FrameCount(60), "the other 20 came from no balloon");
    }

    #[test]
    fn balloon_and_resident_memory_may_change_at_different_moments() {
        let mut account = MovedAccount::default();
        observe(&mut account, A, [0, 100, 100], 0);
        observe(&mut account, A, [60, 100, 40], 20);
        observe(&mut account, A, [60, 40, 40], 40);
        account.granted(B, FrameCount(60));
        observe(&mut account, B, [0, 0, 60], 40);
        observe(&mut account, B, [0, 60, 60], 60);
        assert_eq!(account.moved(), FrameCount(60));
    }

    #[test]
    fn a_balloon_of_untouched_frames_releases_nothing() {
        let mut account = MovedAccount::default();
        observe(&mut account, A, [0, 100, 200], 0);
        observe(&mut account, A, [100, 100, 100], 20);
        observe(&mut account, A, [100, 50, 100], 900);
        account.granted(B, FrameCount(100));
        observe(&mut account, B, [0, 0, 100], 900);
        observe(&mut account, B, [0, 100, 100], 920);
        assert_eq!(account.moved(), FrameCount::ZERO);
    }

    #[test]
    fn memory_that_comes_back_has_not_moved() {
        let mut account = MovedAccount::default();
        observe(&mut account, A, [0, 100, 100], 0);
        observe(&mut account, A, [60, 40, 40], 20);
        account.granted(A, FrameCount(60));
        observe(&mut account, A, [0, 100, 100], 40);
        account.granted(B, FrameCount(60));
        observe(&mut account, B, [0, 0, 60], 40);
        observe(&mut account, B, [0, 60, 60], 60);
        assert_eq!(account.moved(), FrameCount::ZERO);
    }

    #[test]
    fn a_guest_that_ends_releases_nothing_by_its_balloon() {
        let mut account = MovedAccount::default();
        observe(&mut account, A, [0, 100, 100], 0);
        account.remove(A);
        account.granted(B, FrameCount(100));
        observe(&mut account, B, [0, 0, 100], 20);
        observe(&mut account, B, [0, 100, 100], 40);
        assert_eq!(account.moved(), FrameCount::ZERO);
    }

    #[test]
    fn a_grant_that_was_taken_back_is_not_pending() {
        let mut account = MovedAccount::default();
        observe(&mut account, A, [0, 100, 100], 0);
        observe(&mut account, A, [60, 40, 40], 20);
        account.granted(B, FrameCount(60));
        observe(&mut account, B, [0, 0, 60], 20);
        observe(&mut account, B, [60, 0, 0], 40);
        observe(&mut account, B, [0, 60, 60], 60);
        assert_eq!(account.moved(), FrameCount::ZERO);
    }
}
