//! Measures the supervisor with real guests: how it starts many of them and what it costs while
//! they are idle, and how fast memory gets from one guest to another.

mod grants;
mod many;
mod timed;
mod timeline;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use aerostat::fleet::{Fleet, GuestSpec};
use aerostat::host::GuestHandle;
use aerostat::host::cgroup::PoolGroup;
use aerostat::supervisor::{self, Inbox, Observer, Outcome, PhysicalMemory, RunOptions, RunUntil};
use aerostat_abi::units::FrameCount;
use anyhow::{Context, Result, ensure};

use crate::row::Row;

/// How long a run may take, and a guest to get as far as a run needs.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = many::measure()?;
    rows.extend(grants::measure()?);
    Ok(rows)
}

/// Runs a fleet until a command ends it, at most for [`PATIENCE`].
///
/// # Errors
/// Also where more was used than the pool has.
fn run<G, S>(
    fleet: &Fleet,
    (inbox, pool): (Inbox, Arc<PoolGroup>),
    start: S,
    observer: &mut dyn Observer,
) -> Result<Outcome>
where
    G: GuestHandle + Send + 'static,
    S: Fn(&GuestSpec, FrameCount) -> Result<G> + Send + Sync + 'static,
{
    let options = RunOptions {
        until: RunUntil::Shutdown,
        inbox: Some(inbox),
        limit: Some(PATIENCE),
        physical: PhysicalMemory::ByControlGroup(pool),
        ..RunOptions::default()
    };
    let outcome = supervisor::run(fleet, options, start, observer)?;
    ensure!(outcome.violations == 0, "the pool was overdrawn {} times", outcome.violations);
    Ok(outcome)
}

/// Makes the control group of a fleet.
fn pool() -> Result<Arc<PoolGroup>> {
    PoolGroup::create().context("making a control group")
}

/// Reads a fleet file of this text.
fn fleet(text: &str) -> Result<Fleet> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let path = folder.path().join("fleet.toml");
    fs::write(&path, text)?;
    Ok(Fleet::load(&path)?)
}
