//! Memory in single frames, every second one of an area: no two of them are neighbours, and none of
//! their huge frames is free. The host has huge pages behind all of them.

use aerostat_tests::{PhysicalMeter, Plan};
use anyhow::{Result, ensure};

use super::mover::Mover;
use super::{MEMORY_MIB, TURNS, gib_s};
use crate::mapping::{HUGE_BYTES, Mapping, PAGE_BYTES};
use crate::row::Row;
use crate::sample::{median, seconds};

/// What moves.
const MOVED_MIB: u64 = 384;
/// The guest keeps every second page of this area. As large as it, the guest has no huge frame left
/// to give. The pages that it has discarded are still committed, so the kernel lets their frames go
/// only where it can swap.
const AREA_MIB: u64 = 1024;

/// Of which every second page is as many ranges as a call takes.
const CHUNK_BYTES: usize = 4 * HUGE_BYTES;

/// How a host frees part of a huge page.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The parts are released, and what is left of each huge page is split.
    Split,
    /// What is to stay is copied out, all is released, and what is to stay is copied back.
    Copy,
}

pub(super) fn measure(meter: &PhysicalMeter) -> Result<Vec<Row>> {
    let plan = Plan::test_guest("bench_balloon").memory_mib(MEMORY_MIB).swap_mib(AREA_MIB);
    let (mut guest_rates, mut split_rates, mut copy_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        split_rates.push(gib_s(MOVED_MIB, on_the_host(Way::Split, meter)?));
        copy_rates.push(gib_s(MOVED_MIB, on_the_host(Way::Copy, meter)?));
        let guest = Mover::boot_plan(&plan, "scattered");
        guest.resize(AREA_MIB)?;
        guest_rates.push(gib_s(MOVED_MIB, guest.squeeze(AREA_MIB - MOVED_MIB, meter)?));
    }
    let limit = median(split_rates).max(median(copy_rates));
    let row = Row::rate("inflate_touched_4k", median(guest_rates), "GiB/s", limit);
    Ok(vec![row.goal_of_limit(0.8)])
}

/// Seconds that the host takes to free as much in every second page of memory that it has backed
/// with huge pages, in as few calls as it allows.
fn on_the_host(way: Way, meter: &PhysicalMeter) -> Result<f64> {
    let bytes = usize::try_from((2 * MOVED_MIB) << 20)?;
    let mut memory = Mapping::new(bytes)?;
    memory.advise_huge()?;
    memory.touch_all();
    let taken = meter.bytes()?;
    let time = seconds(|| {
        memory.advise_small()?;
        // As many huge pages at a time as fill a call: what is split then is still in the
        // processor's caches.
        (0..bytes).step_by(CHUNK_BYTES).try_for_each(|at| match way {
            Way::Split => {
                let pages = |first, step| -> Vec<_> {
                    (at + first..bytes.min(at + CHUNK_BYTES)).step_by(step).map(|at| at..at + PAGE_BYTES).collect()
                };
                memory.release_ranges(&pages(0, 2 * PAGE_BYTES))?;
                memory.split_at(&pages(PAGE_BYTES, HUGE_BYTES))
            }
            Way::Copy => (at..at + CHUNK_BYTES).step_by(HUGE_BYTES).try_for_each(|at| memory.keep_every_second(at)),
        })
    })?;
    let free = taken.saturating_sub(meter.bytes()?);
    ensure!(free >= (MOVED_MIB << 20) * 98 / 100, "{way:?} frees {} of {MOVED_MIB} MiB on the host", free >> 20);
    Ok(time)
}
