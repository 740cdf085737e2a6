//! What the supervisor and one guest tell each other about resources: the guest's requests, the
//! answers, and the updates that were sent. Pure.

use std::time::Duration;

use aerostat_abi::requests::{Answer, FiledRequest, Generation, Outcome, ResourceKind, Resources, Sequence};

use crate::clock::Moment;
use crate::host::News;
use crate::supervisor::requests::RequestTotals;
use crate::supervisor::status::EventKind;
use crate::token_bucket::{Allowance, TokenBucket};

/// Answers that are reported as events: a guest decides how many there are.
const REPORTED: Allowance = Allowance { per_second: 1, burst: 20 };

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
        let is_told = answer.outcome != Outcome::Used && self.reported.take(now);
        is_told.then(|| EventKind::Request {
            guest: guest.to_owned(),
            kind,
            amount: amount.map_or(0, |request| request.amount),
            outcome: answer.outcome,
            granted: answer.granted,
            waited,
        })
    }

    /// Goes on from the generation that an earlier supervisor has told the guest.
    pub(in crate::supervisor) fn go_on_from(&mut self, told: Generation) {
        self.sent.generation = told;
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
}
