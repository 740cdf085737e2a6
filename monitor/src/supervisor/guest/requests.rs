//! What the supervisor and one guest tell each other about resources: the guest's requests, the
//! answers, and the updates that were sent. Pure.

use std::time::Duration;

use aerostat_abi::requests::{Answer, FiledRequest, Generation, Outcome, ResourceKind, Resources, Sequence};

use crate::clock::Moment;
use crate::host::News;
use crate::supervisor::requests::RequestTotals;
use crate::supervisor::status::EventKind;
use crate::token_bucket::{Allowance, TokenBucket};

/// Answers that are reported as events one by one: a guest decides how many there are.
const REPORTED: Allowance = Allowance { per_second: 1, burst: 20 };
/// The least time between two events of a guest that has more answers than that. Clients are kept
/// the latest few thousand events of all guests.
const SPACING: Duration = Duration::from_secs(60);

/// The exchange with one guest.
#[derive(Debug)]
pub(in crate::supervisor) struct Exchange {
    /// The guest's latest requests, as they were read.
    filed: Vec<FiledRequest>,
    /// When the latest request of each kind was first read.
    since: [Option<(Sequence, Moment)>; ResourceKind::ALL.len()],
    /// The answers that were noted last.
    noted: [Option<Answer>; ResourceKind::ALL.len()],
    /// What was sent last.
    sent: Resources,
    reported: TokenBucket,
    /// Whether there are more answers than are reported one by one.
    is_flood: bool,
    /// Answers that were not reported, and when one was last.
    untold: u64,
    last_told: Option<Moment>,
    totals: RequestTotals,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            filed: Vec::new(),
            since: Default::default(),
            noted: Default::default(),
            sent: Resources::default(),
            reported: TokenBucket::new(REPORTED),
            is_flood: false,
            untold: 0,
            last_told: None,
            totals: RequestTotals::default(),
        }
    }
}

impl Exchange {
    /// Records the requests that were read. Whether one is new is the scheduler's to find.
    pub(super) fn read(&mut self, filed: Vec<FiledRequest>, now: Moment) {
        for request in &filed {
            let since = &mut self.since[request.kind.index()];
            if since.is_none_or(|(sequence, _)| sequence < request.sequence) {
                *since = Some((request.sequence, now));
                self.totals.filed += u64::from(request.amount > 0);
            }
        }
        self.filed = filed;
    }

    /// Returns the guest's latest requests.
    pub(in crate::supervisor) fn filed(&self) -> &[FiledRequest] {
        &self.filed
    }

    /// Records an answer of the scheduler. Returns the event to report, if it is new.
    pub(in crate::supervisor) fn note(
        &mut self,
        guest: &str,
        (kind, answer): (ResourceKind, Answer),
        now: Moment,
    ) -> Option<EventKind> {
        let before = self.noted[kind.index()].replace(answer);
        let key = |answer: &Answer| (answer.sequence, answer.outcome);
        if before.as_ref().map(key) == Some(key(&answer)) {
            return None;
        }
        let waited = self.waited(kind, answer.sequence, now);
        self.totals.count(answer.outcome, waited);
        let amount = self.filed.iter().find(|request| (request.kind, request.sequence) == (kind, answer.sequence));
        let amount = amount.map_or(0, |request| request.amount);
        let untold = if answer.outcome == Outcome::Used { None } else { self.tell(now) }?;
        Some(EventKind::Request {
            guest: guest.to_owned(),
            kind,
            amount,
            outcome: answer.outcome,
            granted: answer.granted,
            waited,
            untold,
        })
    }

