//! What the guests of a fleet are to do: which run, which wait for memory, which start again, and
//! when. Pure: the moment is passed in.
//!
//! ```text
//!            start                 admitted              started
//!   Down ───────────▶ Queued ─────────────▶ Starting ───────────▶ Running
//!    ▲ ▲                ▲  the deadline           │ failed            │ ended
//!    │ └────────────────│──── has passed          ▼                   ▼
//!    │                  └──────────────────── BackingOff ◀── the restart rule says so
//!    └──────────────────────────────────────────── else
//! ```
//!
//! A guest that is being ended (`Ending`) goes to `Down`, to `Queued` (a restart), or leaves the
//! fleet.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::command::{CommandError, Version};
use super::saved_fleet::{SavedFleet, SavedGuest, Wanted};
use crate::clock::Moment;
use crate::fleet::{Fleet, GuestSpec, RestartRule};
use crate::scheduler::GuestId;

/// The wait before the first restart. It doubles with each.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// The longest wait before a restart.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);
/// A guest that ran for so long starts again as if it had never failed.
const STEADY: Duration = Duration::from_secs(10);

/// The guests of a fleet, in the order of its file.
#[derive(Debug)]
pub(super) struct Roster {
    members: Vec<Member>,
    /// Counts changes of the fleet: guests that come and go, and the pool.
    pub(super) version: Version,
}

/// A guest of the fleet, whether it runs or not.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) spec: GuestSpec,
    /// Counts changes of the settings.
    pub(super) version: Version,
    /// The target that a user has set.
    pub(super) pinned: Option<FrameCount>,
    pub(super) stage: Stage,
    /// How often it was to start.
    pub(super) starts: u64,
    /// Its latest admission. The supervisor may still have the record of it.
    pub(super) latest: Option<GuestId>,
    /// Whether it is to run, by what an earlier supervisor has saved.
    pub(super) wanted: Wanted,
    back_off: BackOff,
}

/// What a member does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It does not run, and is not to.
    Down,
    /// It waits until the pool has its minimum.
    Queued {
        /// When it gives up; `None` for never.
        deadline: Option<Moment>,
    },
    /// It is to start again, not at once.
    BackingOff {
        /// When.
        until: Moment,
    },
    /// Its process is being started.
    Starting,
    /// Its process was started.
    Running,
    /// It was asked to end.
    Ending {
        /// What follows.
        then: Then,
        /// When it is killed.
        kill_at: Moment,
    },
}

/// What follows the end of a guest that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It stays down.
    StayDown,
    /// It starts again.
    StartAgain,
    /// It leaves the fleet.
    Leave,
}

/// How a guest ended, as far as its restart depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    Succeeded,
    Failed,
}

/// The waits before restarts.
#[derive(Clone, Copy, Debug, Default)]
struct BackOff {
    /// Restarts since the guest last ran for long.
    restarts: u32,
    started: Moment,
}

impl Roster {
    /// Creates the roster of a fleet; no guest runs.
    pub(super) fn new(fleet: &Fleet) -> Self {
        Self { members: fleet.guests.iter().cloned().map(Member::new).collect(), version: Version(1) }
    }

