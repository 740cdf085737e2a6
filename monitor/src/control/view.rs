//! What the supervisor publishes, in the JSON types of the interface.

use std::collections::BTreeMap;
use std::process;

use aerostat_abi::requests::ResourceKind;
use aerostat_abi::units::FrameCount;
use serde_json::{Value, json};

use super::api;
use super::publisher::{Published, Recorded, microseconds, milliseconds};
use crate::display::printable;
use crate::fleet;
use crate::scheduler;
use crate::supervisor::{self, DecisionStatus, EnforcementStatus, EventKind, GuestStatus, LoopTimes, Step};

/// Returns a fleet's status.
pub(super) fn fleet(name: &str, published: &Published, last_event: u64) -> api::Fleet {
    let status = &published.status;
    let up = status.guests.iter().filter(|guest| state(guest.state).is_up());
    let max = up.map(|guest| guest.limits.max).fold(FrameCount::ZERO, FrameCount::saturating_add);
    let beyond = max.saturating_sub(status.pool).0.saturating_mul(100);
    api::Fleet {
        name: name.to_owned(),
        version: status.version.0,
        process: process::id(),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        taken_unix_ms: published.unix_ms,
        elapsed_ms: milliseconds(status.elapsed),
        pool_bytes: status.pool.bytes(),
        state: pool_state(status.state),
        free_bytes: status.free.bytes(),
        granted_bytes: status.granted.bytes(),
        resident_bytes: status.resident.bytes(),
        physical_bytes: status.physical.map(FrameCount::bytes),
        guaranteed_bytes: status.guaranteed.bytes(),
        max_bytes: max.bytes(),
        overcommit_percent: beyond.checked_div(status.pool.0).unwrap_or(0),
        moved_bytes: status.moved.bytes(),
        idle_tax_percent: status.idle_tax.percent(),
        violations: status.violations,
        supervisor: supervisor_loop(&status.loop_times),
        guests: status.guests.len(),
        last_event,
    }
}

fn supervisor_loop(times: &LoopTimes) -> api::SupervisorLoop {
    api::SupervisorLoop {
        rounds: times.rounds,
        longest_us: microseconds(times.longest),
        recent_longest_us: microseconds(times.recent_longest),
        longest_own_us: microseconds(times.longest_own),
    }
}

/// Returns a guest's status.
pub(super) fn guest(published: &Published, guest: &GuestStatus) -> api::Guest {
    let GuestStatus { limits, subscription, service, .. } = guest;
    api::Guest {
        name: guest.name.clone(),
        machine: machine(&service.machine),
        state: state(guest.state),
        version: service.version.0,
        min_bytes: limits.min.bytes(),
        max_bytes: limits.max.bytes(),
        reservation_bytes: subscription.reservation.bytes(),
        shares: subscription.shares.count(),
        restart: restart(service.restart),
        pinned_target_bytes: service.pinned.map(FrameCount::bytes),
        starts: service.starts,
        until_ms: service.until.map(milliseconds),
        machine_bytes: guest.machine.bytes(),
        size_bytes: guest.size.bytes(),
        target_bytes: guest.target.bytes(),
        balloon_bytes: guest.balloon.bytes(),
        resident_bytes: guest.resident.bytes(),
        paged_out_bytes: guest.paged_out.map(FrameCount::bytes),
        ignored_target: ignored_target(service.ignored_target),
        enforcement: guest.enforcement.as_ref().map(|enforcement| self::enforcement(published, enforcement)),
        memory: guest.usage.as_ref().map(memory),
        wanted_bytes: guest.wanted.bytes(),
        swap: guest.swap.map(|swap| api::SwapUse {
            compressed_bytes: swap.compressed.bytes(),
            on_disk_bytes: swap.on_disk.bytes(),
            in_bytes_per_s: swap.in_per_s.bytes(),
            out_bytes_per_s: swap.out_per_s.bytes(),
        }),
        pressure_per_mille: guest.swap.map_or(0, |swap| swap.pressure_per_mille),
        balloon_rate_bytes_per_s: guest.rate_per_s.bytes(),
        balloon_state: printable(&guest.balloon_state),
        activity: printable(&guest.activity),
        ending: guest.ending.as_deref().map(printable),
        decision: guest.decision.as_ref().map(decision),
        last_change: guest.last_change.as_ref().map(|(at, change)| api::LastChange {
            at_unix_ms: published.unix_ms_at(*at),
            at_ms: milliseconds(*at),
            decision: decision(change),
        }),
    }
}

