//! The fleet as its users see it: guests with names that are started, stopped, restarted and
//! changed while others run.
//!
//! The manager joins the [`Roster`] (what each guest is to do), the [`Supervisor`] (the guests that
//! run) and the commands of clients. It starts no process: [`FleetManager::advance`] returns the
//! guests whose start is due, and is told how each start went. The moment is passed in.
//!
//! `commands` carries out what clients ask for, `carry_out` what an edited fleet file changes.

mod carry_out;
mod commands;

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::command::EndMode;
use super::engine::{Admission, Attention, Found, Launched, StartError, Supervisor};
use super::outcome::Outcome;
use super::roster::{Conclusion, Member, Roster, Stage, Then};
use super::saved_fleet::{SavedFleet, Wanted};
use super::status::{EventKind, FleetStatus, GuestState, GuestStatus, ServiceStatus};
use crate::clock::Moment;
use crate::fleet::{Fleet, GuestSpec};
use crate::host::GuestHandle;
use crate::scheduler::GuestId;

/// A fleet that can be changed while it runs.
#[derive(Debug)]
pub struct FleetManager<G> {
    pub(super) supervisor: Supervisor<G>,
    roster: Roster,
    /// How long a guest may take to end when it is asked.
    stop_patience: Duration,
    began: Moment,
    /// How a client wants the run to end, once one does.
    end: Option<RunEnd>,
    /// Whether what the next supervisor needs may have changed since it was taken.
    is_changed: bool,
}

/// How a client ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// All guests end.
    Shutdown,
    /// The guests run on, for the next supervisor.
    HandOver,
}

impl<G: GuestHandle> FleetManager<G> {
    /// Creates a manager of a fleet whose guests are not started.
    pub(super) fn new(fleet: &Fleet, supervisor: Supervisor<G>, stop_patience: Duration, began: Moment) -> Self {
        Self { supervisor, roster: Roster::new(fleet), stop_patience, began, end: None, is_changed: true }
    }

    /// Admits all guests at once, so that none can grow into the minimum of another.
    ///
    /// # Errors
    ///
    /// [`StartError`] for the first that is not admitted.
    pub(super) fn admit_all(&mut self, now: Moment) -> Result<Vec<Admission>, StartError> {
        let mut admissions = Vec::new();
        for member in self.roster.members_mut() {
            let admission = self.supervisor.admit(&member.spec)?;
            member.queue(None);
            member.admitted(admission.id(), now);
            admissions.push(admission);
        }
        Ok(admissions)
    }

    /// Takes in guests that an earlier supervisor has left; what the restart rules say follows for
    /// those that have ended. The others of the fleet are queued: the pool may have no room yet.
    pub(super) fn resume(&mut self, found: Vec<Found<G>>, now: Moment) -> Vec<GuestId> {
        let mut ids = Vec::new();
        for found in found {
            let spec = found.spec().clone();
            let id = self.supervisor.take_in(found, now);
            let member = match self.roster.get_mut(&spec.name) {
                Ok(member) => member,
                Err(_) => self.roster.add(spec.clone()),
            };
            // It runs by what it was started or changed with; the file can be applied to it.
            member.spec = spec;
            member.resumed(id, now);
            if member.pinned.is_some() {
                self.supervisor.pin(id, member.pinned);
            }
            ids.push(id);
        }
        self.conclude_ended(now);
        let kill_at = self.kill_at(EndMode::Stop, now);
        for member in self.roster.members_mut() {
            let is_running = member.stage == Stage::Running;
            match member.wanted {
                Wanted::Up if member.latest.is_none() => drop(member.queue(None)),
                Wanted::Up => {}
                // The earlier supervisor did not see its end.
                Wanted::Down if is_running => {
                    member.end(Then::StayDown, kill_at);
                    end_process(&mut self.supervisor, member, EndMode::Stop);
                }
                Wanted::Down => member.stage = Stage::Down,
            }
        }
        self.is_changed = true;
        ids
    }

