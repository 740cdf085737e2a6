//! The commands of clients. Each is checked as a whole before anything is changed.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::{FleetManager, RunEnd, end_process};
use crate::clock::Moment;
use crate::host::GuestHandle;
use crate::scheduler::{AdmissionError, Limits, Subscription};
use crate::supervisor::apply::{self, Step};
use crate::supervisor::command::{Answer, Command, CommandError, EndMode, GuestChange, Version};
use crate::supervisor::roster::{Stage, Then};
use crate::supervisor::status::EventKind;

impl<G: GuestHandle> FleetManager<G> {
    /// Carries a command out, or begins to.
    pub(in crate::supervisor) fn execute(&mut self, command: Command, now: Moment) -> Result<Answer, CommandError> {
        self.is_changed = true;
        match command {
            Command::Start { guest, patience } => self.start(&guest, patience, now),
            Command::End { guest, how } => self.end(&guest, how, now),
            Command::Restart { guest } => self.restart(&guest, now),
            Command::Change { guest, change, expected } => self.change(&guest, change, expected, now),
            Command::Target { guest, target } => self.pin(&guest, target, now),
            Command::Pool { pool, expected } => self.resize(pool, expected, now),
            Command::Apply { fleet, mode, expected } => self.apply(&fleet, mode, expected, now),
            Command::Inspect { guest } => self.inspect(&guest),
            Command::Shutdown => {
                self.end = Some(RunEnd::Shutdown);
                Ok(Answer::Done(self.roster.version))
            }
            Command::HandOver => self.hand_over(),
        }
    }

    /// Ends the run without its guests. One whose process is being started could be neither left
    /// nor waited for.
    fn hand_over(&mut self) -> Result<Answer, CommandError> {
        if let Some(member) = self.roster.members().iter().find(|member| member.stage == Stage::Starting) {
            return Err(wrong_state(&member.spec.name, "is starting; repeat the command when it runs"));
        }
        if self.supervisor.is_over() {
            return Err(CommandError::Invalid("no guest runs that could be left; end the fleet instead".into()));
        }
        self.end = Some(RunEnd::HandOver);
        Ok(Answer::Done(self.roster.version))
    }

    fn start(&mut self, name: &str, patience: Duration, now: Moment) -> Result<Answer, CommandError> {
        let member = self.roster.get_mut(name)?;
        if !matches!(member.stage, Stage::Down | Stage::BackingOff { .. }) {
            return Err(wrong_state(name, "runs already, or is about to; `aerostat restart` starts it anew"));
        }
        // The start itself follows in `advance`. Without patience it must be possible now.
        let Limits { min, .. } = member.spec.limits;
        match self.supervisor.can_admit(member.spec.limits, member.spec.subscription) {
            Err(error @ AdmissionError::GuaranteesExceedPool { .. }) => return Err(refused(name, &error)),
            Err(error @ AdmissionError::NotFreeNow { .. }) if patience.is_zero() => {
                let hint = format!("; --wait lets other guests shrink until {min} is free");
                return Err(CommandError::Invalid(format!("guest {name:?} is not started: {error}{hint}")));
            }
            _ => {}
        }
        Ok(Answer::Starting(member.queue(Some(now.after(patience)))))
    }

    fn end(&mut self, name: &str, how: EndMode, now: Moment) -> Result<Answer, CommandError> {
        let kill_at = self.kill_at(how, now);
        let member = self.roster.get_mut(name)?;
        match member.stage {
            Stage::Down => return Err(wrong_state(name, "does not run")),
            Stage::Queued { .. } | Stage::BackingOff { .. } => member.stage = Stage::Down,
            Stage::Starting | Stage::Running | Stage::Ending { .. } => {
                member.end(Then::StayDown, kill_at);
                end_process(&mut self.supervisor, member, how);
            }
        }
        Ok(Answer::Done(member.version))
    }

    fn restart(&mut self, name: &str, now: Moment) -> Result<Answer, CommandError> {
        let kill_at = self.kill_at(EndMode::Stop, now);
        let member = self.roster.get_mut(name)?;
        match member.stage {
            Stage::Down | Stage::BackingOff { .. } => return Ok(Answer::Starting(member.queue(None))),
            Stage::Queued { .. } => return Ok(Answer::Starting(member.starts)),
            Stage::Starting | Stage::Running | Stage::Ending { .. } => {
                member.end(Then::StartAgain, kill_at);
                end_process(&mut self.supervisor, member, EndMode::Stop);
            }
        }
        Ok(Answer::Starting(member.starts + 1))
    }

