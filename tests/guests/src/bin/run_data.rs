//! Runs what lies in its data, on its stack or in its heap, as the command line says; that ends it.

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
    // SAFETY: it is not: the kernel is to end the guest here. Where it does not, the function
    // returns at once.
    unsafe { core::mem::transmute::<*const AtomicU64, extern "C" fn()>(code)() };
    log::error!("run data: nothing has happened");
    Outcome::Success
}
