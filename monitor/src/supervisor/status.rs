//! The supervisor's view of a fleet at one moment, and the events of a run, for observers.

use std::fmt;
use std::time::Duration;

use aerostat_abi::requests::{Outcome as RequestOutcome, ResourceKind};
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::command::Version;
use super::enforcement::EnforcementStatus;
use super::loop_time::LoopTimes;
use super::swap::SwapStatus;
use crate::fleet::{Machine, OveruseRule, RestartRule};
use crate::host::Ending;
use crate::scheduler::{Cause, IdleTax, IgnoredTarget, Inputs, Limits, PoolState, Reason, Rung, Subscription, Usage};

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
    /// Pool memory that no guest holds.
    pub free: FrameCount,
    /// How much of the pool is free, in the scheduler's terms.
    pub state: PoolState,
    /// Σ of the minima and reservations of guests that were admitted.
    pub guaranteed: FrameCount,
    /// Physical memory that the guests' processes use, where it is measured.
    pub physical: Option<FrameCount>,
    /// How much more idle memory costs a guest.
    pub idle_tax: IdleTax,
    /// Polls at which more memory was granted or used than the pool has.
    pub violations: u64,
    /// The rounds of the supervisor's loop.
    pub loop_times: LoopTimes,
    /// Counts changes of the fleet: guests that come and go, and the pool.
    pub version: Version,
    /// Every guest of the fleet, in the order of the fleet file.
    pub guests: Vec<GuestStatus>,
}

/// The status of a guest.
#[derive(Clone, Debug)]
pub struct GuestStatus {
    /// Its name in the fleet file.
    pub name: String,
    /// Its state.
    pub state: GuestState,
    /// The smallest and the largest size that it may have.
    pub limits: Limits,
    /// Its part of a pool that is too small for all.
    pub subscription: Subscription,
    /// All memory that its machine has; zero before it was started.
    pub machine: FrameCount,
    /// Guest size: total memory less balloon.
    pub size: FrameCount,
    /// Frames in the balloon.
    pub balloon: FrameCount,
    /// The size that it is to have.
    pub target: FrameCount,
    /// Host memory behind it.
    pub resident: FrameCount,
    /// Frames that the host has paged out; `None` where it can't be paged.
    pub paged_out: Option<FrameCount>,
    /// What is done about it while it is larger than its target.
    pub enforcement: Option<EnforcementStatus>,
    /// What it uses its memory for, by its own report; `None` before the first one.
    pub usage: Option<Usage>,
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
    /// The scheduler's latest decision, also one that changed nothing.
    pub decision: Option<DecisionStatus>,
    /// When its target changed last, from the begin of the run, and the decision that changed it.
    pub last_change: Option<(Duration, DecisionStatus)>,
    /// How it ended, if it did.
    pub ending: Option<String>,
    /// Its starts and settings.
    pub service: ServiceStatus,
}

impl GuestStatus {
    /// Returns the status of a guest that was never started.
    pub(super) fn down(name: &str, limits: Limits, subscription: Subscription) -> Self {
        Self {
            name: name.to_owned(),
            state: GuestState::Down,
            limits,
            subscription,
            machine: FrameCount::ZERO,
            size: FrameCount::ZERO,
            balloon: FrameCount::ZERO,
            target: FrameCount::ZERO,
            resident: FrameCount::ZERO,
            paged_out: None,
            enforcement: None,
            usage: None,
            wanted: FrameCount::ZERO,
            rate_per_s: FrameCount::ZERO,
            balloon_state: String::new(),
            swap: None,
            activity: String::new(),
            decision: None,
            last_change: None,
            ending: None,
            service: ServiceStatus::default(),
        }
    }
}

/// A decision of the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionStatus {
    /// The target before.
    pub from: FrameCount,
    /// The target afterwards.
    pub to: FrameCount,
    /// Why.
    pub reason: Reason,
    /// What was decided from.
    pub inputs: Inputs,
    /// The name of the guest that lacked most of what it was entitled to, if it is another one; the
    /// inputs say how much.
    pub in_need: Option<String>,
}