    fn change(
        &mut self,
        name: &str,
        change: GuestChange,
        expected: Option<Version>,
        now: Moment,
    ) -> Result<Answer, CommandError> {
        let member = self.roster.get_mut(name)?;
        check_version(expected, member.version)?;
        let GuestChange { min, max, shares, reservation } = change;
        let Limits { min: old_min, max: old_max } = member.spec.limits;
        let limits = Limits { min: min.unwrap_or(old_min), max: max.unwrap_or(old_max) };
        let old = member.spec.subscription;
        let subscription =
            Subscription { shares: shares.unwrap_or(old.shares), reservation: reservation.unwrap_or(old.reservation) };
        let spec = member.spec.with_limits(limits, subscription).map_err(CommandError::Invalid)?;
        if member.is_up() {
            let machine = member.latest.and_then(|id| self.supervisor.machine_of(id)).unwrap_or(old_max);
            if limits.max > machine {
                let max = limits.max;
                return Err(CommandError::Invalid(format!(
                    "guest {name:?}: max {max} is above the {machine} of the machine that it runs on; stop it first"
                )));
            }
            let id = member.latest.ok_or_else(|| wrong_state(name, "has no machine"))?;
            self.supervisor.change(id, limits, subscription).map_err(|error| refused(name, &error))?;
        }
        let what = apply::differences(&member.spec, &spec).join(", ");
        member.spec = spec;
        let version = member.changed();
        if !what.is_empty() {
            self.supervisor.note_event(EventKind::Changed { what: format!("{name}: {what}") }, now);
        }
        Ok(Answer::Done(version))
    }

    fn pin(&mut self, name: &str, target: Option<FrameCount>, now: Moment) -> Result<Answer, CommandError> {
        let member = self.roster.get_mut(name)?;
        let Limits { min, max } = member.spec.limits;
        if let Some(target) = target.filter(|target| !(min..=max).contains(target)) {
            return Err(CommandError::Invalid(format!(
                "guest {name:?}: the target {target} is not from min {min} to max {max}; `aerostat set` changes these"
            )));
        }
        let Some(id) = member.latest.filter(|_| member.is_up()) else {
            return Err(wrong_state(name, "does not run; a target is set for a guest that runs"));
        };
        member.pinned = target;
        self.supervisor.pin(id, target);
        let what = match target {
            Some(target) => format!("{name}: the target is set to {target} by a user"),
            None => format!("{name}: the target is left to the scheduler"),
        };
        let version = member.changed();
        self.supervisor.note_event(EventKind::Changed { what }, now);
        Ok(Answer::Done(version))
    }

    fn resize(&mut self, pool: FrameCount, expected: Option<Version>, now: Moment) -> Result<Answer, CommandError> {
        check_version(expected, self.roster.version)?;
        if pool == FrameCount::ZERO {
            return Err(CommandError::Invalid("a pool of 0 holds no guest; say how much memory they share".into()));
        }
        let from = self.supervisor.pool();
        let refused = |error| CommandError::Invalid(format!("the pool is not resized: {error}"));
        self.supervisor.resize(pool).map_err(refused)?;
        if from != pool {
            let what = Step::Pool { from, to: pool }.to_string();
            self.supervisor.note_event(EventKind::Changed { what }, now);
        }
        Ok(Answer::Done(self.roster.changed()))
    }

    fn inspect(&mut self, name: &str) -> Result<Answer, CommandError> {
        let member = self.roster.get_mut(name)?;
        match member.latest {
            Some(id) if self.supervisor.inspect_guest(id) => Ok(Answer::Done(member.version)),
            _ => Err(wrong_state(name, "does not run")),
        }
    }
}

pub(super) fn check_version(expected: Option<Version>, current: Version) -> Result<(), CommandError> {
    match expected {
        Some(expected) if expected != current => Err(CommandError::Conflict { expected, current }),
        _ => Ok(()),
    }
}

pub(super) fn wrong_state(guest: &str, state: &'static str) -> CommandError {
    CommandError::WrongState { guest: guest.to_owned(), state }
}

pub(super) fn refused(guest: &str, error: &AdmissionError) -> CommandError {
    CommandError::Invalid(format!("guest {guest:?}: {error}"))
}