/// Returns an event.
pub(super) fn event(recorded: &Recorded) -> api::Event {
    let (kind, guest, fields) = kind_and_fields(&recorded.event.what);
    api::Event {
        seq: recorded.seq,
        at_unix_ms: recorded.unix_ms,
        at_ms: milliseconds(recorded.event.at),
        kind,
        guest: guest.map(str::to_owned),
        text: printable(&recorded.event.what.to_string()),
        fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    }
}

/// Returns the event that stands for `lost` ones before `next`.
pub(super) fn lost(lost: u64, next: &Recorded) -> api::Event {
    api::Event {
        seq: next.seq.saturating_sub(1),
        at_unix_ms: next.unix_ms,
        at_ms: milliseconds(next.event.at),
        kind: api::EventKind::Lost,
        guest: None,
        text: format!("{lost} events are missing here: they came faster than they were read"),
        fields: BTreeMap::from([("count".to_owned(), lost.into())]),
    }
}

/// Returns a plan.
pub(super) fn plan(plan: &supervisor::Plan, is_applied: bool) -> api::Plan {
    let step = |step: &Step| {
        let (kind, guest, changes) = match step {
            Step::Pool { .. } => (api::StepKind::Pool, None, &[][..]),
            Step::IdleTax { .. } => (api::StepKind::IdleTax, None, &[][..]),
            Step::Add { guest } => (api::StepKind::Add, Some(guest), &[][..]),
            Step::Change { guest, changes } => (api::StepKind::Change, Some(guest), &changes[..]),
            Step::Replace { guest, changes } => (api::StepKind::Replace, Some(guest), &changes[..]),
            Step::Remove { guest } => (api::StepKind::Remove, Some(guest), &[][..]),
        };
        api::PlanStep { kind, guest: guest.cloned(), changes: changes.to_vec(), text: step.to_string() }
    };
    api::Plan { steps: plan.steps.iter().map(step).collect(), is_applied }
}

/// Returns the state of a guest.
pub(super) const fn state(state: supervisor::GuestState) -> api::GuestState {
    use supervisor::GuestState as From;
    match state {
        From::Starting => api::GuestState::Starting,
        From::Running => api::GuestState::Running,
        From::Shrinking => api::GuestState::Shrinking,
        From::Growing => api::GuestState::Growing,
        From::Waiting => api::GuestState::Waiting,
        From::Silent => api::GuestState::Silent,
        From::Paused => api::GuestState::Paused,
        From::Stopping => api::GuestState::Stopping,
        From::Ended => api::GuestState::Ended,
        From::Queued => api::GuestState::Queued,
        From::BackingOff => api::GuestState::BackOff,
        From::Down => api::GuestState::Down,
    }
}

const fn pool_state(state: scheduler::PoolState) -> api::PoolState {
    match state {
        scheduler::PoolState::High => api::PoolState::High,
        scheduler::PoolState::Soft => api::PoolState::Soft,
        scheduler::PoolState::Hard => api::PoolState::Hard,
        scheduler::PoolState::Low => api::PoolState::Low,
    }
}

const fn machine(machine: &fleet::Machine) -> api::MachineKind {
    match machine {
        fleet::Machine::Aerostat => api::MachineKind::Aerostat,
        fleet::Machine::Qemu => api::MachineKind::Qemu,
        fleet::Machine::Attached(_) => api::MachineKind::Attached,
    }
}

const fn restart(rule: fleet::RestartRule) -> api::RestartRule {
    match rule {
        fleet::RestartRule::Never => api::RestartRule::Never,
        fleet::RestartRule::OnFailure => api::RestartRule::OnFailure,
        fleet::RestartRule::Always => api::RestartRule::Always,
    }
}

const fn ignored_target(rule: scheduler::IgnoredTarget) -> api::IgnoredTarget {
    match rule {
        scheduler::IgnoredTarget::Page => api::IgnoredTarget::Page,
        scheduler::IgnoredTarget::Pause => api::IgnoredTarget::Pause,
        scheduler::IgnoredTarget::Kill => api::IgnoredTarget::Kill,
    }
}

