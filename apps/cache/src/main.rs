//! A service that answers from a cache, and drops items when memory is short.
//!
//! `items=192 [requests=100000]`: the number of items of 1 MiB, and the number of requests to
//! answer. Without `requests=` the service answers for as long as the guest runs.
#![no_std]
#![no_main]

extern crate alloc;

mod items;

use aerostat_guest::app::memory::{Pressure, on_pressure};
use aerostat_guest::app::{self, Instant, Mutex, Outcome};
use alloc::boxed::Box;
use alloc::format;

use items::{Item, Items, word};

aerostat_guest::app!(main);

/// The time between two reports to the host.
const REPORT_NS: u64 = 100_000_000;
/// Items by which the limit of the cache rises with every report.
const GROWTH: usize = 4;

/// The cached items. No memory is allocated while they are locked: an allocation may wait for
/// [`shrink`], which needs the lock.
static CACHE: Mutex<Items> = Mutex::new(Items::new());

/// The values on the command line.
struct Plan {
    items: usize,
    requests: u64,
}

fn main() -> Outcome {
    let plan = match plan(app::words()) {
        Ok(plan) => plan,
        Err(word) => {
            log::error!("{word:?} is not understood: expected items=N [requests=N] such as items=192");
            return Outcome::Failure;
        }
    };
    if CACHE.lock().reserve(plan.items).is_err() {
        log::error!("there is no memory to list {} items; ask for fewer", plan.items);
        return Outcome::Failure;
    }
    if let Err(error) = on_pressure(Box::new(shrink)) {
        log::error!("the kernel can't call the cache when memory is short: {error}");
        return Outcome::Failure;
    }
    serve(&plan)
}

/// Parses the words of a command line; the error is the word that is wrong.
fn plan<'a>(words: impl Iterator<Item = &'a str>) -> Result<Plan, &'a str> {
    let mut plan = Plan { items: 64, requests: u64::MAX };
    for word in words {
        match word.split_once('=') {
            Some(("items", count)) => plan.items = count.parse().ok().filter(|&items| items > 0).ok_or(word)?,
            Some(("requests", count)) => plan.requests = count.parse().map_err(|_| word)?,
            _ => return Err(word),
        }
    }
    Ok(plan)
}

/// Answers requests and checks each answer, since this example is to show that none is ever wrong.
fn serve(plan: &Plan) -> Outcome {
    let (mut right, mut wrong) = (0, 0);
    let mut next_report = Instant::now();
    for request in 0..plan.requests {
        let key = mixed(request) % plan.items as u64;
        let place = mixed(!request);
        if answer(key, place) == word(key, place) {
            right += 1;
        } else {
            wrong += 1;
        }
        if Instant::now() >= next_report {
            next_report = Instant::now().after(REPORT_NS);
            CACHE.lock().raise_limit(GROWTH);
            let cached = CACHE.lock().count();
            app::report(right * 8, wrong, &format!("serving, {cached} of {} MiB cached", plan.items));
        }
    }
    app::report(right * 8, wrong, "done");
    log::info!("{right} answers right, {wrong} wrong, {} MiB cached", CACHE.lock().count());
    if wrong == 0 { Outcome::Success } else { Outcome::Failure }
}

/// Returns a word of an item, from the cache or else from a new item.
fn answer(key: u64, place: u64) -> u64 {
    let cached = CACHE.lock().find(key, place);
    if let Some(word) = cached {
        return word;
    }
    // Before the item is made, so that the cache stays within its limit and no allocation waits for
    // memory that the cache could drop.
    CACHE.lock().make_room();
    let Some(item) = Item::make(key) else {
        // Without memory for the item, the service answers without it. That is slower.
        return word(key, place);
    };
    let word = item.word(place);
    CACHE.lock().insert(item);
    word
}

/// Drops items. The kernel calls this in a thread of its own when memory is short. Memory that is
/// dropped here need not be evicted, and the balloon can pass it on to another guest. The limit
/// rises slowly afterwards, or the cache would need the memory again at once.
fn shrink(pressure: Pressure) {
    let cached = CACHE.lock().count();
    let goal = match pressure {
        Pressure::Low => cached - cached.div_ceil(8),
        Pressure::High => cached / 2,
    };
    CACHE.lock().lower_limit(goal.max(1));
    // One item at a time, so that requests are answered in between.
    while CACHE.lock().drop_one() {}
    log::info!("{pressure:?} pressure: {} of {cached} MiB stay cached", CACHE.lock().count());
}

/// Returns SplitMix64's number for a state (Steele, Lea, Flood, OOPSLA 2014), for requests in an
/// order without a pattern.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
