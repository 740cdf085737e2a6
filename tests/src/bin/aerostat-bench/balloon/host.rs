//! What the host itself takes to back as much memory with huge pages as moves between it and a guest, and to release it.

use anyhow::Result;

use super::MOVED_MIB;
use crate::mapping::Mapping;
use crate::sample::seconds;

/// Seconds.
pub(super) struct Times {
    pub(super) touch: f64,
    pub(super) release: f64,
}

/// Measures once. A single call releases everything: no driver can have less. It is touched for the first time before that, so that the
/// host has made memory free for it: whoever comes next finds it free, too.
pub(super) fn huge() -> Result<Times> {
    let memory = Mapping::new(usize::try_from(MOVED_MIB << 20)?)?;
    memory.advise_huge()?;
    memory.touch_all();
    memory.release()?;
    let touch = seconds(|| {
        memory.touch_all();
        Ok(())
    })?;
    Ok(Times { touch, release: seconds(|| memory.release())? })
}
