//! Measures how fast memory in huge frames leaves, returns and is backed again.

use std::thread;
use std::time::{Duration, Instant};

use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::PhysicalMeter;
use anyhow::Result;

use super::mover::Mover;
use super::{MEMORY_MIB, METADATA_GIB_S, MOVED_MIB, TURNS, gib_s, host, to_f64};
use crate::metrics::Metrics;
use crate::row::Row;
use crate::sample::median;
use aerostat_tests::resident_mib;

/// How long the untouched guest rests. A guest that touches memory has run for as long, and a
/// driver's rate may depend on that.
const SETTLED: Duration = Duration::from_millis(1500);
/// How long a guest takes to see that its memory has returned: half of the time between its
/// samples.
const GUEST_SAMPLES: Duration = Duration::from_millis(50);
const PAGES_PER_MIB: f64 = 256.0;

pub(super) fn measure(meter: &PhysicalMeter) -> Result<Vec<Row>> {
    let (mut touched, mut untouched, mut deflate) = (Vec::new(), Vec::new(), Vec::new());
    let (mut resident, mut host_release, mut host_touch) = (Vec::new(), Vec::new(), Vec::new());
    let mut physical = Vec::new();
    let mut metrics = Metrics::default();
    for _ in 0..TURNS {
        host_release.push(gib_s(MOVED_MIB, host::release()?));

        let without = meter.bytes()?;
        let mut guest = Mover::boot(MEMORY_MIB, "touched");
        guest
            .0
            .wait_for_facts("all touched memory resident", |facts| facts.resident >= FrameCount::from_mib(MOVED_MIB));
        touched.push(gib_s(MOVED_MIB, guest.squeeze(MEMORY_MIB - MOVED_MIB, meter)?));
        let released = Instant::now();
        guest.0.wait_for_line("bench balloon: shrunk");
        resident.push(resident_mib(guest.0.pid())?);
        physical.push(to_f64(meter.bytes()?.saturating_sub(without) >> 20));
        deflate.push(gib_s(MOVED_MIB, guest.resize(MEMORY_MIB)?));
        let rest = released.elapsed() + GUEST_SAMPLES;
        guest.0.expect_exit(GuestExit::Success);
        metrics.add_guest(&guest.0)?;
        drop(guest);
        host_touch.push(gib_s(MOVED_MIB, host::touch_after(rest)?));

        let guest = Mover::boot(MEMORY_MIB, "idle");
        thread::sleep(SETTLED);
        untouched.push(gib_s(MOVED_MIB, guest.resize(MEMORY_MIB - MOVED_MIB)?));
    }
    let retouch = gib_s(1, metrics.ns("retouch")? * PAGES_PER_MIB / 1e9);
    Ok(vec![
        Row::rate("inflate_touched_2m", median(touched), "GiB/s", median(host_release)).goal_of_limit(0.85),
        Row::rate("inflate_untouched", median(untouched), "GiB/s", METADATA_GIB_S).goal_of_limit(1.0),
        Row::rate("deflate", median(deflate), "GiB/s", METADATA_GIB_S).goal_of_limit(1.0),
        Row::plain("resident_after_inflate_mib", median(resident), "MiB"),
        Row::plain("physical_after_inflate_mib", median(physical), "MiB"),
        Row::rate("retouch_2m", retouch, "GiB/s", median(host_touch)).goal_of_limit(0.9),
    ])
}
