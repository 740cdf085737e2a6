//! How fast memory leaves a guest and returns when QMP sets another target, and how long the
//! guest's processor runs for it.

use anyhow::{Result, ensure};

use super::machine::{Machines, Running, Software, resize};
use super::{MEMORY_MIB, MOVED_MIB, TURNS, gib};
use crate::mapping::{Mapping, PAGE_BYTES};
use crate::row::Row;
use crate::sample::{median, seconds, to_f64};
use aerostat_tests::resident_mib;

/// The parts of the peer's rate and time that an Aerostat guest should reach.
const RATE_GOAL: f64 = 1.5;
const TIME_GOAL: f64 = 0.5;
/// What is released page by page to measure the host's own price.
const RELEASED_MIB: u64 = 512;

/// The figures of one guest, in GiB a second, and in seconds of guest time for a GiB.
#[derive(Debug, Default)]
struct Figures {
    inflate: Vec<f64>,
    deflate: Vec<f64>,
    inflate_time: Vec<f64>,
    resident_mib: Vec<f64>,
}

pub(super) fn measure(machines: &Machines) -> Result<Vec<Row>> {
    let touched = format!("phases={MOVED_MIB}M:1s,1M:3600s");
    let aerostat = Software::aerostat("memwalk", &touched, "1 MiB in use of 1 MiB");
    let linux = Software::linux(&format!("touch_mib={MOVED_MIB}"));
    let (mut ours, mut peer, mut release) = (Figures::default(), Figures::default(), Vec::new());
    for _ in 0..TURNS {
        release.push(gib(RELEASED_MIB) / release_by_page()?);
        ours.turn(&machines.boot(&aerostat, MEMORY_MIB)?)?;
        peer.turn(&machines.boot(&linux, MEMORY_MIB)?)?;
    }
    let [inflate, deflate, time] = [peer.inflate, peer.deflate, peer.inflate_time].map(median);
    let release = median(release);
    Ok(vec![
        Row::rate("qemu_inflate_gib_s", median(ours.inflate), "GiB/s", inflate)
            .goal((RATE_GOAL * inflate).min(0.9 * release)),
        Row::rate("qemu_deflate_gib_s", median(ours.deflate), "GiB/s", deflate).goal_of_limit(RATE_GOAL),
        Row::cost("qemu_inflate_guest_s_gib", median(ours.inflate_time), "s/GiB", time).goal_of_limit(TIME_GOAL),
        Row::plain("qemu_resident_after_inflate_mib", median(ours.resident_mib), "MiB"),
        Row::plain("peer_resident_after_inflate_mib", median(peer.resident_mib), "MiB"),
        Row::plain("host_release_by_page_gib_s", release, "GiB/s"),
    ])
}

impl Figures {
    fn turn(&mut self, guest: &Running) -> Result<()> {
        let before = resident_mib(guest.pid())?;
        ensure!(before >= to_f64(MOVED_MIB), "the guest has touched only {before} MiB");
        let mut monitor = guest.monitor()?;
        let ran = guest.guest_seconds()?;
        self.inflate.push(gib(MOVED_MIB) / resize(&mut monitor, MEMORY_MIB - MOVED_MIB)?);
        self.inflate_time.push((guest.guest_seconds()? - ran) / gib(MOVED_MIB));
        self.resident_mib.push(resident_mib(guest.pid())?);
        self.deflate.push(gib(MOVED_MIB) / resize(&mut monitor, MEMORY_MIB)?);
        Ok(())
    }
}

/// Returns the seconds that the host takes to release touched memory as QEMU does for a balloon:
/// page by page.
fn release_by_page() -> Result<f64> {
    let memory = Mapping::new(usize::try_from(RELEASED_MIB << 20)?)?;
    memory.advise_huge()?; // as QEMU does
    memory.touch_all();
    let bytes = usize::try_from(RELEASED_MIB << 20)?;
    seconds(|| (0..bytes).step_by(PAGE_BYTES).try_for_each(|at| memory.release_page(at)))
}
