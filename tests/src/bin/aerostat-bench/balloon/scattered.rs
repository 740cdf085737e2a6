//! Measures inflating of single frames: every second one of an area. No two of them are neighbours,
//! no huge frame is free, and the host backs all of them with huge pages.

use aerostat_tests::{PhysicalMeter, Plan};
use anyhow::{Result, ensure};

use super::mover::Mover;
use super::{MEMORY_MIB, TURNS, gib_s};
use crate::mapping::{HUGE_BYTES, Mapping, PAGE_BYTES};
use crate::row::Row;
use crate::sample::{median, seconds};

/// The memory that moves.
const MOVED_MIB: u64 = 384;
/// The area of which the guest keeps every second page. At this size it has no whole huge frame to
/// inflate. The discarded pages are still committed, so their frames can leave only if the guest
/// can swap.
const AREA_MIB: u64 = 1024;

/// Memory whose every second page makes as many ranges as a call may have.
const CHUNK_BYTES: usize = 4 * HUGE_BYTES;

/// A way in which a host frees part of a huge page.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Releases the pages, then splits the rest of each huge page.
    Split,
    /// Copies the pages that stay out, releases the huge page and copies them back.
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

/// Returns the seconds that the host takes to free as much memory: every second page of memory that
/// it backs with huge pages, in as few calls as it allows.
fn on_the_host(way: Way, meter: &PhysicalMeter) -> Result<f64> {
    let bytes = usize::try_from((2 * MOVED_MIB) << 20)?;
    let mut memory = Mapping::new(bytes)?;
    memory.advise_huge()?;
    memory.touch_all();
    let before = meter.bytes()?;
    let time = seconds(|| {
        memory.advise_small()?;
        // As many huge pages at a time as fill a call, so that they are still in the processor's
        // caches when they are split.
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
    let free = before.saturating_sub(meter.bytes()?);
    ensure!(free >= (MOVED_MIB << 20) * 98 / 100, "{way:?} frees {} of {MOVED_MIB} MiB on the host", free >> 20);
    Ok(time)
}
