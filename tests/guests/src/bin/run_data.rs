//! Executes bytes of its data, its stack or its heap, as the command line says, which ends the
//! guest.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use core::sync::atomic::AtomicU64;

use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

/// `ret`.
const CODE: u64 = 0xc3;
static DATA: AtomicU64 = AtomicU64::new(CODE);

fn main() -> Outcome {
    let (stack, heap) = (AtomicU64::new(CODE), Box::new(AtomicU64::new(CODE)));
    let code: *const AtomicU64 = match app::arguments() {
        "data" => &raw const DATA,
        "stack" => &raw const stack,
        _ => &raw const *heap,
    };
    log::info!("run data: at {code:p}");
    // SAFETY: none. The kernel must end the guest here; if it does not, the function returns at
    // once.
    unsafe { core::mem::transmute::<*const AtomicU64, extern "C" fn()>(code)() };
    log::error!("run data: the guest was not ended");
    Outcome::Success
}
