//! Making the fleet match an edited file while it runs.

use aerostat_abi::units::FrameCount;

use super::commands::{check_version, refused, wrong_state};
use super::{FleetManager, end_process};
use crate::clock::Moment;
use crate::fleet::Fleet;
use crate::host::GuestHandle;
use crate::scheduler::{Limits, Subscription};
use crate::supervisor::apply::{self, Machine, Plan, Present, Step};
use crate::supervisor::command::{Answer, ApplyMode, CommandError, EndMode, Version};
use crate::supervisor::roster::{Member, Stage, Then};
use crate::supervisor::status::EventKind;

impl<G: GuestHandle> FleetManager<G> {
    pub(super) fn apply(
        &mut self,
        fleet: &Fleet,
        mode: ApplyMode,
        expected: Option<Version>,
        now: Moment,
    ) -> Result<Answer, CommandError> {
        check_version(expected, self.roster.version)?;
        let plan = self.plan(fleet);
        if mode == ApplyMode::CarryOut && !plan.is_empty() {
            self.carry_out(&plan, fleet, now)?;
            let names: Vec<String> = fleet.guests.iter().map(|guest| guest.name.clone()).collect();
            self.roster.sort_by_names(&names);
            self.roster.changed();
        }
        Ok(Answer::Plan(plan))
    }

    fn plan(&self, fleet: &Fleet) -> Plan {
        // A guest that leaves is gone already; one of the same name is another one.
        let stays = |member: &&Member| !matches!(member.stage, Stage::Ending { then: Then::Leave, .. });
        let with_machine = |member| {
            let Member { spec, latest, .. }: &Member = member;
            let machine = latest.filter(|_| member.is_up()).and_then(|id| self.supervisor.machine_of(id));
            (spec, machine.map_or(Machine::None, Machine::Of))
        };
        let guests: Vec<_> = self.roster.members().iter().filter(stays).map(with_machine).collect();
        let (pool, idle_tax) = (self.supervisor.pool(), self.supervisor.idle_tax());
        apply::plan(Present { pool, idle_tax, guests: &guests }, fleet)
    }

    /// Carries a plan out. A fleet that was checked fits its pool, so no step is refused when
    /// guarantees fall before the pool is resized, and rise afterwards.
    fn carry_out(&mut self, plan: &Plan, fleet: &Fleet, now: Moment) -> Result<(), CommandError> {
        self.check_names_are_free(plan)?;
        self.end_guests(plan, now)?;
        self.change_guarantees(fleet, |old, new| old.min(new))?;
        let refused = |error| CommandError::Invalid(format!("the pool is not resized: {error}"));
        self.supervisor.resize(fleet.pool).map_err(refused)?;
        self.supervisor.set_idle_tax(fleet.idle_tax);
        self.change_guarantees(fleet, |_, new| new)?;
        self.take_specifications(fleet);
        for step in &plan.steps {
            self.supervisor.note_event(EventKind::Changed { what: step.to_string() }, now);
        }
        Ok(())
    }

    /// Checks that no guest is added while one of its name is still ending.
    fn check_names_are_free(&mut self, plan: &Plan) -> Result<(), CommandError> {
        let is_taken = |step: &&Step| matches!(step, Step::Add { guest } if self.roster.get_mut(guest).is_ok());
        match plan.steps.iter().find(is_taken) {
            Some(Step::Add { guest }) => Err(wrong_state(guest, "is still ending; apply again when it has ended")),
            _ => Ok(()),
        }
    }

    /// Ends the guests that leave the fleet or are replaced, and releases what they are guaranteed.
    fn end_guests(&mut self, plan: &Plan, now: Moment) -> Result<(), CommandError> {
        let kill_at = self.kill_at(EndMode::Stop, now);
        for step in &plan.steps {
            let (name, then) = match step {
                Step::Remove { guest } => (guest, Then::Leave),
                Step::Replace { guest, .. } => (guest, Then::StartAgain),
                Step::Pool { .. } | Step::IdleTax { .. } | Step::Add { .. } | Step::Change { .. } => continue,
            };
            let member = self.roster.get_mut(name)?;
            if let Some(id) = member.latest.filter(|_| member.is_up()) {
                member.end(then, kill_at);
                self.supervisor.release_guarantee(id);
                end_process(&mut self.supervisor, member, EndMode::Stop);
            } else if then == Then::Leave {
                self.roster.remove(name);
            }
        }
        Ok(())
    }

    /// Gives each guest what the file says of it. Guests that are new are queued for their start.
    fn take_specifications(&mut self, fleet: &Fleet) {
        for new in &fleet.guests {
            match self.roster.get_mut(&new.name) {
                Ok(member) if member.spec != *new => {
                    if let Some(id) = member.latest.filter(|_| member.is_up()) {
                        self.supervisor.set_ignored_target(id, new.ignored_target);
                    }
                    member.spec = new.clone();
                    member.changed();
                }
                Ok(_) => {}
                Err(_) => drop(self.roster.add(new.clone()).queue(None)),
            }
        }
    }

    /// Gives guests that go on running the limits of `fleet`, their minima and reservations as
    /// `choose` says, given the old and the new value.
    fn change_guarantees(
        &mut self,
        fleet: &Fleet,
        choose: impl Fn(FrameCount, FrameCount) -> FrameCount,
    ) -> Result<(), CommandError> {
        for new in &fleet.guests {
            let Ok(member) = self.roster.get_mut(&new.name) else { continue };
            let Some(id) = member.latest.filter(|_| matches!(member.stage, Stage::Starting | Stage::Running)) else {
                continue;
            };
            let (old, machine) = (&member.spec, self.supervisor.machine_of(id).unwrap_or(member.spec.limits.max));
            let max = new.limits.max.min(machine);
            let limits = Limits { min: choose(old.limits.min, new.limits.min).min(max), max };
            let reservation = choose(old.subscription.reservation, new.subscription.reservation);
            let subscription = Subscription { reservation, ..new.subscription };
            self.supervisor.change(id, limits, subscription).map_err(|error| refused(&new.name, &error))?;
        }
        Ok(())
    }
}
