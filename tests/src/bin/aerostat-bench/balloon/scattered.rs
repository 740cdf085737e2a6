//! Memory in single frames, every second one of an area: no two of them are neighbours, and none of their huge frames is free.

use aerostat_tests::Plan;
use anyhow::Result;

use super::mover::Mover;
use super::{MEMORY_MIB, TURNS, gib_s};
use crate::mapping::{Mapping, PAGE_BYTES};
use crate::row::Row;
use crate::sample::{median, seconds};

/// What moves.
const MOVED_MIB: u64 = 384;
/// The guest keeps every second page of this area. As large as it, the guest has no huge frame left to give.
/// The pages that it has discarded are still promised, so the kernel lets their frames go only where it can swap.
const AREA_MIB: u64 = 1024;

pub(super) fn measure() -> Result<Vec<Row>> {
    let plan = Plan::test_guest("bench_balloon").memory_mib(MEMORY_MIB).swap_mib(AREA_MIB);
    let (mut guest_rates, mut host_rates) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        host_rates.push(gib_s(MOVED_MIB, on_the_host()?));
        let guest = Mover::boot_plan(&plan, "scattered");
        guest.resize(AREA_MIB)?;
        guest_rates.push(gib_s(MOVED_MIB, guest.squeeze(AREA_MIB - MOVED_MIB)?));
    }
    let row = Row::rate("inflate_touched_4k", median(guest_rates), "GiB/s", median(host_rates));
    Ok(vec![row.goal_of_limit(0.8)])
}

/// Seconds that the host takes to release as much in every second one of small pages, in as few calls as it allows.
fn on_the_host() -> Result<f64> {
    let bytes = usize::try_from((2 * MOVED_MIB) << 20)?;
    let memory = Mapping::new(bytes)?;
    memory.advise_small()?;
    memory.touch_all();
    let pages: Vec<_> = (0..bytes).step_by(2 * PAGE_BYTES).map(|at| at..at + PAGE_BYTES).collect();
    seconds(|| memory.release_ranges(&pages))
}
