//! What the guest knows of its host, and when it asks for more. Pure.
//!
//! Two determinations, as in US 8,762,999: whether an update differs from the copy
//! ([`Requester::note_resources`]), and whether what the guest has covers what it is going to need
//! ([`Requester::next`]). `docs/requests.md` describes the protocol.

use aerostat_abi::requests::{Answer, Outcome, Request, ResourceKind, Resources, Sequence, Urgency};
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::growth::Growth;
use super::workloads::{Claim, Total, Workload, WorkloadId, Workloads};
use crate::time::Instant;

/// The least time between two requests. A host denies more than eight a second.
const SPACING_NS: u64 = 150_000_000;
/// How far growth is extrapolated.
const HORIZON_NS: u64 = 1_000_000_000;
/// A projection that exceeds what was asked for by less is not asked for anew.
const STEP: FrameCount = FrameCount::from_mib(8);
/// What comes with memory that an application uses: page tables, and noise in the accounts. A
/// minimum, and a part of the amount.
const LEAST_SLACK: FrameCount = FrameCount::from_mib(2);
const SLACK_DIVISOR: u64 = 64;

/// The guest's memory at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryState {
    /// All memory of the machine.
    pub(crate) total: FrameCount,
    /// Guest size.
    pub(crate) size: FrameCount,
    /// What an application can still get without waiting.
    pub(crate) spare: FrameCount,
}

impl MemoryState {
    fn used(&self) -> FrameCount {
        self.size.saturating_sub(self.spare)
    }
}

/// Whether the memory for a workload is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not yet.
    Pending,
    /// It is: allocating it does not wait.
    Ready,
    /// It is not, and will not be: the host has denied it.
    Denied(Outcome),
}

/// Whether an update says anything new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    Same,
    Different,
}

/// The state of the guest's requests for memory.
#[derive(Debug)]
pub(crate) struct Requester {
    /// The copy of the host's resources; `None` where the host does not tell.
    resources: Option<Resources>,
    workloads: Workloads,
    growth: Growth,
    /// The number of the last request.
    sequence: Sequence,
    asked: Option<Asked>,
    asked_at: Option<Instant>,
}

/// The request that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    sequence: Sequence,
    need: Need,
}

/// What the guest is going to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    /// The guest size for it.
    size: FrameCount,
    needed: Instant,
    urgency: Urgency,
}

/// A need, and whether the host has to know of it.
#[derive(Clone, Copy, Debug)]
enum Foreseen {
    /// The guest has what it needs.
    Covered(Need),
    /// It has not, or the host is to keep what it has.
    Asked(Need),
}

impl Foreseen {
    fn need(self) -> Need {
        let (Self::Covered(need) | Self::Asked(need)) = self;
        need
    }
}

impl Requester {
    pub(super) const fn new() -> Self {
        Self {
            resources: None,
            workloads: Workloads::new(),
            growth: Growth::new(),
            sequence: Sequence(0),
            asked: None,
            asked_at: None,
        }
    }

    /// Returns the copy of the host's resources.
    pub(crate) fn resources(&self) -> Option<Resources> {
        self.resources
    }

    /// Keeps an update: the first determination.
    pub(crate) fn note_resources(&mut self, resources: Resources) -> Update {
        let before = self.resources.replace(resources);
        if before.is_some_and(|before| !before.differs(&resources)) { Update::Same } else { Update::Different }
    }

    /// Declares a workload; `None` when there are too many.
    pub(crate) fn declare(&mut self, workload: Workload, memory: &MemoryState) -> Option<WorkloadId> {
        self.workloads.add(workload, memory.used())
    }

    /// Withdraws a workload.
    pub(crate) fn withdraw(&mut self, id: WorkloadId, memory: &MemoryState) {
        self.workloads.remove(id, memory.used());
    }

    /// Returns whether the memory for a workload is there.
    pub(crate) fn status(&self, id: WorkloadId, memory: &MemoryState) -> Status {
        let left = self.workloads.left(id, memory.used()).unwrap_or_default();
        if left <= memory.spare {
            return Status::Ready;
        }
        if self.resources.is_none() {
            return Status::Denied(Outcome::NotShared);
        }
        match self.answer() {
            Some(Answer { outcome, .. }) if outcome.is_denial() && outcome.is_final() => Status::Denied(outcome),
            _ => Status::Pending,
        }
    }

