//! One huge frame, given and taken back and touched, again and again: whole, and in halves.

use core::ptr;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::port::Command;
use aerostat_abi::units::{FrameNumber, HUGE_ORDER, to_usize};

use crate::{SPARE, Wrong, expect, port};

const ROUNDS: usize = 1000;

pub(crate) fn throw_to_and_fro() -> Result<(), Wrong> {
    let start = SPARE.start;
    let half = |index: u64| Entry::pending(FrameNumber(start.0 + index * 256), HUGE_ORDER - 1);
    let word = ptr::with_exposed_provenance_mut::<u64>(to_usize(start.address()));
    for _ in 0..ROUNDS {
        throw([Entry::pending(start, HUGE_ORDER)])?;
        throw([half(1), half(0)])?;
        throw([half(0)])?;
        // SAFETY: memory of this guest's that nobody uses so early, mapped at its own address.
        let found = unsafe { word.read_volatile() };
        expect(found == 0, "memory came back with contents")?;
        // SAFETY: as above.
        unsafe { word.write_volatile(7) };
    }
    Ok(())
}

fn throw<const COUNT: usize>(entries: [Entry; COUNT]) -> Result<(), Wrong> {
    for command in [Command::Inflate, Command::Deflate] {
        let (_, _, done) = port::batch(command, entries);
        expect(done.iter().all(|entry| entry.status == EntryStatus::Done), "an entry was refused")?;
    }
    Ok(())
}