    /// Takes over the process of an admitted guest.
    pub(super) fn launched(&mut self, admission: Admission, launched: Launched<G>, now: Moment) {
        let id = admission.id();
        self.supervisor.launched(admission, launched, now);
        let Some(member) = self.roster.of_admission(id) else { return };
        member.started();
        // It was asked to end while its process was being started.
        if matches!(member.stage, Stage::Ending { .. }) {
            self.supervisor.request_stop_of(id);
        }
    }

    /// Records that an admitted guest could not be started; its restart rule says what follows.
    pub(super) fn not_launched(&mut self, admission: Admission, error: anyhow::Error, now: Moment) {
        let (id, guest) = (admission.id(), admission.spec().name.clone());
        let why = format!("{error:#}");
        self.supervisor.withdraw(admission, error);
        self.supervisor.note_event(EventKind::NotStarted { guest, why }, now);
        self.conclude(id, Conclusion::Failed, now);
    }

    /// Gives up the place of an admitted guest whose start ends the run.
    pub(super) fn withdraw(&mut self, admission: Admission, error: anyhow::Error) -> StartError {
        if let Some(member) = self.roster.of_admission(admission.id()) {
            member.stage = Stage::Down;
        }
        self.supervisor.withdraw(admission, error)
    }

    /// Reads one guest's events.
    pub(super) fn read_events_of(&mut self, id: GuestId, now: Moment) -> Attention {
        let attention = self.supervisor.read_events_of(id, now);
        self.conclude_ended(now);
        attention
    }

    /// Reads all guests' events.
    pub(super) fn read_events(&mut self, now: Moment) -> Attention {
        let attention = self.supervisor.read_events(now);
        self.conclude_ended(now);
        attention
    }

    /// Does what is due: kills guests that take too long to end, gives up waits for memory, and
    /// returns the guests whose start is due.
    pub(super) fn advance(&mut self, now: Moment) -> Vec<Admission> {
        if self.end.is_some() {
            return Vec::new();
        }
        let mut admissions = Vec::new();
        let mut awaited = FrameCount::ZERO;
        for member in self.roster.members_mut() {
            match &mut member.stage {
                Stage::Ending { kill_at, .. } if now >= *kill_at => {
                    *kill_at = now.after(self.stop_patience);
                    member.latest.into_iter().for_each(|id| self.supervisor.kill_guest(id));
                }
                Stage::BackingOff { until } if now >= *until => drop(member.queue(None)),
                _ => {}
            }
            let Stage::Queued { deadline } = member.stage else { continue };
            match admit(&mut self.supervisor, member, now) {
                Ok(admission) => {
                    self.is_changed = true;
                    admissions.push(admission);
                }
                Err(error) if deadline.is_some_and(|deadline| now >= deadline) => {
                    self.is_changed = true;
                    member.stage = Stage::Down;
                    let guest = member.spec.name.clone();
                    self.supervisor.note_event(EventKind::GaveUp { guest, why: error.to_string() }, now);
                }
                Err(_) => awaited = awaited.saturating_add(member.spec.limits.min),
            }
        }
        self.supervisor.set_awaited(awaited);
        admissions
    }

    /// Returns when [`Self::advance`] has something to do at the latest. A guest that waits for
    /// memory is looked after at each poll besides.
    pub(super) fn next_change(&self) -> Option<Moment> {
        self.roster.next_change()
    }

