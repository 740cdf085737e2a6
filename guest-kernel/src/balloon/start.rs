//! The balloon's start: the first session, the initial balloon, and the thread.

use aerostat_abi::metadata;
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use aerostat_balloon_driver::{Driver, Extent};

use super::memory::KernelMemory;
use super::page_list::PageList;
use super::port::{HelloOptions, Port};
use super::signals::{self, SIGNALS};
use super::{handover, thread};
use crate::arch::x86_64::interrupt::InterruptLine;
use crate::arch::x86_64::trap;
use crate::command_line::{BalloonDriver, Options};
use crate::mm::bump::BumpAllocator;
use crate::mm::{self, slow_path};
use crate::report;
use crate::requests;
use crate::time::Instant;

/// Opens a session, adopts the initial balloon and starts the driver's thread, or leaves both to an
/// application.
pub(crate) fn start(options: &Options, metadata: &mut BumpAllocator) {
    trap::register_interrupt(InterruptLine::BALLOON, signals::interrupt).expect("there is one balloon");
    let hello = match options.balloon_driver {
        BalloonDriver::Kernel => HelloOptions::KERNEL,
        BalloonDriver::Application => HelloOptions::APPLICATION,
    };
    let Some(mut port) = Port::open(hello) else { return };
    let extent = extent();
    let page_list = PageList::new(huge_frames(extent.end), metadata);
    let mut driver = Driver::new(page_list, options.balloon_rate, extent, Instant::now().as_nanos());
    if !driver.begin(&mut port, &mut KernelMemory::default()) {
        log::warn!("balloon: the monitor gave no valid answer to HELLO");
        return;
    }
    if driver.disputed() > FrameCount::ZERO {
        report::bad_machine("the first grant is too small for the kernel");
    }
    SIGNALS.set_balloon(driver.balloon());
    SIGNALS.set_target(driver.target());
    log::debug!("balloon: {} of {} to begin with, target {}", driver.balloon(), extent.total, driver.target());
    match options.balloon_driver {
        BalloonDriver::Application => handover::leave(port, driver.into_page_list()),
        BalloonDriver::Kernel => {
            slow_path::set_deflator(&SIGNALS);
            requests::set_sender(signals::exchange_soon);
            if let Err(error) = thread::spawn(driver, port) {
                log::warn!("balloon: {error}");
            }
        }
    }
}

/// Returns the extent of the guest's memory.
pub(crate) fn extent() -> Extent {
    let end = mm::memory_end();
    Extent { total: mm::total_frames(), floor: metadata::smallest_size(end), end }
}

/// Returns the number of words of metadata that the driver needs on a machine whose memory ends at
/// `end`.
pub(crate) const fn words(end: FrameNumber) -> usize {
    PageList::words(huge_frames(end))
}

const fn huge_frames(end: FrameNumber) -> usize {
    to_usize(end.0.div_ceil(HUGE_FRAMES))
}
