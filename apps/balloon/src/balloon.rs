//! The balloon's thread: the driver's loop, the port at one end and pinned memory at the other.
//!
//! No interrupt tells of a new target. Every reply does, so the thread reports several times a
//! second, and at once when the working set's thread has news. It has no rate of its own either:
//! the host paces it, if it likes (`balloon_rate` in a fleet file).

use core::mem;

use aerostat_balloon_driver::{Announcements, Driver, Next, RateLimits};
use aerostat_guest::app::balloon_port::{self, Port};
use aerostat_guest::app::{self, Instant};

use crate::memory::PinnedMemory;
use crate::needs::NEEDS;
use crate::page_list::PageList;

/// How often the thread looks at its target, at least.
const SAMPLE_NS: u64 = 100_000_000;

/// Drives the balloon until the application's work is done and the host has heard of that. Returns
/// how many entries were refused.
pub(crate) fn drive(mut port: Port, page_list: PageList) -> u64 {
    let now_ns = Instant::now().as_nanos();
    let mut driver = Driver::new(page_list, RateLimits::NONE, balloon_port::extent(), now_ns);
    let mut memory = PinnedMemory::new();
    let mut announcements = Announcements::default();
    let mut look_at = Instant::now();
    let mut wanted = NEEDS.wanted();
    loop {
        let next = driver.step(&mut port, &mut memory);
        let now = Instant::now();
        balloon_port::announce(&driver, &mut announcements);
        match next {
            Next::Continue => continue,
            Next::Rest => app::yield_now(),
            Next::Wait { .. } | Next::Idle => {}
        }
        let is_over = NEEDS.have_ended();
        let is_news = mem::replace(&mut wanted, NEEDS.wanted()) != wanted;
        if now >= look_at || is_news || is_over {
            let reply = port.report(&driver, wanted);
            driver.hear(reply, now.as_nanos());
            look_at = now.after(SAMPLE_NS);
            if is_over {
                break;
            }
            continue;
        }
        match next {
            Next::Continue | Next::Rest => {}
            Next::Wait { until_ns } => NEEDS.wait(look_at.min(Instant::from_nanos(until_ns))),
            Next::Idle => NEEDS.wait(look_at),
        }
    }
    let refused = driver.refused_entries();
    // What is given is not the guest's to free.
    mem::forget(driver);
    refused
}