    /// Returns all members.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut()
    }

    /// Returns the member of this name.
    pub(super) fn get_mut(&mut self, name: &str) -> Result<&mut Member, CommandError> {
        let unknown = || CommandError::NoSuchGuest(name.to_owned());
        self.members.iter_mut().find(|member| member.spec.name == name).ok_or_else(unknown)
    }

    /// Returns the member with this latest admission.
    pub(super) fn of_admission(&mut self, id: GuestId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.latest == Some(id))
    }

    /// Adds a guest, as the last one.
    pub(super) fn add(&mut self, spec: GuestSpec) -> &mut Member {
        self.members.push(Member::new(spec));
        self.members.last_mut().expect("it was just added")
    }

    /// Removes a member that does not run.
    pub(super) fn remove(&mut self, name: &str) {
        self.members.retain(|member| member.spec.name != name);
    }

    /// Puts the members into this order; those that are not named come last.
    pub(super) fn sort_by_names(&mut self, names: &[String]) {
        self.members
            .sort_by_key(|member| names.iter().position(|name| *name == member.spec.name).unwrap_or(usize::MAX));
    }

    /// Returns the members as the next supervisor needs them. A guest that leaves is not among
    /// them.
    pub(super) fn saved(&self) -> Vec<SavedGuest> {
        let stays = |member: &&Member| !matches!(member.stage, Stage::Ending { then: Then::Leave, .. });
        self.members.iter().filter(stays).map(Member::saved).collect()
    }

    /// Sets what an earlier supervisor has saved of the members.
    pub(super) fn restore(&mut self, saved: &SavedFleet) {
        self.version = Version(saved.version);
        for member in &mut self.members {
            let Some(guest) = saved.guest(&member.spec.name) else { continue };
            member.version = Version(guest.version);
            member.pinned = guest.pinned_bytes.map(FrameCount::from_bytes_floor);
            member.starts = guest.starts;
            member.wanted = guest.wanted;
        }
    }

    /// Returns whether no guest runs and none is to.
    pub(super) fn is_over(&self) -> bool {
        self.members.iter().all(|member| member.stage == Stage::Down)
    }

    /// Returns the earliest moment at which a member's stage changes by time alone.
    pub(super) fn next_change(&self) -> Option<Moment> {
        let moment = |member: &Member| match member.stage {
            Stage::Queued { deadline } => deadline,
            Stage::BackingOff { until } => Some(until),
            Stage::Ending { kill_at, .. } => Some(kill_at),
            Stage::Down | Stage::Starting | Stage::Running => None,
        };
        self.members.iter().filter_map(moment).min()
    }

    /// Counts a change of the fleet.
    pub(super) fn changed(&mut self) -> Version {
        self.version.0 += 1;
        self.version
    }
}

impl Member {
    fn new(spec: GuestSpec) -> Self {
        Self {
            spec,
            version: Version(1),
            pinned: None,
            stage: Stage::Down,
            starts: 0,
            latest: None,
            wanted: Wanted::Up,
            back_off: BackOff::default(),
        }
    }

    fn saved(&self) -> SavedGuest {
        let wanted = match self.stage {
            Stage::Down | Stage::Ending { then: Then::StayDown | Then::Leave, .. } => Wanted::Down,
            Stage::Queued { .. } | Stage::BackingOff { .. } | Stage::Starting | Stage::Running => Wanted::Up,
            Stage::Ending { then: Then::StartAgain, .. } => Wanted::Up,
        };
        SavedGuest {
            spec: self.spec.clone(),
            version: self.version.0,
            pinned_bytes: self.pinned.map(FrameCount::bytes),
            starts: self.starts,
            wanted,
        }
    }

    /// Counts a change of the settings.
    pub(super) fn changed(&mut self) -> Version {
        self.version.0 += 1;
        self.version
    }

    /// Has the guest start as soon as the pool has its minimum; returns the number of this start.
    pub(super) fn queue(&mut self, deadline: Option<Moment>) -> u64 {
        self.starts += 1;
        self.stage = Stage::Queued { deadline };
        self.starts
    }

    /// Records that the pool has reserved the guest's minimum.
    pub(super) fn admitted(&mut self, id: GuestId, now: Moment) {
        self.stage = Stage::Starting;
        self.latest = Some(id);
        self.back_off.started = now;
    }

    /// Records that the guest was started by an earlier supervisor.
    pub(super) fn resumed(&mut self, id: GuestId, now: Moment) {
        self.starts = self.starts.max(1);
        self.admitted(id, now);
        self.started();
    }

    /// Records that the guest's process was started.
    pub(super) fn started(&mut self) {
        if self.stage == Stage::Starting {
            self.stage = Stage::Running;
        }
    }

    /// Returns whether the guest has a process, or is getting one.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Running | Stage::Ending { .. })
    }

    /// Records that the guest was asked to end.
    pub(super) fn end(&mut self, then: Then, kill_at: Moment) {
        self.stage = match self.stage {
            // The first deadline stays, and what was asked last counts.
            Stage::Ending { kill_at: earlier, .. } => Stage::Ending { then, kill_at: earlier.min(kill_at) },
            _ => Stage::Ending { then, kill_at },
        };
    }

    /// Records that the guest has ended, or could not be started. Returns whether it leaves the
    /// fleet.
    pub(super) fn ended(&mut self, conclusion: Conclusion, now: Moment) -> bool {
        match self.stage {
            Stage::Ending { then: Then::Leave, .. } => {
                self.stage = Stage::Down;
                return true;
            }
            Stage::Ending { then: Then::StayDown, .. } => self.stage = Stage::Down,
            Stage::Ending { then: Then::StartAgain, .. } => drop(self.queue(None)),
            _ if self.spec.restart.applies(conclusion) => {
                self.stage = Stage::BackingOff { until: now.after(self.back_off.next(now)) };
            }
            _ => self.stage = Stage::Down,
        }
        false
    }
}