    /// Returns the request to send now, if there is one: the second determination.
    pub(crate) fn next(&mut self, memory: &MemoryState, now: Instant) -> Option<Request> {
        self.growth.observe(memory.used(), now);
        self.resources?;
        let foreseen = self.foresee(memory, now);
        if !self.is_to_be_sent(foreseen, memory) || now < self.due_at() {
            return None;
        }
        let need = foreseen.map(Foreseen::need);
        self.sequence = Sequence(self.sequence.0.checked_add(1)?);
        self.asked = need.map(|need| Asked { sequence: self.sequence, need });
        self.asked_at = Some(now);
        Some(Request {
            kind: ResourceKind::Memory,
            sequence: self.sequence,
            urgency: need.map_or(Urgency::Low, |need| need.urgency),
            amount: need.map_or(0, |need| need.size.bytes()),
            needed_in_ns: need.map_or(0, |need| need.needed.since(now)),
        })
    }

    /// Returns when a request may be sent that [`Self::next`] has to send.
    pub(crate) fn due_at(&self) -> Instant {
        self.asked_at.map_or(Instant::default(), |at| at.after(SPACING_NS))
    }

    /// Returns whether a request waits until it may be sent.
    pub(crate) fn is_waiting(&self, memory: &MemoryState, now: Instant) -> bool {
        self.resources.is_some() && self.is_to_be_sent(self.foresee(memory, now), memory)
    }

    /// Returns what the projected workload needs, `None` where it needs no more than is in use.
    fn foresee(&self, memory: &MemoryState, now: Instant) -> Option<Foreseen> {
        let Total { used, amount, needed, urgency, claim } = match self.workloads.total() {
            Some(total) => total,
            None => self.extrapolate(memory, now),
        };
        let more = used.saturating_sub(memory.used());
        if more == FrameCount::ZERO {
            return None;
        }
        let slack = FrameCount(amount.0 / SLACK_DIVISOR).max(LEAST_SLACK);
        let size = FrameCount(used.saturating_add(slack).0.next_multiple_of(HUGE_FRAMES));
        // What can be had at all is asked for; what can't be had is denied by the host.
        let need = Need { size: size.min(memory.total.max(used)), needed, urgency };
        let is_covered = more <= memory.spare && claim == Claim::WhenShort;
        Some(if is_covered { Foreseen::Covered(need) } else { Foreseen::Asked(need) })
    }

    /// Returns the projected workload of an application that has declared none.
    fn extrapolate(&self, memory: &MemoryState, now: Instant) -> Total {
        let amount = self.growth.within(HORIZON_NS);
        Total {
            used: memory.used().saturating_add(amount).min(memory.total),
            amount,
            needed: now.after(HORIZON_NS),
            urgency: Urgency::Low,
            claim: Claim::WhenShort,
        }
    }

    /// Returns whether this need has to be sent, or that there is none. What was answered for good
    /// is not asked for again, except where the host only had no time for it.
    fn is_to_be_sent(&self, foreseen: Option<Foreseen>, memory: &MemoryState) -> bool {
        let outcome = self.answer().map(|answer| answer.outcome);
        let Some(Asked { need: asked, .. }) = self.asked else { return matches!(foreseen, Some(Foreseen::Asked(_))) };
        let is_over = outcome.is_some_and(Outcome::is_final);
        match foreseen.map(Foreseen::need) {
            // What was used needs no word.
            None => !is_over && asked.size.saturating_sub(memory.used()) >= STEP,
            Some(_) if outcome == Some(Outcome::TooMany) => true,
            // A projection changes all the time.
            Some(need) if need.urgency == Urgency::Low && asked.urgency == Urgency::Low => {
                let has_ended = is_over && !outcome.is_some_and(Outcome::is_denial);
                let is_short = matches!(foreseen, Some(Foreseen::Asked(_)));
                is_short && (has_ended || need.size >= asked.size.saturating_add(STEP))
            }
            Some(need) => need != asked,
        }
    }

    /// Returns the answer to the request that is in force.
    fn answer(&self) -> Option<Answer> {
        let asked = self.asked?;
        self.resources?.answer(ResourceKind::Memory).filter(|answer| answer.sequence == asked.sequence)
    }
}

#[cfg(test)]
mod tests;
