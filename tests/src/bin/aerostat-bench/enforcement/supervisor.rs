//! Measures the longest round of the supervisor's loop while hostile VMM processes do all that they
//! can, again and again, beside a guest that verifies its memory.
//!
//! The supervisor of `aerostat up` runs in this process and measures its own rounds. A run in which
//! the honest guest did not get its work done does not count.

use std::env;
use std::time::Duration;

use aerostat::fleet::{Fleet, GuestSpec, Machine, OveruseRule, RestartRule};
use aerostat::host::EndReason;
use aerostat::host::disk::Disks;
use aerostat::host::vmm_guest::VmmGuest;
use aerostat::scheduler::{IdleTax, Limits, Subscription};
use aerostat::supervisor::{self, Event, FleetStatus, Observer, PhysicalMemory, RunOptions};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::environment::{aerostat_vmm, app_image};
use anyhow::{Context, Result, ensure};

use super::violations::Violations;
use crate::row::Row;

/// What the program `aerostat-hostile-vmm` does; each is the name of a guest.
const DEEDS: [&str; 14] = [
    "silent",
    "presses",
    "ends_without_end",
    "ends_twice_and_stays",
    "ends_unstarted",
    "garbles",
    "says_half",
    "says_nothing_at_length",
    "says_nothing",
    "hangs_up",
    "passes_descriptors",
    "ends_and_passes_descriptors",
    "acknowledges_the_future",
    "blocks_the_doorbell",
];
const HONEST: &str = "honest";
const HONEST_MAX_MIB: u64 = 256;
/// The honest guest ends by itself after some 12 s.
const HONEST_WORK: &str = "phases=16M:500ms,160M:500ms,16M:500ms,160M:500ms,16M:500ms,160M:500ms,16M:4s,160M:500ms";
const VERIFIED: u64 = 4 * (160 << 20);
/// How long the run lasts.
const RUN: Duration = Duration::from_secs(15);
const MIN_MIB: u64 = 16;
const MAX_MIB: u64 = 64;
const POOL_MIB: u64 = HONEST_MAX_MIB + DEEDS.len() as u64 * MAX_MIB;

/// The longest that a round may take.
const MOST_MS: f64 = 50.0;

pub(super) fn measure(violations: &mut Violations) -> Result<Vec<Row>> {
    let hostile_vmm = env::current_exe().context("finding this program")?.with_file_name("aerostat-hostile-vmm");
    ensure!(hostile_vmm.is_file(), "there is no {}; `cargo xtask bench` builds it", hostile_vmm.display());
    let honest = spec(HONEST, HONEST_MAX_MIB, HONEST_WORK, RestartRule::Never);
    let hostile = DEEDS.map(|deed| spec(deed, MAX_MIB, "", RestartRule::Always));
    let fleet = Fleet {
        pool: FrameCount::from_mib(POOL_MIB),
        idle_tax: IdleTax::default(),
        guests: [honest].into_iter().chain(hostile).collect(),
    };
    let options = RunOptions { limit: Some(RUN), physical: PhysicalMemory::ByControlGroup, ..RunOptions::default() };
    let start = move |spec: &GuestSpec, target| {
        let program = if spec.name == HONEST { aerostat_vmm() } else { hostile_vmm.clone() };
        Ok(VmmGuest::spawn(&spec.config(target, program))?)
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

fn spec(name: &str, max_mib: u64, command_line: &str, restart: RestartRule) -> GuestSpec {
    GuestSpec {
        name: name.to_owned(),
        machine: Machine::Aerostat,
        image: app_image("memwalk"),
        limits: Limits { min: FrameCount::from_mib(MIN_MIB), max: FrameCount::from_mib(max_mib) },
        command_line: command_line.to_owned(),
        disks: Disks::default(),
        subscription: Subscription::default(),
        overuse: OveruseRule::Kill,
        restart,
        balloon_rate: None,
    }
}

/// Ignores all that is told of a run.
struct Silent;

impl Observer for Silent {
    fn on_event(&mut self, _: &Event) {}

    fn on_poll(&mut self, _: &FleetStatus) {}
}