const fn rung(rung: scheduler::Rung) -> api::EnforcementStep {
    match rung {
        scheduler::Rung::Asked => api::EnforcementStep::Asked,
        scheduler::Rung::Paging => api::EnforcementStep::Paging,
        scheduler::Rung::Squeezed => api::EnforcementStep::Squeezed,
        scheduler::Rung::Paused => api::EnforcementStep::Paused,
        scheduler::Rung::Ending => api::EnforcementStep::Ending,
    }
}

const fn cause(cause: scheduler::Cause) -> api::EnforcementCause {
    match cause {
        scheduler::Cause::Ignores => api::EnforcementCause::IgnoresTarget,
        scheduler::Cause::DoesNotAnswer => api::EnforcementCause::DoesNotAnswer,
        scheduler::Cause::DoesNotKeepLimits => api::EnforcementCause::DoesNotKeepLimits,
    }
}

fn enforcement(published: &Published, enforcement: &EnforcementStatus) -> api::Enforcement {
    let EnforcementStatus { since, withheld, rung: step, rung_since, cause: why, next } = *enforcement;
    api::Enforcement {
        step: rung(step),
        cause: cause(why),
        withheld_bytes: withheld.bytes(),
        since_unix_ms: published.unix_ms_at(since),
        step_since_unix_ms: published.unix_ms_at(rung_since),
        next: next.map(|(next, _)| rung(next)),
        next_in_ms: next.map(|(_, left)| milliseconds(left)),
    }
}

const fn reason(reason: scheduler::Reason) -> api::Reason {
    use scheduler::Reason as From;
    match reason {
        From::Demand => api::Reason::Demand,
        From::Pressure => api::Reason::Pressure,
        From::Request => api::Reason::Request,
        From::Refaults => api::Reason::Refaults,
        From::Idle => api::Reason::Idle,
        From::NeededElsewhere => api::Reason::NeededElsewhere,
        From::PoolShort => api::Reason::PoolShort,
        From::FairShare => api::Reason::FairShare,
        From::IdleTaxed => api::Reason::IdleTaxed,
        From::LimitsChanged => api::Reason::LimitsChanged,
        From::Pinned => api::Reason::Pinned,
        From::Starting => api::Reason::Starting,
        From::Fits => api::Reason::Fits,
        From::Patience => api::Reason::Patience,
        From::AwaitingMemory => api::Reason::AwaitingMemory,
        From::AtFairShare => api::Reason::AtFairShare,
        From::Uncooperative => api::Reason::Uncooperative,
        From::FixedSize => api::Reason::FixedSize,
    }
}

fn memory(usage: &scheduler::Usage) -> api::MemoryUse {
    let active = usage.used.saturating_sub(usage.droppable).saturating_sub(usage.idle);
    api::MemoryUse {
        used_bytes: usage.used.bytes(),
        active_bytes: active.bytes(),
        idle_bytes: usage.idle.bytes(),
        droppable_bytes: usage.droppable.bytes(),
        unshrinkable_bytes: usage.unshrinkable.bytes(),
    }
}

fn decision(decision: &DecisionStatus) -> api::Decision {
    api::Decision {
        from_bytes: decision.from.bytes(),
        to_bytes: decision.to.bytes(),
        reason: reason(decision.reason),
        text: decision.reason.to_string(),
        inputs: inputs(&decision.inputs, decision.in_need.as_deref()),
    }
}

fn inputs(inputs: &scheduler::Inputs, in_need: Option<&str>) -> api::Inputs {
    api::Inputs {
        firm_bytes: inputs.firm.bytes(),
        returning_bytes: inputs.returning.bytes(),
        demand_bytes: inputs.demand.bytes(),
        idle_percent: inputs.idle_percent,
        entitlement_bytes: inputs.entitlement.bytes(),
        free_bytes: inputs.free.bytes(),
        pool_state: pool_state(inputs.pool),
        in_need: in_need.map(str::to_owned),
        missing_bytes: inputs.in_need.map(|in_need| in_need.missing.bytes()),
    }
}

