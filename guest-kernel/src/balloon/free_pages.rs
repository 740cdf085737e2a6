//! Free page reporting: huge frames that became free are reported to the host once, which takes the
//! memory behind them.
//!
//! A huge frame that is reported belongs to the reporter meanwhile, so that nothing uses it. Then
//! it is free again, and the allocator knows that the host does not back it: it is used without a
//! call, and after all others.
//!
//! Memory that becomes free wakes the driver's thread, which reports after [`DELAY_NS`], as memory
//! that is freed is often used again soon. In a guest where nothing is freed, nothing runs.

use core::ops::Range;

use aerostat_abi::units::{FrameNumber, HUGE_FRAMES};

use super::signals::{self, SIGNALS};
use crate::drivers::balloon::device::{Lost, MAX_RANGES};
use crate::drivers::balloon::start::{Device, HostWait};
use crate::mm::{Block, FRAMES};
use crate::time::Instant;

/// The time between memory that becomes free and a report, as in Linux.
const DELAY_NS: u64 = 2_000_000_000;
/// The time between two reports as long as there is more to report.
const REST_NS: u64 = 1_000_000;

/// The reporter of free huge frames.
#[derive(Debug)]
pub(super) struct FreePageReporter {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The host takes no reports.
    Off,
    /// Nothing is known to be reported.
    Idle,
    /// A report is due at a moment.
    Due(Instant),
}

impl FreePageReporter {
    pub(super) fn new() -> Self {
        Self { state: State::Off }
    }

    /// Begins to report, as the host takes reports.
    pub(super) fn start(&mut self, now: Instant) {
        self.state = State::Due(now.after(DELAY_NS));
        SIGNALS.set_reports_free_memory(true);
    }

    /// Stops reporting.
    pub(super) fn stop(&mut self) {
        self.state = State::Off;
        SIGNALS.set_reports_free_memory(false);
    }

    /// Makes a report if it is due. Returns when the next is due, if it is.
    pub(super) fn serve(&mut self, device: &mut Device, now: Instant) -> Option<Instant> {
        match self.state {
            State::Off => return None,
            State::Idle if SIGNALS.take_free_memory() => self.state = State::Due(now.after(DELAY_NS)),
            State::Due(at) if now >= at => {
                // Before the report: what becomes free from here on wakes the thread again.
                SIGNALS.take_free_memory();
                match report(device) {
                    Ok(MAX_RANGES) => self.state = State::Due(now.after(REST_NS)),
                    Ok(_) => self.state = State::Idle,
                    Err(_) => {
                        self.stop();
                        signals::check_target(); // which tells the driver that the session is over
                    }
                }
            }
            State::Idle | State::Due(_) => {}
        }
        match self.state {
            State::Due(at) => Some(at),
            State::Off | State::Idle => None,
        }
    }
}

/// Reports up to [`MAX_RANGES`] free huge frames. Returns how many there were.
fn report(device: &mut Device) -> Result<usize, Lost> {
    let mut blocks = [const { None }; MAX_RANGES];
    let mut count = 0;
    while count < MAX_RANGES
        && let Some(block) = FRAMES.take_backed()
    {
        blocks[count] = Some(block);
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    let ranges = blocks.iter().flatten().map(range_of);
    let reported = device.report(ranges, &mut HostWait::new());
    for block in blocks.into_iter().flatten() {
        match reported {
            Ok(()) => FRAMES.free_reported(block),
            Err(_) => FRAMES.free(block),
        }
    }
    reported.map(|()| count)
}

/// Returns the frames of a huge frame.
pub(super) fn range_of(block: &Block) -> Range<FrameNumber> {
    block.first()..FrameNumber(block.first().0 + HUGE_FRAMES)
}
