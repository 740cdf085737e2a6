//! Waits for events whose memory is on the swap disk: an event by itself, one in a mutex and one in
//! a join handle.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;

use aerostat_guest::app::memory::{Mapping, OutOfMemory};
use aerostat_guest::app::{self, Event, Mutex, Outcome, SpawnError};

aerostat_guest::app!(main);

const EVENTS: usize = 400;
/// The distance between two events, so that each has a page of its own.
const SPACING_BYTES: usize = 8 << 10;
/// More than twice the memory of the guest.
const NOISE_BYTES: usize = 140 << 20;
/// Long enough for the other threads to wait.
const PAUSE_MS: u64 = 50;

fn main() -> Outcome {
    match run().and_then(|()| app::validate()) {
        Ok(()) => {
            log::info!("evicted events: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("evicted events: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<(), &'static str> {
    let events: Vec<&Event> = (0..EVENTS).map(|_| leaked_apart(Event::new())).collect();
    let counter: &Mutex<u64> = leaked_apart(Mutex::new(0));
    let first = events[0];
    let waiter = app::spawn("waiter", move || first.wait(None)).map_err(no_thread)?;
    let held = counter.lock();
    let locker = app::spawn("locker", move || *counter.lock() += 1).map_err(no_thread)?;
    app::sleep(PAUSE_MS);
    let filler = noise(1)?;
    let before = app::memory().restores;
    for event in &events {
        event.signal();
    }
    if app::memory().restores < before + EVENTS as u64 / 2 {
        return Err("the events were not evicted");
    }
    drop(held);
    let ((), ()) = (waiter.join(), locker.join());
    drop(filler);
    if *counter.lock() != 1 {
        return Err("the mutex did not keep its count");
    }
    // The thread returns while this one waits for it, and each of them has memory of its own
    // besides what they share.
    let late = app::spawn("late", || noise(2).map(drop)).map_err(no_thread)?;
    late.join()
}

/// Allocates `value` between objects that do not compress, so that its page goes to the disk.
fn leaked_apart<T>(value: T) -> &'static T {
    let mut neighbours = [(); 2].map(|()| Box::new([0; SPACING_BYTES / 2]));
    neighbours.iter_mut().zip(3..).for_each(|(neighbour, seed)| fill(&mut **neighbour, seed));
    let value = Box::leak(Box::new(value));
    core::hint::black_box(Box::leak(Box::new(neighbours)));
    value
}

/// Allocates memory and fills it with data that does not compress.
fn noise(seed: u64) -> Result<Mapping, &'static str> {
    let mut memory = Mapping::anonymous(NOISE_BYTES).map_err(|OutOfMemory| "no memory")?;
    fill(&mut memory, seed);
    Ok(memory)
}

fn fill(memory: &mut [u8], mut state: u64) {
    for word in memory.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
}

fn no_thread(_: SpawnError) -> &'static str {
    "no thread"
}
