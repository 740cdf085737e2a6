//! The supervisor's view of a fleet at one moment, and the events of a run, for observers.

use std::fmt;
use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::swap::SwapStatus;
use crate::fleet::OveruseRule;
use crate::host::Ending;
use crate::scheduler::{Inputs, Reason};

/// The status of a fleet.
#[derive(Clone, Debug)]
pub struct FleetStatus {
    /// Time since the run began.
    pub elapsed: Duration,
    /// Host memory that the guests share.
    pub pool: FrameCount,
    /// Σ of the targets of living guests.
    pub granted: FrameCount,
    /// Σ of the resident memory of living guests.
    pub resident: FrameCount,
    /// Memory moved between guests so far.
    pub moved: FrameCount,
    /// Every guest of the fleet file, in its order.
    pub guests: Vec<GuestStatus>,
}

/// The status of a guest.
#[derive(Clone, Debug)]
pub struct GuestStatus {
    /// Its name in the fleet file.
    pub name: String,
    /// Its state.
    pub state: GuestState,
    /// The largest size that it may have.
    pub max: FrameCount,
    /// Guest size: total memory less balloon.
    pub size: FrameCount,
    /// Frames in the balloon.
    pub balloon: FrameCount,
    /// The size that it is to have.
    pub target: FrameCount,
    /// Host memory behind it.
    pub resident: FrameCount,
    /// Memory that threads in it wait for, by its own report.
    pub wanted: FrameCount,
    /// How much its balloon may inflate in a second.
    pub rate_per_s: FrameCount,
    /// What its balloon does, and its stall reason. Untrusted text, as the activity.
    pub balloon_state: String,
    /// What it has swapped out; `None` before it has, and for a guest that ended.
    pub swap: Option<SwapStatus>,
    /// What its application says it does. Untrusted text: it may have control characters, which are
    /// replaced before it is shown.
    pub activity: String,
}

/// The state of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// The application's `main` has not been called.
    Starting,
    /// Its size is its target.
    Running,
    /// Its size is above its target.
    Shrinking,
    /// Its size is below its target.
    Growing,
    /// A thread in it waits for memory, and none is on its way.
    Waiting,
    /// Its driver has made no call to its balloon for a while.
    Silent,
    /// It has ended.
    Ended,
}

impl GuestState {
    /// Returns the state of a running guest that makes calls and in which threads wait for `wanted`
    /// more memory. That they wait matters more than that the balloon inflates meanwhile; while it
    /// deflates, the memory that they wait for is on its way. Differences below a huge frame do not
    /// count.
    pub(super) fn of_sizes(size: FrameCount, target: FrameCount, wanted: FrameCount) -> Self {
        if target.saturating_sub(size).0 >= HUGE_FRAMES {
            Self::Growing
        } else if wanted > FrameCount::ZERO {
            Self::Waiting
        } else if size.saturating_sub(target).0 >= HUGE_FRAMES {
            Self::Shrinking
        } else {
            Self::Running
        }
    }
}

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Shrinking => "shrinking",
            Self::Growing => "growing",
            Self::Waiting => "waiting",
            Self::Silent => "silent",
            Self::Ended => "ended",
        })
    }
}

/// An event of a run.
#[derive(Clone, Debug)]
pub struct Event {
    /// Time since the run began.
    pub at: Duration,
    /// What happened.
    pub what: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A guest's process was started.
    Started {
        /// The guest.
        guest: String,
        /// Its first target.
        target: FrameCount,
    },
    /// The scheduler changed a target.
    Target {
        /// The guest.
        guest: String,
        /// The target before.
        from: FrameCount,
        /// The target now.
        to: FrameCount,
        /// Why.
        reason: Reason,
        /// What was decided from.
        inputs: Inputs,
        /// The other guest that lacks most, if one lacks memory.
        in_need: Option<String>,
    },
    /// A guest's driver has made no call to its balloon for a while. Where its processor is
    /// follows.
    Silent {
        /// The guest.
        guest: String,
        /// When it last made one, from the begin of the run.
        since: Duration,
    },
    /// Where a guest's processor is: one of several lines.
    Inspected {
        /// The guest.
        guest: String,
        /// Registers or a return address. Untrusted text.
        line: String,
    },
    /// Something in a guest's process does not work as it should, and the guest goes on.
    Problem {
        /// Whose.
        guest: String,
        /// What. Untrusted text.
        what: String,
    },
    /// A guest ended.
    Ended {
        /// The guest.
        guest: String,
        /// How.
        ending: Ending,
    },
    /// More than the pool was granted or taken: a bug in the monitor, or the doing of a guest that
    /// uses memory beyond its size.
    Violation {
        /// Σ of the targets.
        granted: FrameCount,
        /// Physical memory that the guests take, or Σ of their resident memory and page tables
        /// where that is more.
        resident: FrameCount,
        /// The pool.
        pool: FrameCount,
        /// How often it began since this was last told.
        episodes: u64,
    },
    /// A guest began to use memory beyond its size.
    Overuse {
        /// The guest.
        guest: String,
        /// How much.
        excess: FrameCount,
        /// What becomes of it.
        rule: OveruseRule,
        /// How often it began since this was last told.
        episodes: u64,
    },
    /// A guest began to report another balloon than it has.
    Disagreement {
        /// The guest.
        guest: String,
        /// Balloon size by its latest report.
        reported: FrameCount,
        /// Balloon size.
        balloon: FrameCount,
        /// How often it began since this was last told.
        episodes: u64,
    },
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { guest, target } => write!(f, "{guest} started with a target of {target}"),
            Self::Target { guest, from, to, reason, inputs, in_need } => {
                write!(f, "{guest} target from {from} to {to}, because {reason} ({inputs}")?;
                match in_need {
                    Some(other) => write!(f, "; {other} lacks most)"),
                    None => f.write_str(")"),
                }
            }
            Self::Silent { guest, since } => {
                write!(f, "{guest} is silent: it has not come to its balloon since {:.2} s", since.as_secs_f64())
            }
            Self::Inspected { guest, line } => write!(f, "{guest} | {line}"),
            Self::Problem { guest, what } => write!(f, "{guest} has a problem: {what}"),
            Self::Ended { guest, ending } => write!(f, "{guest} ended: {}", ending.reason),
            Self::Violation { granted, resident, pool, episodes } => {
                write!(f, "violation: {granted} granted and {resident} taken of a pool of {pool}{}", Times(*episodes))
            }
            Self::Overuse { guest, excess, rule, episodes } => {
                let consequence = match rule {
                    OveruseRule::Warn => "",
                    OveruseRule::Cap => ", which is taken away again",
                    OveruseRule::Kill => " and is ended for it",
                };
                write!(f, "{guest} uses {excess} beyond its size{consequence}{}", Times(*episodes))
            }
            Self::Disagreement { guest, reported, balloon, episodes } => {
                write!(f, "{guest} reports a balloon of {reported} and has one of {balloon}{}", Times(*episodes))
            }
        }
    }
}

/// A number of times, empty for one.
struct Times(u64);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => Ok(()),
            times => write!(f, " ({times} times since this was last told)"),
        }
    }
}
