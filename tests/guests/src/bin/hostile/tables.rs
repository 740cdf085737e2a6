//! Inflates all memory that it can, its page tables and its stack included, which ends the guest.

use aerostat_abi::batch::Entry;
use aerostat_abi::port::Command;
use aerostat_abi::units::{FrameNumber, HUGE_ORDER};

use crate::{SPARE, Wrong, port};

pub(crate) fn inflate() -> Result<(), Wrong> {
    port::mask_upcalls();
    for order in [HUGE_ORDER, 0] {
        for frame in (0..SPARE.end.0).step_by(1 << order) {
            port::batch(Command::Inflate, [Entry::pending(FrameNumber(frame), order)]);
        }
    }
    Err("the guest goes on without its page tables")
}
