//! Measures how long a guest waits for a GiB that another guest has, and how long until it has
//! touched all of it.
//!
//! The donor holds nearly all of the pool: as memory that its application has freed, or as page
//! cache. A user's target keeps it there while nothing is needed, as the supervisor would take idle
//! memory back before long. When the asker waits, the target is left to the scheduler. The asker's
//! own clock says how long the allocation and the first touch take; what happens between them is
//! seen from the supervisor. A run in which a stage is missing, or in which the memory did not go
//! physically from one process to the other, fails.
//!
//! Fleets run in this process, with the supervisor of `aerostat up`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aerostat::fleet::GuestSpec;
use aerostat::host::vmm_guest::{GuestConfig, VmmGuest};
use aerostat::supervisor::{Command, Event, FleetStatus, Observer, mailbox};
use aerostat_abi::units::FrameCount;
use aerostat_tests::environment::{aerostat_vmm, guest_image};
use anyhow::{Context, Result};

use super::PATIENCE;
use super::timed::{DONOR, Role, Timed};
use super::timeline::{Stages, Timeline};
use crate::mapping::Mapping;
use crate::metrics::{Metrics, wait_for_line};
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

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, mode, goal_ms) in [("pressure_to_grant", "free", 100.0), ("cache_to_grant", "cache", 200.0)] {
        let mut grants = Vec::new();
        let mut limits = Vec::new();
        for _ in 0..TURNS {
            limits.push(host_ms()?);
            grants.push(grant(mode)?);
        }
        let all = |value: Value| median(grants.iter().map(value).collect());
        rows.push(Row::plain(format!("{name}_ms"), all(|grant| grant.granted), "ms").goal(goal_ms));
        let stages: [(&str, Value); 7] = [
            ("notice", |grant| grant.stages.notice),
            ("decision", |grant| grant.stages.decision),
            ("inflation", |grant| grant.stages.inflation),
            ("release", |grant| grant.stages.release),
            ("raise", |grant| grant.stages.raise),
            // By the asker's clock, and less what came before by the host's.
            ("growth", |grant| grant.granted - grant.stages.all),
            ("touch", |grant| grant.touched),
        ];
        rows.extend(stages.map(|(stage, value)| Row::plain(format!("{name}_{stage}_ms"), all(value), "ms")));
        rows.push(Row::plain(format!("{name}_raises"), all(|grant| grant.stages.raises), ""));
        let touched = all(|grant| grant.granted + grant.touched);
        rows.push(Row::cost(format!("{name}_and_touch_ms"), touched, "ms", median(limits)));
    }
    Ok(rows)
}

/// A figure of a grant.
type Value = fn(&Grant) -> f64;

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
         [[guest]]\nname = \"{DONOR}\"\nimage = \"{image}\"\nmin = \"{MIN_MIB}M\"\nmax = \"{DONOR_MAX_MIB}M\"\n\
         command_line = \"{mode} {HELD_MIB}\"\ndisk = \"{}\"\ndisk_mode = \"read-only\"\n\
         [[guest]]\nname = \"asker\"\nimage = \"{image}\"\nmin = \"{MIN_MIB}M\"\nmax = \"{DONOR_MAX_MIB}M\"\n\
         command_line = \"want {WANTED_MIB}\"\n",
        disk.display()
    ))?;
    let timeline = Arc::new(Mutex::new(Timeline::default()));
    let logs = [folder.path().join("donor.log"), folder.path().join("asker.log")];
    let (client, inbox) = mailbox()?;
    let pinned = FrameCount::from_mib(DONOR_MAX_MIB as u64);
    client.send(Command::Target { guest: DONOR.to_owned(), target: Some(pinned) }, Box::new(|_| ()))?;
    let pool = super::pool()?;
    let start = {
        let (timeline, logs, program) = (Arc::clone(&timeline), logs.clone(), aerostat_vmm());
        let pool = Arc::clone(&pool);
        move |spec: &GuestSpec, target| {
            let role = if spec.name == DONOR { Role::Donor } else { Role::Asker };
            if role == Role::Asker {
                wait_for_line(&logs[0], "bench grants: ready", PATIENCE)?;
            }
            let log: Option<PathBuf> = Some(logs[role as usize].clone());
            let config = GuestConfig { log, pool: Some(Arc::clone(&pool)), ..spec.config(target, program.clone()) };
            let (timeline, client) = (Arc::clone(&timeline), client.clone());
            Ok(Timed { guest: VmmGuest::spawn(&config)?, role, timeline, client })
        }
    };
    super::run(&fleet, (inbox, pool), start, &mut Silent)?;
    let mut metrics = Metrics::default();
    let log = fs::read_to_string(&logs[1]).context("reading the asker's log")?;
    metrics.add_log(&log)?;
    let timeline = *timeline.lock().unwrap_or_else(PoisonError::into_inner);
    let stages = timeline.stages(FrameCount::from_mib(WANTED_MIB as u64))?;
    Ok(Grant { granted: metrics.ns("granted")? / 1e6, touched: metrics.ns("touched")? / 1e6, stages })
}

/// Ignores all that is told of a run.
struct Silent;

impl Observer for Silent {
    fn on_event(&mut self, _: &Event) {}

    fn on_poll(&mut self, _: &FleetStatus) {}
}