    /// Returns how many answers were not reported before this one, which is to be; `None` if it is
    /// not.
    fn tell(&mut self, now: Moment) -> Option<u64> {
        let is_told = if self.is_flood {
            self.last_told.is_none_or(|last| now.since(last) >= SPACING)
        } else {
            self.reported.take(now)
        };
        if !is_told {
            self.is_flood = true;
            self.untold += 1;
            return None;
        }
        self.is_flood &= self.untold > u64::from(REPORTED.burst);
        self.last_told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// Goes on from what an earlier supervisor has told the guest. Requests that it has answered
    /// are not counted again.
    pub(in crate::supervisor) fn go_on_from(&mut self, told: Resources, now: Moment) {
        for kind in ResourceKind::ALL {
            let answer = told.answer(kind);
            self.noted[kind.index()] = answer;
            self.since[kind.index()] = answer.map(|answer| (answer.sequence, now));
        }
        self.sent = told;
    }

    /// Returns what to send to the guest now, and whether it is news; `None` where it has this.
    pub(in crate::supervisor) fn update(&mut self, mut resources: Resources) -> Option<(Resources, News)> {
        for (kind, answer) in ResourceKind::ALL.into_iter().zip(self.noted) {
            resources.set_answer(kind, answer);
        }
        let Generation(before) = self.sent.generation;
        let is_news = before == 0 || resources.differs(&self.sent);
        // 0 stands for no update at all.
        resources.generation = if is_news { Generation(before.wrapping_add(1).max(1)) } else { self.sent.generation };
        if resources == self.sent {
            return None;
        }
        self.sent = resources;
        Some((resources, if is_news { News::Announce } else { News::KeepQuiet }))
    }

    pub(super) fn totals(&self) -> RequestTotals {
        self.totals
    }

    /// Returns how long ago the request was first read.
    fn waited(&self, kind: ResourceKind, sequence: Sequence, now: Moment) -> Duration {
        let since = self.since[kind.index()].filter(|(number, _)| *number == sequence);
        since.map_or(Duration::ZERO, |(_, since)| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::Exchange;
    use crate::clock::Moment;
    use crate::host::News;
    use crate::supervisor::status::EventKind;
    use aerostat_abi::requests::{
        Answer, Component, FiledRequest, Generation, Outcome, ResourceKind, Resources, Sequence, Urgency,
    };
    use std::time::Duration;

    const MEMORY: ResourceKind = ResourceKind::Memory;

    fn resources(total: u64, free: u64) -> Resources {
        let mut resources = Resources::default();
        resources.push(Component { kind: MEMORY, total, free, assigned: 1, most: 9 });
        resources
    }

    fn at(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    fn answer(sequence: u32, outcome: Outcome) -> (ResourceKind, Answer) {
        (MEMORY, Answer { sequence: Sequence(sequence), outcome, granted: 5 })
    }

    fn filed(sequence: u32) -> FiledRequest {
        let (sequence, urgency) = (Sequence(sequence), Urgency::Normal);
        FiledRequest { kind: MEMORY, sequence, urgency, amount: 7, needed_at_ns: 0 }
    }

    #[test]
    fn a_generation_is_new_when_the_guest_should_know() {
        let mut exchange = Exchange::default();
        let mut update = |resources| exchange.update(resources).map(|(sent, news)| (sent.generation.0, news));
        assert_eq!(update(resources(10, 5)), Some((1, News::Announce)));
        assert_eq!(update(resources(10, 5)), None);
        assert_eq!(update(resources(10, 6)), Some((1, News::KeepQuiet)));
        assert_eq!(update(resources(12, 6)), Some((2, News::Announce)));
        exchange.note("alpha", answer(1, Outcome::Granted), at(0));
        let (sent, news) = exchange.update(resources(12, 6)).unwrap();
        assert_eq!((sent.generation, news), (Generation(3), News::Announce));
        assert_eq!(sent.answer(MEMORY), Some(answer(1, Outcome::Granted).1));
    }

    #[test]
    fn an_outcome_is_counted_and_told_once() {
        let mut exchange = Exchange::default();
        exchange.read(vec![filed(1)], at(10));
        assert!(exchange.note("alpha", answer(1, Outcome::Queued), at(10)).is_some());
        assert!(exchange.note("alpha", answer(1, Outcome::Queued), at(20)).is_none());
        exchange.read(vec![filed(1)], at(30));
        assert!(exchange.note("alpha", answer(1, Outcome::Granted), at(40)).is_some());
        assert!(exchange.note("alpha", answer(1, Outcome::Granted), at(50)).is_none());
        let totals = exchange.totals();
        assert_eq!((totals.filed, totals.granted), (1, 1));
        assert_eq!(totals.longest_to_grant, Duration::from_millis(30));
    }

    #[test]
    fn a_flood_of_answers_is_not_a_flood_of_events() {
        let mut exchange = Exchange::default();
        let told = (1..1000).filter(|&sequence| {
            exchange.note("alpha", answer(sequence, Outcome::TooMany), at(u64::from(sequence))).is_some()
        });
        assert!(told.count() <= 21);
        assert_eq!(exchange.totals().denied, 999);
    }

    /// One answer in ten seconds is far within the allowance; one in a tenth of a second is not.
    #[test]
    fn what_was_not_told_is_counted() {
        let mut exchange = Exchange::default();
        let mut untold = Vec::new();
        let mut count = 0;
        for tenth in 0..3000 {
            let event = exchange.note("alpha", answer(tenth, Outcome::Queued), at(u64::from(tenth) * 100));
            count += u32::from(event.is_some());
            if let Some(EventKind::Request { untold: more @ 1.., .. }) = event {
                untold.push(more);
            }
        }
        assert!(count < 40, "{count} events in five minutes");
        assert!(untold.len() >= 4 && untold[..3].iter().all(|more| (500..=600).contains(more)), "{untold:?}");
        let mut exchange = Exchange::default();
        for step in 0..100 {
            let event = exchange.note("alpha", answer(step, Outcome::Queued), at(u64::from(step) * 10_000));
            assert!(matches!(event, Some(EventKind::Request { untold: 0, .. })), "{event:?}");
        }
    }

    #[test]
    fn what_an_earlier_supervisor_has_answered_is_not_new() {
        let mut told = resources(10, 5);
        told.generation = Generation(9);
        told.set_answer(MEMORY, Some(answer(3, Outcome::Granted).1));
        let mut exchange = Exchange::default();
        exchange.go_on_from(told, at(10));
        exchange.read(vec![filed(3)], at(20));
        assert!(exchange.note("alpha", answer(3, Outcome::Granted), at(20)).is_none());
        assert_eq!((exchange.totals().filed, exchange.totals().granted), (0, 0));
        assert_eq!(exchange.update(resources(10, 5)), None, "the guest knows it");
        assert!(exchange.note("alpha", answer(3, Outcome::Used), at(30)).is_none());
        let (sent, news) = exchange.update(resources(10, 5)).unwrap();
        assert_eq!((sent.generation, news), (Generation(10), News::Announce));
        exchange.read(vec![filed(4)], at(40));
        assert!(exchange.note("alpha", answer(4, Outcome::Queued), at(40)).is_some());
        assert_eq!(exchange.totals().filed, 1);
    }
}
