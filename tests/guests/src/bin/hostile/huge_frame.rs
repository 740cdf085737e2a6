//! Inflates and deflates one huge frame again and again, whole and in halves, and touches it.

use core::ptr;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::port::Command;
use aerostat_abi::units::{FrameNumber, HUGE_ORDER, to_usize};

use crate::{SPARE, Wrong, expect, port};

const ROUNDS: usize = 1000;

pub(crate) fn inflate_and_deflate() -> Result<(), Wrong> {
    let start = SPARE.start;
    let half = |index: u64| Entry::pending(FrameNumber(start.0 + index * 256), HUGE_ORDER - 1);
    let word = ptr::with_exposed_provenance_mut::<u64>(to_usize(start.address()));
    for _ in 0..ROUNDS {
        round_trip([Entry::pending(start, HUGE_ORDER)])?;
        round_trip([half(1), half(0)])?;
        round_trip([half(0)])?;
        // SAFETY: memory of this guest, mapped at its own address, that the kernel has not used
        // yet.
        let found = unsafe { word.read_volatile() };
        expect(found == 0, "memory returned with contents")?;
        // SAFETY: as above.
        unsafe { word.write_volatile(7) };
    }
    Ok(())
}

fn round_trip<const COUNT: usize>(entries: [Entry; COUNT]) -> Result<(), Wrong> {
    for command in [Command::Inflate, Command::Deflate] {
        let (_, _, done) = port::batch(command, entries);
        expect(done.iter().all(|entry| entry.status == EntryStatus::Done), "an entry was refused")?;
    }
    Ok(())
}
