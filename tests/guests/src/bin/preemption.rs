//! Runs two threads that never yield. Each waits for the other to make progress, so the scheduler
//! has to preempt them.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

const ROUNDS: u64 = 20;

static PROGRESS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn main() -> Outcome {
    let threads = [(0, 1), (1, 0)].map(|(own, other)| app::spawn("busy", move || take_turns(own, other)));
    for thread in threads {
        let Ok(thread) = thread else { return Outcome::Failure };
        let () = thread.join();
    }
    log::info!("preemption: ok");
    Outcome::Success
}

/// Counts up whenever the other thread has caught up.
fn take_turns(own: usize, other: usize) {
    for round in 0..ROUNDS {
        while PROGRESS[other].load(Ordering::Relaxed) < round {
            core::hint::spin_loop();
        }
        PROGRESS[own].store(round + 1, Ordering::Relaxed);
    }
}