    /// Returns the fleet as the next supervisor needs it, if that has changed since the last call.
    pub(super) fn take_change(&mut self) -> Option<SavedFleet> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        Some(SavedFleet {
            pool: self.supervisor.pool(),
            idle_tax: self.supervisor.idle_tax(),
            version: self.roster.version.0,
            guests: self.roster.saved(),
        })
    }

    /// Sets what an earlier supervisor has saved; before guests are taken over or started.
    pub(super) fn restore(&mut self, saved: &SavedFleet) {
        self.roster.restore(saved);
    }

    /// Returns how a client wants the run to end, once one does.
    pub(super) fn run_end(&self) -> Option<RunEnd> {
        self.end
    }

    /// Returns whether no guest runs and none is to.
    pub(super) fn is_over(&self) -> bool {
        self.roster.is_over()
    }

    /// Returns the status as of the last poll.
    pub(super) fn status(&self, now: Moment) -> FleetStatus {
        let of_member = |member: &Member| {
            let GuestSpec { name, limits, subscription, .. } = &member.spec;
            let record = member.latest.and_then(|id| self.supervisor.status_of(id));
            let record = record.unwrap_or_else(|| GuestStatus::down(name, *limits, *subscription));
            self.with_service(record, member)
        };
        FleetStatus {
            guests: self.roster.members().iter().map(of_member).collect(),
            version: self.roster.version,
            ..self.supervisor.totals(now)
        }
    }

    /// Returns the outcome of the run, guests in the order of the fleet.
    pub(super) fn into_outcome(self, now: Moment) -> Outcome {
        let mut outcome = self.supervisor.into_outcome(now);
        let place = |name: &str| self.roster.members().iter().position(|member| member.spec.name == name);
        outcome.guests.sort_by_key(|guest| place(&guest.name).unwrap_or(usize::MAX));
        outcome
    }

    /// Returns a guest's status with what the roster knows.
    fn with_service(&self, record: GuestStatus, member: &Member) -> GuestStatus {
        let until = match member.stage {
            Stage::Queued { deadline } => deadline,
            Stage::BackingOff { until } => Some(until),
            _ => None,
        };
        let state = match member.stage {
            Stage::Queued { .. } => GuestState::Queued,
            Stage::BackingOff { .. } => GuestState::BackingOff,
            Stage::Starting => GuestState::Starting,
            Stage::Ending { .. } => GuestState::Stopping,
            Stage::Running | Stage::Down => record.state,
        };
        let GuestSpec { limits, subscription, restart, ignored_target, .. } = member.spec;
        let service = ServiceStatus {
            machine: member.spec.machine.clone(),
            version: member.version,
            pinned: member.pinned,
            restart,
            ignored_target,
            starts: member.starts,
            until: until.map(|until| until.since(self.began)),
        };
        GuestStatus { state, limits, subscription, service, ..record }
    }

    fn kill_at(&self, how: EndMode, now: Moment) -> Moment {
        match how {
            EndMode::Stop => now.after(self.stop_patience),
            EndMode::Kill => now,
        }
    }

    /// Records the ends of guests, and decides what follows.
    fn conclude_ended(&mut self, now: Moment) {
        for (id, ending) in self.supervisor.take_ended() {
            let conclusion = if ending.reason.is_success() { Conclusion::Succeeded } else { Conclusion::Failed };
            self.conclude(id, conclusion, now);
        }
    }

    fn conclude(&mut self, id: GuestId, conclusion: Conclusion, now: Moment) {
        self.is_changed = true;
        let Some(member) = self.roster.of_admission(id) else { return };
        member.pinned = None;
        if member.ended(conclusion, now) {
            let name = member.spec.name.clone();
            self.roster.remove(&name);
        }
    }
}

/// Admits a guest that waits for its start, and forgets its former record.
fn admit<G: GuestHandle>(
    supervisor: &mut Supervisor<G>,
    member: &mut Member,
    now: Moment,
) -> Result<Admission, StartError> {
    let admission = supervisor.admit(&member.spec)?;
    if let Some(former) = member.latest {
        supervisor.retire(former);
    }
    member.admitted(admission.id(), now);
    Ok(admission)
}

/// Ends the process of a guest, if it has one already.
fn end_process<G: GuestHandle>(supervisor: &mut Supervisor<G>, member: &Member, how: EndMode) {
    let Some(id) = member.latest else { return };
    match how {
        EndMode::Stop => supervisor.request_stop_of(id),
        EndMode::Kill => supervisor.kill_guest(id),
    }
}
