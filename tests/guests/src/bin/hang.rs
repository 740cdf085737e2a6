//! Two threads that compute for ever and two that wait, for the host to look at. Logs where each of
//! them is.

#![no_std]
#![no_main]

use core::hint::black_box;

use aerostat_guest::app::{self, Event, Outcome};

aerostat_guest::app!(main);

static NEVER: Event = Event::new();

fn main() -> Outcome {
    let threads = [app::spawn("spinner", || spin_beside(1)), app::spawn("waiter", wait), app::spawn("sleeper", sleep)];
    log::info!("hang: main {:p} spinner {:p}", spin as fn(u64), spin_beside as fn(u64));
    if threads.iter().any(Result::is_err) {
        return Outcome::Failure;
    }
    app::sleep(10); // so that the others wait by now
    log::info!("hang: begins");
    spin(1);
    Outcome::Success
}

#[inline(never)]
fn spin(mut number: u64) {
    while number != 0 {
        number = black_box(number).wrapping_mul(3) | 1;
    }
}

#[inline(never)]
fn spin_beside(mut number: u64) {
    while number != 0 {
        number = black_box(number).wrapping_mul(5) | 1;
    }
}

fn wait() {
    NEVER.wait(None);
}

fn sleep() {
    app::sleep(1 << 40);
}