type Fields = Vec<(&'static str, Value)>;

/// Returns the kind of an event, the guest that it is about, and its values.
fn kind_and_fields(what: &EventKind) -> (api::EventKind, Option<&str>, Fields) {
    use api::EventKind as Kind;
    match what {
        EventKind::Started { guest, target } => {
            (Kind::Started, Some(guest), vec![("target_bytes", target.bytes().into())])
        }
        EventKind::Adopted { guest, target, size } => {
            let fields = vec![("target_bytes", target.bytes().into()), ("size_bytes", size.bytes().into())];
            (Kind::Adopted, Some(guest), fields)
        }
        EventKind::Left { guest, target } => (Kind::Left, Some(guest), vec![("target_bytes", target.bytes().into())]),
        EventKind::Request { guest, kind, amount, outcome, granted, waited, untold } => {
            let resource = match kind {
                ResourceKind::Memory => "memory",
                ResourceKind::Processors => "processors",
                ResourceKind::Disk => "disk",
            };
            let fields = vec![
                ("resource", resource.into()),
                ("amount", (*amount).into()),
                ("granted", (*granted).into()),
                ("outcome", outcome.to_string().into()),
                ("waited_ms", milliseconds(*waited).into()),
                ("untold", (*untold).into()),
            ];
            (Kind::Request, Some(guest), fields)
        }
        EventKind::Target { guest, from, to, reason: why, inputs: from_inputs, in_need } => {
            let fields = vec![
                ("from_bytes", from.bytes().into()),
                ("to_bytes", to.bytes().into()),
                ("reason", json!(reason(*why))),
                ("inputs", json!(inputs(from_inputs, in_need.as_deref()))),
            ];
            (Kind::Target, Some(guest), fields)
        }
        EventKind::Silent { guest, since } => {
            (Kind::Silent, Some(guest), vec![("since_ms", milliseconds(*since).into())])
        }
        EventKind::Inspected { guest, line } => (Kind::Inspected, Some(guest), vec![("line", printable(line).into())]),
        EventKind::Problem { guest, what } => (Kind::Problem, Some(guest), vec![("what", printable(what).into())]),
        EventKind::NotStarted { guest, why } => (Kind::NotStarted, Some(guest), vec![("why", printable(why).into())]),
        EventKind::GaveUp { guest, why } => (Kind::GaveUp, Some(guest), vec![("why", printable(why).into())]),
        EventKind::Changed { what } => (Kind::Changed, None, vec![("what", printable(what).into())]),
        EventKind::Ended { guest, ending } => {
            let details: Vec<String> = ending.details.iter().map(|line| printable(line)).collect();
            let fields = vec![("ending", printable(&ending.reason.to_string()).into()), ("details", details.into())];
            (Kind::Ended, Some(guest), fields)
        }
        EventKind::Violation { granted, resident, pool, episodes } => {
            let fields = vec![
                ("granted_bytes", granted.bytes().into()),
                ("resident_bytes", resident.bytes().into()),
                ("pool_bytes", pool.bytes().into()),
                ("episodes", (*episodes).into()),
            ];
            (Kind::Violation, None, fields)
        }
        EventKind::Overuse { guest, excess, episodes, .. } => {
            let fields = vec![("excess_bytes", excess.bytes().into()), ("episodes", (*episodes).into())];
            (Kind::Overuse, Some(guest), fields)
        }
        EventKind::Confined { guest, rung: step, cause: why, target, withheld, episodes } => {
            let fields = vec![
                ("step", json!(rung(*step))),
                ("cause", json!(cause(*why))),
                ("target_bytes", target.bytes().into()),
                ("withheld_bytes", withheld.bytes().into()),
                ("episodes", (*episodes).into()),
            ];
            (Kind::Confined, Some(guest), fields)
        }
        EventKind::Unconfined { guest, lasted, peak_paged_out } => {
            let fields = vec![
                ("lasted_ms", milliseconds(*lasted).into()),
                ("peak_paged_out_bytes", peak_paged_out.bytes().into()),
            ];
            (Kind::Unconfined, Some(guest), fields)
        }
        EventKind::Disagreement { guest, reported, balloon, episodes } => {
            let fields = vec![
                ("reported_bytes", reported.bytes().into()),
                ("balloon_bytes", balloon.bytes().into()),
                ("episodes", (*episodes).into()),
            ];
            (Kind::Disagreement, Some(guest), fields)
        }
    }
}
