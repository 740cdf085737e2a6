//! Touches memory in 2 MiB pages and frees it. It leaves, returns, and is touched again.

use aerostat_abi::units::{FrameCount, to_usize};
use aerostat_guest::app::{self, Instant, memory::Mapping};

use crate::{MOVED, log, ready, touch, touched, wait_until};

pub(crate) fn measure() -> Result<(), &'static str> {
    let bytes = to_usize(MOVED.bytes());
    let huge_before = app::memory().huge_faults;
    drop(touched(bytes)?);
    if (app::memory().huge_faults - huge_before) * (2 << 20) < MOVED.bytes() {
        return Err("the memory was not touched in 2 MiB pages");
    }
    ready();
    wait_until(|ballooned| ballooned >= MOVED);
    log::info!("bench balloon: shrunk");
    wait_until(|ballooned| ballooned == FrameCount::ZERO);
    let mut memory = Mapping::anonymous(bytes).map_err(|_| "no memory")?;
    let start = Instant::now();
    touch(&mut memory);
    log("retouch", Instant::now().since(start), MOVED.0);
    Ok(())
}