/// A guest as a service: what a user has set, and how often it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// What runs the guest.
    pub machine: Machine,
    /// Counts changes of the settings.
    pub version: Version,
    /// The target that a user has set instead of the scheduler.
    pub pinned: Option<FrameCount>,
    /// Whether the guest is started again when it has ended.
    pub restart: RestartRule,
    /// What follows when the guest goes on to ignore its target.
    pub ignored_target: IgnoredTarget,
    /// How often it was to start.
    pub starts: u64,
    /// When it starts again, or gives up waiting for memory, from the begin of the run.
    pub until: Option<Duration>,
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
    /// It was stopped, as it ignored its target.
    Paused,
    /// It was asked to end.
    Stopping,
    /// It has ended.
    Ended,
    /// It waits until the pool has its minimum.
    Queued,
    /// It has ended and is to start again, not at once.
    BackingOff,
    /// It was never started.
    Down,
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
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Queued => "queued",
            Self::BackingOff => "back-off",
            Self::Down => "down",
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
    /// A guest that an earlier supervisor has started was taken over.
    Adopted {
        /// The guest.
        guest: String,
        /// The target that is in force.
        target: FrameCount,
        /// Its size.
        size: FrameCount,
    },
    /// A guest was left to the next supervisor, and runs on.
    Left {
        /// The guest.
        guest: String,
        /// The target that stays in force.
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
    /// A guest has asked for more of a resource, and was answered.
    Request {
        /// The guest.
        guest: String,
        /// What it asked for.
        kind: ResourceKind,
        /// How much of it the guest needs in all, in the unit of the kind.
        amount: u64,
        /// What became of the request.
        outcome: RequestOutcome,
        /// What the guest may have in all.
        granted: u64,
        /// How long after the request was read.
        waited: Duration,
        /// How many answers to this guest before were not reported, as there are so many.
        untold: u64,
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
    /// A guest could not be started; its restart rule says what follows.
    NotStarted {
        /// The guest.
        guest: String,
        /// Why.
        why: String,
    },
    /// A guest gave up waiting for memory to start with.
    GaveUp {
        /// The guest.
        guest: String,
        /// What the pool lacked.
        why: String,
    },
    /// A user changed something.
    Changed {
        /// What, in a line.
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
    /// A guest ignores its target, and the host has begun to do something about it.
    Confined {
        /// The guest.
        guest: String,
        /// What the host does.
        rung: Rung,
        /// Why.
        cause: Cause,
        /// Its target.
        target: FrameCount,
        /// By how much it is larger.
        withheld: FrameCount,
        /// How often that began since this was last told.
        episodes: u64,
    },
    /// A guest that was confined follows its target again, or its target is its size.
    Unconfined {
        /// The guest.
        guest: String,
        /// How long it was confined.
        lasted: Duration,
        /// The most of its memory that was paged out.
        peak_paged_out: FrameCount,
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
            Self::Adopted { guest, target, size } => {
                write!(f, "{guest} was taken over with a target of {target} and a size of {size}")
            }
            Self::Left { guest, target } => {
                write!(f, "{guest} runs on with a target of {target}, for the next supervisor")
            }
            Self::Target { guest, from, to, reason, inputs, in_need } => {
                write!(f, "{guest} target from {from} to {to}, because {reason} ({inputs}")?;
                match in_need {
                    Some(other) => write!(f, "; {other} lacks most)"),
                    None => f.write_str(")"),
                }
            }
            Self::Request { guest, kind, amount, outcome, granted, waited, untold } => {
                let quantity = |amount| Quantity { kind: *kind, amount };
                write!(f, "{guest} asked for {} and ", quantity(*amount))?;
                match outcome {
                    RequestOutcome::Withdrawn => write!(f, "withdrew it"),
                    RequestOutcome::PartlyGranted => {
                        write!(f, "gets {}, its fair share of a pool that is all in demand", quantity(*granted))
                    }
                    outcome => write!(f, "{outcome}"),
                }?;
                if *outcome == RequestOutcome::Granted {
                    write!(f, " after {:.0} ms", waited.as_secs_f64() * 1e3)?;
                }
                if *untold > 0 {
                    write!(f, " ({untold} answers before this one are not listed)")?;
                }
                Ok(())
            }
            Self::Silent { guest, since } => {
                write!(f, "{guest} is silent: it has not come to its balloon since {:.2} s", since.as_secs_f64())
            }
            Self::Inspected { guest, line } => write!(f, "{guest} | {line}"),
            Self::Problem { guest, what } => write!(f, "{guest} has a problem: {what}"),
            Self::NotStarted { guest, why } => write!(f, "{guest} can't be started: {why}"),
            Self::GaveUp { guest, why } => write!(f, "{guest} is not started: {why}"),
            Self::Changed { what } => f.write_str(what),
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
            Self::Confined { guest, rung, cause, target, withheld, episodes } => {
                let what = match rung {
                    Rung::Asked | Rung::Paging => "the host pages it out",
                    Rung::Squeezed => "the host takes memory from its process",
                    Rung::Paused => "it is paused",
                    Rung::Ending => "it is ended",
                };
                let times = Times(*episodes);
                write!(f, "{guest} is {withheld} above its target of {target}, as {cause}: {what}{times}")
            }
            Self::Unconfined { guest, lasted, peak_paged_out } => {
                let seconds = lasted.as_secs_f64();
                write!(
                    f,
                    "{guest} is at its target again after {seconds:.1} s; at most {peak_paged_out} were paged out"
                )
            }
            Self::Disagreement { guest, reported, balloon, episodes } => {
                write!(f, "{guest} reports a balloon of {reported} and has one of {balloon}{}", Times(*episodes))
            }
        }
    }
}

/// An amount of a resource.
struct Quantity {
    kind: ResourceKind,
    amount: u64,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, amount } = self;
        match kind {
            ResourceKind::Memory => write!(f, "{} of memory", FrameCount::from_bytes_ceil(*amount)),
            ResourceKind::Processors => write!(f, "{amount} processors"),
            ResourceKind::Disk => write!(f, "{} of a disk", FrameCount::from_bytes_ceil(*amount)),
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

#[cfg(test)]
impl FleetStatus {
    /// A fleet without guests.
    pub(crate) fn for_tests(pool: FrameCount) -> Self {
        Self {
            elapsed: Duration::ZERO,
            pool,
            granted: FrameCount::ZERO,
            resident: FrameCount::ZERO,
            moved: FrameCount::ZERO,
            free: pool,
            state: PoolState::High,
            guaranteed: FrameCount::ZERO,
            physical: None,
            idle_tax: IdleTax::default(),
            violations: 0,
            loop_times: LoopTimes::default(),
            version: Version::default(),
            guests: Vec::new(),
        }
    }
}

#[cfg(test)]
impl GuestStatus {
    /// A guest that was never started, of at most `max`.
    pub(crate) fn for_tests(name: &str, max: FrameCount) -> Self {
        Self::down(name, Limits { min: FrameCount::ZERO, max }, Subscription::default())
    }
}
