//! Measures how long a guest waits for 256 MiB that another guest has and does not release: its
//! driver follows no target. The waiting guest's own clock says how long its allocation takes.
//!
//! The limit is the time that paging takes by itself: from the moment at which the host begins
//! until all is out that has to be, as the supervisor sees it in the same run.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aerostat::fleet::{Fleet, GuestSpec};
use aerostat::host::cgroup::PoolGroup;
use aerostat::host::vmm_guest::{GuestConfig, VmmGuest};
use aerostat::scheduler::Rung;
use aerostat::supervisor::{self, Command, Event, EventKind, FleetStatus, Mailbox, Observer, mailbox};
use aerostat::supervisor::{PhysicalMemory, RunOptions, RunUntil};
use aerostat_abi::units::FrameCount;
use aerostat_tests::environment::{aerostat_vmm, guest_image};
use anyhow::{Context, Result, ensure};

use super::violations::Violations;
use crate::metrics::{Metrics, wait_for_line};
use crate::row::Row;
use crate::sample::median;

const WANTED_MIB: u64 = 256;
/// What the guest fills that ignores its targets.
const HELD_MIB: u64 = 384;
const IGNORES: &str = "ignores";
const ASKER: &str = "asker";
const MIN_MIB: u64 = 32;
/// Little is free when the asker begins to wait. A guest that swaps leaves 6 % of the pool alone.
const POOL_MIB: u64 = HELD_MIB + 80 + MIN_MIB;
/// The least that has to be paged out for the asker.
const PAGED_MIB: u64 = 128;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(60);
const TURNS: usize = 3;
/// The longest that the guest may wait.
const MOST_MS: f64 = 1000.0;

pub(super) fn measure(violations: &mut Violations) -> Result<Vec<Row>> {
    let runs = (0..TURNS).map(|_| run(violations)).collect::<Result<Vec<_>>>()?;
    let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    Ok(vec![
        Row::cost("forced_grant_ms", of(|run| run.granted_ms), "ms", of(|run| run.paging_ms)).goal(MOST_MS),
        Row::plain("forced_grant_until_paging_ms", of(|run| run.until_paging_ms), "ms"),
    ])
}

/// Milliseconds of one run.
struct Run {
    /// From the allocation until it returns.
    granted_ms: f64,
    /// From the first lowered target until the host pages.
    until_paging_ms: f64,
    /// From there until all is out that had to be.
    paging_ms: f64,
}

fn run(violations: &mut Violations) -> Result<Run> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let guest = |name: &str, image: &str, command_line: String, shares: &str| {
        let image = guest_image(image);
        format!(
            "[[guest]]\nname = \"{name}\"\nimage = \"{}\"\nmin = \"{MIN_MIB}M\"\nmax = \"512M\"\n\
             command_line = \"{command_line}\"\nshares = \"{shares}\"\nswap = \"512M\"\n",
            image.display()
        )
    };
    let ignores = guest(IGNORES, "ignores_targets", format!("{HELD_MIB} 600"), "low");
    // Without room to evict to, an allocation waits until there is memory for all of it.
    let asker = guest(ASKER, "bench_grants", format!("want {WANTED_MIB}"), "high").replace("swap = \"512M\"\n", "");
    let path = folder.path().join("fleet.toml");
    fs::write(&path, format!("pool = \"{POOL_MIB}M\"\n{ignores}{asker}"))?;
    let fleet = Fleet::load(&path)?;
    let logs = [folder.path().join("ignores.log"), folder.path().join("asker.log")];
    let pool = PoolGroup::create().context("making a control group")?;
    let physical = PhysicalMemory::ByControlGroup(Arc::clone(&pool));
    let start = {
        let (logs, program) = (logs.clone(), aerostat_vmm());
        move |spec: &GuestSpec, target: FrameCount| {
            let is_asker = spec.name == ASKER;
            if is_asker {
                wait_for_line(&logs[0], "ignores targets: begins", PATIENCE)?;
            }
            let log: Option<PathBuf> = Some(logs[usize::from(is_asker)].clone());
            let pool = Some(Arc::clone(&pool));
            Ok(VmmGuest::spawn(&GuestConfig { log, pool, ..spec.config(target, program.clone()) })?)
        }
    };
    let (client, inbox) = mailbox()?;
    let mut watch = Watch { client, asked: None, paging: None, peak: FrameCount::ZERO, paged: None };
    let options = RunOptions {
        until: RunUntil::Shutdown,
        inbox: Some(inbox),
        limit: Some(PATIENCE),
        physical,
        ..RunOptions::default()
    };
    let outcome = supervisor::run(&fleet, options, start, &mut watch)?;
    violations.add(&outcome)?;
    let log = fs::read_to_string(&logs[1]).context("reading the asker's log")?;
    let mut metrics = Metrics::default();
    metrics.add_log(&log)?;
    let Watch { asked, paging, peak, paged, .. } = watch;
    let (asked, paging) = (asked.context("no target was lowered")?, paging.context("the host did not page")?);
    ensure!(peak >= FrameCount::from_mib(PAGED_MIB), "the host paged out {peak} only");
    let paged = paged.context("nothing was paged out")?;
    let ms = |from: Duration, to: Duration| 1e3 * to.saturating_sub(from).as_secs_f64();
    Ok(Run {
        granted_ms: metrics.ns("granted")? / 1e6,
        until_paging_ms: ms(asked, paging),
        paging_ms: ms(paging, paged),
    })
}

/// Notes the moments of a run, and ends it with the asker.
struct Watch {
    client: Mailbox,
    asked: Option<Duration>,
    paging: Option<Duration>,
    /// The most that was paged out, and when.
    peak: FrameCount,
    paged: Option<Duration>,
}

impl Observer for Watch {
    fn on_event(&mut self, event: &Event) {
        match &event.what {
            EventKind::Target { guest, from, to, .. } if guest == IGNORES && to < from && self.paging.is_none() => {
                self.asked.get_or_insert(event.at);
            }
            EventKind::Confined { guest, rung: Rung::Paging, .. } if guest == IGNORES => {
                self.paging.get_or_insert(event.at);
            }
            EventKind::Ended { guest, .. } if guest == ASKER => {
                let _ = self.client.send(Command::Shutdown, Box::new(|_| ()));
            }
            _ => {}
        }
    }

    fn on_poll(&mut self, status: &FleetStatus) {
        let has_asker = status.guests.iter().any(|guest| guest.name == ASKER && guest.size > FrameCount::ZERO);
        let ignores = status.guests.iter().find(|guest| guest.name == IGNORES);
        let paged_out = ignores.and_then(|guest| guest.paged_out).unwrap_or_default();
        if has_asker && paged_out > self.peak {
            (self.peak, self.paged) = (paged_out, Some(status.elapsed));
        }
    }
}
