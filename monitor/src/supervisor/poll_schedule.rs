//! When to poll the guests. Pure.

use std::time::Duration;

use crate::clock::Moment;

/// The time between polls.
const INTERVAL: Duration = Duration::from_millis(20);
/// The same while a guest waits for memory that others are about to release.
const INTERVAL_WHILE_WAITING: Duration = Duration::from_millis(4);
/// The longest time between polls of a fleet at rest, whose interval is doubled by each poll. A
/// guest that begins to need memory, frees some or ends is noticed at once all the same, as that is
/// an event.
const INTERVAL_AT_REST: Duration = Duration::from_millis(160);
/// The least time between polls, however many events come.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);

/// The moments of the last poll and of the next.
#[derive(Debug, Default)]
pub(super) struct PollSchedule {
    last: Moment,
    next: Moment,
    /// The time between the last poll and the next, if no event comes.
    interval: Duration,
}

/// What the fleet did until a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Hardly any memory moved, and no target was changed.
    AtRest,
    /// Memory moved, and no guest waits for any.
    Met,
    /// A guest waits for memory that others are about to release.
    Waiting,
}

impl PollSchedule {
    /// Moves the next poll forward: something happened that requires one.
    pub(super) fn hurry(&mut self) {
        self.come_within(LEAST_INTERVAL);
    }

    /// Ends the rest of a fleet: something happened that is to be polled at the usual interval.
    pub(super) fn stir(&mut self) {
        self.come_within(INTERVAL);
    }

    fn come_within(&mut self, interval: Duration) {
        self.next = self.next.min(self.last.after(interval));
        self.interval = Duration::ZERO;
    }

    pub(super) fn is_due(&self, now: Moment) -> bool {
        now >= self.next
    }

    /// Returns the moment of the next poll.
    pub(super) fn next(&self) -> Moment {
        self.next
    }

    /// Records a poll, and schedules the next.
    pub(super) fn polled(&mut self, demand: Demand, now: Moment) {
        self.interval = match demand {
            Demand::AtRest => (2 * self.interval).clamp(INTERVAL, INTERVAL_AT_REST),
            Demand::Met => INTERVAL,
            Demand::Waiting => INTERVAL_WHILE_WAITING,
        };
        self.last = now;
        self.next = now.after(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::{Demand, PollSchedule};
    use crate::clock::Moment;

    const fn ms(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    #[test]
    fn the_first_poll_is_due_at_once() {
        assert!(PollSchedule::default().is_due(ms(0)));
    }

    #[test]
    fn a_guest_that_waits_is_polled_more_often() {
        let mut schedule = PollSchedule::default();
        schedule.polled(Demand::Met, ms(100));
        assert_eq!(schedule.next(), ms(120));
        schedule.polled(Demand::Waiting, ms(120));
        assert_eq!(schedule.next(), ms(124));
    }

    #[test]
    fn a_fleet_at_rest_is_polled_less_often_until_something_happens() {
        let mut schedule = PollSchedule::default();
        let mut now = ms(0);
        let mut intervals = Vec::new();
        let mut poll = |schedule: &mut PollSchedule, demand| {
            schedule.polled(demand, now);
            intervals.push(schedule.next().since(now).as_millis());
            now = schedule.next();
        };
        for demand in [Demand::Met, Demand::AtRest, Demand::AtRest, Demand::AtRest, Demand::AtRest, Demand::Met] {
            poll(&mut schedule, demand);
        }
        poll(&mut schedule, Demand::AtRest);
        schedule.hurry();
        poll(&mut schedule, Demand::AtRest);
        assert_eq!(intervals, [20, 40, 80, 160, 160, 20, 40, 20]);
    }

    #[test]
    fn a_fleet_that_stirs_is_polled_at_once_and_at_the_usual_interval_from_then_on() {
        let mut schedule = PollSchedule::default();
        for now in [0, 20, 60, 140] {
            schedule.polled(Demand::AtRest, ms(now));
        }
        assert_eq!(schedule.next(), ms(300));
        schedule.stir();
        assert!(schedule.is_due(ms(170)), "the last poll was 30 ms ago");
        schedule.polled(Demand::AtRest, ms(170));
        schedule.stir();
        assert_eq!(schedule.next(), ms(190), "however often it stirs");
    }

    #[test]
    fn events_bring_the_next_poll_forward_and_never_closer_than_a_millisecond() {
        let mut schedule = PollSchedule::default();
        schedule.polled(Demand::Met, ms(100));
        schedule.hurry();
        schedule.hurry();
        assert_eq!(schedule.next(), ms(101));
        assert!(!schedule.is_due(ms(100)) && schedule.is_due(ms(101)));
    }
}
