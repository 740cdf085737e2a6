//! Measures how long a guest waits for a GiB that another guest has, until it has touched all of
//! it.
//!
//! The donor holds nearly all of the pool: as memory that its application has just freed, or as page
//! cache. The asker is started when the donor has it, and allocates at once, as the supervisor takes
//! idle memory back before long; its own clock says how
//! long that and the first touch take. What happens between them is seen from the supervisor.
//! Fleets run in this process, with the supervisor of `aerostat up`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aerostat::fleet::GuestSpec;
use aerostat::host::vmm_guest::{GuestConfig, VmmGuest};
use aerostat::supervisor::{self, Event, FleetStatus, Observer, RunOptions};
use aerostat_tests::environment::{aerostat_vmm, guest_image};
use anyhow::{Context, Result, ensure};

use super::timed::{Role, Stages, Timed, Timeline};
use crate::mapping::Mapping;
use crate::metrics::Metrics;
use crate::row::Row;
use crate::sample::{median, seconds};

const WANTED_MIB: usize = 1024;
/// What the donor holds beside its kernel.
const HELD_MIB: usize = 1344;
const DONOR_MAX_MIB: usize = HELD_MIB + 64;
const MIN_MIB: usize = 64;
const POOL_MIB: usize = DONOR_MAX_MIB + MIN_MIB;
/// Runs of each kind.
const TURNS: usize = 3;
/// How long the donor may take to get its memory, and a run at most.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, mode, goal_ms) in [("pressure_to_grant", "free", 100.0), ("cache_to_grant", "cache", 200.0)] {
        let mut grants = Vec::new();
        let mut limits = Vec::new();
        for _ in 0..TURNS {
            limits.push(host_ms()?);
            grants.push(grant(mode)?);
        }
        let all = |value: fn(&Grant) -> f64| median(grants.iter().map(value).collect());
        rows.push(
            Row::cost(format!("{name}_ms"), all(|grant| grant.granted + grant.touched), "ms", median(limits))
                .goal(goal_ms),
        );
        let stages: [(&str, fn(&Grant) -> f64); 6] = [
            ("decision", |grant| grant.stages.decision),
            ("release", |grant| grant.stages.release),
            ("raise", |grant| grant.stages.raise),
            ("growth", |grant| grant.stages.growth),
            ("granted", |grant| grant.granted),
            ("touch", |grant| grant.touched),
        ];
        rows.extend(stages.map(|(stage, value)| Row::plain(format!("{name}_{stage}_ms"), all(value), "ms")));
    }
    Ok(rows)
}

/// Milliseconds of one grant.
struct Grant {
    /// From the allocation until it returns.
    granted: f64,
    /// The first touch.
    touched: f64,
    stages: Stages,
}

/// Returns the time in which the host itself releases as much memory and backs as much.
fn host_ms() -> Result<f64> {
    let bytes = WANTED_MIB << 20;
    let (held, wanted) = (Mapping::new(bytes)?, Mapping::new(bytes)?);
    held.advise_huge()?;
    wanted.advise_huge()?;
    held.touch_all();
    let time = seconds(|| {
        held.release()?;
        wanted.touch_all();
        Ok(())
    })?;
    Ok(1e3 * time)
}

/// Runs a donor of this mode and an asker.
fn grant(mode: &str) -> Result<Grant> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let disk = folder.path().join("data");
    File::create(&disk)?.set_len((HELD_MIB << 20) as u64)?;
    let image = guest_image("bench_grants");
    let image = image.display();
    let fleet = super::fleet(&format!(
        "pool = \"{POOL_MIB}M\"\n\
         [[guest]]\nname = \"donor\"\nimage = \"{image}\"\nmin = \"{MIN_MIB}M\"\nmax = \"{DONOR_MAX_MIB}M\"\n\
         command_line = \"{mode} {HELD_MIB}\"\ndisk = \"{}\"\ndisk_mode = \"read-only\"\n\
         [[guest]]\nname = \"asker\"\nimage = \"{image}\"\nmin = \"{MIN_MIB}M\"\nmax = \"{DONOR_MAX_MIB}M\"\n\
         command_line = \"want {WANTED_MIB}\"\n",
        disk.display()
    ))?;
    let timeline = Arc::new(Mutex::new(Timeline::default()));
    let logs = [folder.path().join("donor.log"), folder.path().join("asker.log")];
    let start = {
        let (timeline, logs, program) = (Arc::clone(&timeline), logs.clone(), aerostat_vmm());
        move |spec: &GuestSpec, target| {
            let role = if spec.name == "donor" { Role::Donor } else { Role::Asker };
            if role == Role::Asker {
                wait_for(&logs[0], "bench grants: ready")?;
            }
            let log: Option<PathBuf> = Some(logs[role as usize].clone());
            let config = GuestConfig { log, ..spec.config(target, program.clone()) };
            Ok(Timed { guest: VmmGuest::spawn(&config)?, role, timeline: Arc::clone(&timeline) })
        }
    };
    let options = RunOptions { limit: Some(PATIENCE), ..RunOptions::default() };
    let outcome = supervisor::run(&fleet, options, start, &mut Silent)?;
    ensure!(outcome.violations == 0, "the pool was overdrawn {} times", outcome.violations);
    let mut metrics = Metrics::default();
    let log = fs::read_to_string(&logs[1]).context("reading the asker's log")?;
    metrics.add_log(&log)?;
    let timeline = *timeline.lock().unwrap_or_else(PoisonError::into_inner);
    let stages =
        timeline.stages().with_context(|| format!("the memory did not come from the donor: {timeline:?}, {log}"))?;
    Ok(Grant { granted: metrics.ns("granted")? / 1e6, touched: metrics.ns("touched")? / 1e6, stages })
}

fn wait_for(log: &Path, text: &str) -> Result<()> {
    let start = Instant::now();
    while !fs::read_to_string(log).unwrap_or_default().contains(text) {
        ensure!(start.elapsed() < PATIENCE, "{} has no line {text:?}", log.display());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ignores all that is told of a run.
struct Silent;

impl Observer for Silent {
    fn on_event(&mut self, _: &Event) {}

    fn on_poll(&mut self, _: &FleetStatus) {}
}
