//! The balloon's thread: it runs the driver's loop between the port and pinned memory.
//!
//! An application gets no interrupt for a new target. Every reply has the target, so the thread
//! reports several times a second, and at once when the needs of the working set change. It has no
//! rate of its own: the host can pace it (`balloon_rate` in a fleet file).

use core::mem;

use aerostat_balloon_driver::{Driver, Next, RateLimits, StallLog};
use aerostat_guest::app::balloon_port::{self, Port};
use aerostat_guest::app::{self, Instant};

use crate::memory::PinnedMemory;
use crate::needs::NEEDS;
use crate::page_list::PageList;

/// The longest time between two reports.
const SAMPLE_NS: u64 = 100_000_000;

/// Drives the balloon until the working set has ended and the host knows its last statistics.
/// Returns the number of entries that were refused.
pub(crate) fn drive(mut port: Port, page_list: PageList) -> u64 {
    let now_ns = Instant::now().as_nanos();
    let mut driver = Driver::new(page_list, RateLimits::NONE, balloon_port::extent(), now_ns);
    let mut memory = PinnedMemory::new();
    let mut stall_log = StallLog::default();
    let mut report_at = Instant::now();
    let mut wanted = NEEDS.wanted();
    loop {
        let next = driver.step(&mut port, &mut memory);
        let now = Instant::now();
        balloon_port::log_stall_change(&driver, &mut stall_log);
        match next {
            Next::Continue => continue,
            Next::Rest => app::yield_now(),
            Next::Wait { .. } | Next::Idle => {}
        }
        let is_over = NEEDS.have_ended();
        let is_changed = mem::replace(&mut wanted, NEEDS.wanted()) != wanted;
        if now >= report_at || is_changed || is_over {
            let reply = port.report(&driver, wanted);
            driver.note_reply(reply, now.as_nanos());
            report_at = now.after(SAMPLE_NS);
            if is_over {
                break;
            }
            continue;
        }
        match next {
            Next::Continue | Next::Rest => {}
            Next::Wait { until_ns } => NEEDS.wait(report_at.min(Instant::from_nanos(until_ns))),
            Next::Idle => NEEDS.wait(report_at),
        }
    }
    let refused = driver.refused_entries();
    // Ballooned blocks are not the guest's: dropping them would free them.
    mem::forget(driver);
    refused
}
