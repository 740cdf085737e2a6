//! Makes memory read-only and writable again while pages are evicted. In the end it writes to
//! read-only memory.

#![no_std]
#![no_main]

use aerostat_guest::app::memory::{Mapping, OutOfMemory};
use aerostat_guest::app::{self, Outcome};

#[path = "../text_like.rs"]
mod text_like;

aerostat_guest::app!(main);

const BYTES: usize = (8 << 20) + 12_288;

fn main() -> Outcome {
    match run() {
        Ok(()) => log::error!("protect: read-only memory was written to"),
        Err(what) => log::error!("protect: {what}"),
    }
    Outcome::Failure
}

fn run() -> Result<(), &'static str> {
    let no_memory = |OutOfMemory| "no memory";
    let mut memory = Mapping::anonymous(BYTES).map_err(no_memory)?;
    text_like::fill(&mut memory, 0, 1);
    let memory = memory.into_read_only();
    let mut others =
        Mapping::anonymous(usize::try_from(app::memory().total.bytes()).unwrap_or(0)).map_err(no_memory)?;
    text_like::fill(&mut others, 0, 2);
    if memory.statistics().resident == memory.statistics().pages {
        return Err("nothing was evicted");
    }
    if !text_like::is_kept(&memory, 0, 1) {
        return Err("read-only memory has changed");
    }
    let mut memory = memory.into_writable();
    text_like::fill(&mut memory, 0, 3);
    let memory = memory.into_read_only();
    if !text_like::is_kept(&memory, 0, 3) {
        return Err("written memory has changed");
    }
    log::info!("protect: {} restores, now to what must not be", memory.statistics().restores);
    write_to(&memory[BYTES - 1]);
    Ok(())
}

#[allow(unsafe_code, reason = "writes to read-only memory, which safe code can't")]
fn write_to(byte: &u8) {
    // SAFETY: the exception ends the guest here.
    unsafe { core::ptr::from_ref(byte).cast_mut().write_volatile(1) };
}
