//! Why a guest has to end, or has failed: the supervisor's judgement of its conduct.

use aerostat_abi::units::FrameCount;

use super::overuse::{Finding, Overuse};
use crate::clock::Moment;
use crate::fleet::OveruseRule;
use crate::host::{EndReason, Ending};
use crate::supervisor::episodes::Episodes;

/// The judgement of one guest.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) rule: OveruseRule,
    pub(super) overuse: Overuse,
    pub(super) disagreements: Episodes,
    /// Why the supervisor ends the guest. Its process may still exist.
    sentence: Option<Ending>,
    /// The guest was asked to end.
    is_stopping: bool,
}

/// What a guest uses and may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) size: FrameCount,
    pub(super) resident: FrameCount,
}

impl Verdict {
    pub(super) fn new(rule: OveruseRule) -> Self {
        Self {
            rule,
            overuse: Overuse::default(),
            disagreements: Episodes::default(),
            sentence: None,
            is_stopping: false,
        }
    }

    /// Records that the guest was asked to end.
    pub(super) fn expect_stop(&mut self) {
        self.is_stopping = true;
    }

    /// Returns whether the guest was asked to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Records why the guest is ended. Only the first reason counts; returns whether this is it.
    pub(super) fn condemn(&mut self, reason: EndReason, details: impl FnOnce() -> String) -> bool {
        if self.sentence.is_some() {
            return false;
        }
        self.sentence = Some(Ending { reason, details: vec![details()] });
        true
    }

    /// Returns whether the guest uses memory beyond its size.
    pub(super) fn judge_use(&mut self, of: Use, now: Moment) -> Option<Finding> {
        self.overuse.observe(of.size, of.resident, now)
    }

    /// Returns how the guest ended, given what its process says. The supervisor's own reason comes
    /// first, and a process that stopped without having been asked has failed.
    pub(super) fn of_ending(&mut self, claimed: Ending) -> Ending {
        if let Some(sentence) = self.sentence.take() {
            return sentence;
        }
        if claimed.reason != EndReason::Stopped || self.is_stopping {
            return claimed;
        }
        let why = "its process stopped, and nothing had asked it to";
        Ending { reason: EndReason::Failed(why.into()), details: claimed.details }
    }
}
