//! What the host itself takes to back as much memory with huge pages as moves between it and a
//! guest, and to release it.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::MOVED_MIB;
use crate::mapping::Mapping;
use crate::sample::seconds;

/// Seconds that the host takes to release as much memory. A single call releases everything: no
/// driver can have less. It is touched for the first time before that, so that the host has made
/// memory free for it: whoever comes next finds it free, too.
pub(super) fn release() -> Result<f64> {
    let memory = touched()?;
    memory.release()?;
    memory.touch_all();
    seconds(|| memory.release())
}

/// Seconds that the host takes to back as much memory again that it released `rest` ago. A host
/// that is a virtual machine itself may have reported the memory free meanwhile, and then has to be
/// given it first; that costs several times as much.
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
