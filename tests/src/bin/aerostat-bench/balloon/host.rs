//! Measures how fast the host itself backs memory with huge pages and releases it: as much as moves
//! between it and a guest.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::MOVED_MIB;
use crate::mapping::Mapping;
use crate::sample::seconds;

/// Returns the seconds that the host takes to release as much memory in a single call, which no
/// driver can beat. The memory is touched and released once before, so that the host has made
/// memory free for it and for the measurement that follows.
pub(super) fn release() -> Result<f64> {
    let memory = touched()?;
    memory.release()?;
    memory.touch_all();
    seconds(|| memory.release())
}

/// Returns the seconds that the host takes to back memory again that it released `rest` ago. A host
/// that is a virtual machine itself may have reported that memory as free meanwhile. It then has to
/// get memory from its own host first, which costs several times as much.
pub(super) fn touch_after(rest: Duration) -> Result<f64> {
    let memory = touched()?;
    memory.release()?;
    thread::sleep(rest);
    seconds(|| {
        memory.touch_all();
        Ok(())
    })
}

fn touched() -> Result<Mapping> {
    let memory = Mapping::new(usize::try_from(MOVED_MIB << 20)?)?;
    memory.advise_huge()?;
    memory.touch_all();
    Ok(memory)
}