impl RestartRule {
    /// Returns whether a guest that ended so starts again.
    fn applies(self, conclusion: Conclusion) -> bool {
        match self {
            Self::Never => false,
            Self::OnFailure => conclusion == Conclusion::Failed,
            Self::Always => true,
        }
    }
}

impl BackOff {
    /// Returns the wait before the next restart of a guest that ended `now`.
    fn next(&mut self, now: Moment) -> Duration {
        if now.since(self.started) >= STEADY {
            self.restarts = 0;
        }
        let wait = FIRST_BACK_OFF.saturating_mul(1_u32.checked_shl(self.restarts).unwrap_or(u32::MAX));
        self.restarts = self.restarts.saturating_add(1);
        wait.min(LONGEST_BACK_OFF)
    }
}

#[cfg(test)]
mod tests {
    use super::{Conclusion, Member, Stage, Then};
    use crate::clock::Moment;
    use crate::fleet::{GuestSpec, RestartRule};
    use crate::scheduler::GuestId;
    use std::time::Duration;

    const fn at(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    fn member(restart: RestartRule) -> Member {
        Member::new(GuestSpec { restart, ..GuestSpec::for_tests("alpha") })
    }

    /// Starts the member at a moment, and has it end.
    fn run(member: &mut Member, from: Moment, to: Moment, conclusion: Conclusion) -> bool {
        member.queue(None);
        member.admitted(GuestId(0), from);
        member.started();
        assert_eq!(member.stage, Stage::Running);
        member.ended(conclusion, to)
    }

    #[test]
    fn the_rule_says_which_ends_are_followed_by_a_start() {
        let down = |rule, conclusion| {
            let mut member = member(rule);
            run(&mut member, at(0), at(1), conclusion);
            member.stage == Stage::Down
        };
        use {Conclusion::*, RestartRule::*};
        let stays_down = [Never, OnFailure, Always].map(|rule| [Succeeded, Failed].map(|end| down(rule, end)));
        assert_eq!(stays_down, [[true, true], [true, false], [false, false]]);
    }

    #[test]
    fn a_guest_that_keeps_failing_is_started_less_and_less_often() {
        let mut member = member(RestartRule::OnFailure);
        let mut waits = Vec::new();
        for round in 0..12 {
            let now = at(round * 1000);
            run(&mut member, now, now, Conclusion::Failed);
            let Stage::BackingOff { until } = member.stage else { panic!("{:?}", member.stage) };
            waits.push(until.since(now).as_millis());
        }
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        run(&mut member, at(0), at(10_000), Conclusion::Failed);
        assert_eq!(member.stage, Stage::BackingOff { until: at(10_100) }, "it had run for long");
    }

    #[test]
    fn an_end_that_was_asked_for_is_followed_by_what_was_asked_for() {
        for (then, stage, leaves) in [
            (Then::StayDown, Stage::Down, false),
            (Then::StartAgain, Stage::Queued { deadline: None }, false),
            (Then::Leave, Stage::Down, true),
        ] {
            let mut member = member(RestartRule::Always);
            member.queue(None);
            member.admitted(GuestId(0), at(0));
            member.end(then, at(100));
            member.started();
            assert_eq!(member.stage, Stage::Ending { then, kill_at: at(100) }, "a start does not undo it");
            assert_eq!((member.ended(Conclusion::Failed, at(5)), &member.stage), (leaves, &stage));
        }
    }

    #[test]
    fn asking_again_changes_what_follows_and_does_not_put_off_the_kill() {
        let mut member = member(RestartRule::Never);
        member.end(Then::StartAgain, at(100));
        member.end(Then::StayDown, at(500).after(Duration::ZERO));
        assert_eq!(member.stage, Stage::Ending { then: Then::StayDown, kill_at: at(100) });
    }
}
