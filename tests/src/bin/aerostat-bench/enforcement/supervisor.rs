//! Measures the longest round of the supervisor's loop while hostile VMM processes do all that they
//! can, again and again, beside a guest that verifies its memory.
//!
//! The supervisor of `aerostat up` runs in this process and measures its own rounds. A run in which
//! the honest guest did not get its work done does not count.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use aerostat::fleet::{Fleet, GuestSpec, RestartRule};
use aerostat::host::EndReason;
use aerostat::host::cgroup::PoolGroup;
use aerostat::host::vmm_guest::{GuestConfig, VmmGuest};
use aerostat::scheduler::IdleTax;
use aerostat::supervisor::{self, Event, FleetStatus, Observer, PhysicalMemory, RunOptions};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::hostile_vmm::{DEEDS, HONEST, config, honest, hostile};
use anyhow::{Context, Result, ensure};

use super::violations::Violations;
use crate::row::Row;

/// The honest guest ends by itself after some 12 s.
const HONEST_WORK: &str = "phases=16M:500ms,160M:500ms,16M:500ms,160M:500ms,16M:500ms,160M:500ms,16M:4s,160M:500ms";
const VERIFIED: u64 = 4 * (160 << 20);
/// How long the run lasts.
const RUN: Duration = Duration::from_secs(15);
/// The longest that a round may take.
const MOST_MS: f64 = 50.0;

pub(super) fn measure(violations: &mut Violations) -> Result<Vec<Row>> {
    let hostile_vmm = env::current_exe().context("finding this program")?.with_file_name("aerostat-hostile-vmm");
    ensure!(hostile_vmm.is_file(), "there is no {}; `cargo xtask bench` builds it", hostile_vmm.display());
    let again = |deed| GuestSpec { restart: RestartRule::Always, ..hostile(deed) };
    let guests: Vec<_> = [honest(HONEST_WORK)].into_iter().chain(DEEDS.iter().map(again)).collect();
    let most = |total: FrameCount, guest: &GuestSpec| total.saturating_add(guest.limits.max);
    let pool = guests.iter().fold(FrameCount::ZERO, most);
    let fleet = Fleet { pool, idle_tax: IdleTax::default(), guests };
    let pool = PoolGroup::create().context("making a control group")?;
    let physical = PhysicalMemory::ByControlGroup(Arc::clone(&pool));
    let options = RunOptions { limit: Some(RUN), physical, ..RunOptions::default() };
    let start = move |spec: &GuestSpec, target| {
        let config = config(spec, target, hostile_vmm.clone());
        Ok(VmmGuest::spawn(&GuestConfig { pool: Some(Arc::clone(&pool)), ..config })?)
    };
    let outcome = supervisor::run(&fleet, options, start, &mut Silent)?;
    violations.add(&outcome)?;
    let honest = outcome.guests.iter().find(|guest| guest.name == HONEST).context("no honest guest")?;
    let ending = &honest.ending.reason;
    ensure!(*ending == EndReason::Exited(GuestExit::Success), "the honest guest did not finish: {ending}");
    let verified = honest.app.map_or(0, |app| if app.errors == 0 { app.verified_bytes } else { 0 });
    ensure!(verified >= VERIFIED, "the honest guest verified only {verified} bytes");
    let ms = |span: Duration| 1e3 * span.as_secs_f64();
    let times = outcome.loop_times;
    Ok(vec![
        Row::cost("supervisor_worst_ms", ms(times.longest), "ms", MOST_MS).goal_of_limit(1.0),
        Row::plain("supervisor_worst_own_ms", ms(times.longest_own), "ms").goal(MOST_MS),
    ])
}

/// Ignores all that is told of a run.
struct Silent;

impl Observer for Silent {
    fn on_event(&mut self, _: &Event) {}

    fn on_poll(&mut self, _: &FleetStatus) {}
}
