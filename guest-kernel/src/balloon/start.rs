//! The balloon's start: the first session, the initial balloon, and the thread.

use aerostat_abi::metadata;
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use aerostat_balloon_driver::{Driver, Extent};

use super::host::AnyHost;
use super::memory::KernelMemory;
use super::page_list::PageList;
use super::port::{HelloOptions, Port};
use super::signals::{self, SIGNALS};
use super::virtio::VirtioBalloon;
use super::{handover, thread};
use crate::arch::x86_64::interrupt::InterruptLine;
use crate::arch::x86_64::trap;
use crate::command_line::{BalloonDriver, Options};
use crate::drivers::virtio::VirtioDevice;
use crate::mm::bump::BumpAllocator;
use crate::mm::{self, slow_path};
use crate::report;
use crate::requests;
use crate::time::Instant;

/// The ways to a host that the machine has.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// Whether the monitor announces the balloon port.
    pub(crate) has_port: bool,
    /// The virtio balloon, if there is one.
    pub(crate) virtio: Option<VirtioDevice>,
}

/// Opens a session, adopts the initial balloon and starts the driver's thread, or leaves both to an
/// application.
pub(crate) fn start(options: &Options, hosts: Hosts, metadata: &mut BumpAllocator) {
    let Some(mut host) = open(options, hosts) else { return };
    let extent = extent();
    let page_list = PageList::new(huge_frames(extent.end), metadata);
    let mut driver = Driver::new(page_list, options.balloon_rate, extent, Instant::now().as_nanos());
    if !driver.begin(&mut host, &mut KernelMemory::default()) {
        log::warn!("balloon: the monitor does not open a session");
        return;
    }
    if driver.disputed() > FrameCount::ZERO {
        report::bad_machine("the first grant is too small for the kernel");
    }
    SIGNALS.set_balloon(driver.balloon());
    SIGNALS.set_target(driver.target());
    log::debug!("balloon: {} of {} to begin with, target {}", driver.balloon(), extent.total, driver.target());
    let host = match host {
        AnyHost::Port(port) if options.balloon_driver == BalloonDriver::Application => {
            return handover::leave(port, driver.into_page_list());
        }
        AnyHost::Port(_) => {
            requests::set_sender(signals::exchange_soon);
            host
        }
        AnyHost::Virtio(_) => host,
    };
    slow_path::set_deflator(&SIGNALS);
    if let Err(error) = thread::spawn(driver, host) {
        log::warn!("balloon: {error}");
    }
}

/// Opens the way to the host; `None` where there is none that the kernel knows.
fn open(options: &Options, hosts: Hosts) -> Option<AnyHost> {
    let is_kernels = options.balloon_driver == BalloonDriver::Kernel;
    if hosts.has_port {
        log::debug!("balloon: port");
        trap::register_interrupt(InterruptLine::BALLOON, signals::interrupt).expect("there is one balloon");
        return Port::open(if is_kernels { HelloOptions::KERNEL } else { HelloOptions::APPLICATION })
            .map(AnyHost::Port);
    }
    let Some(device) = hosts.virtio else {
        log::info!("balloon: none; the guest keeps the memory that it has");
        return None;
    };
    if !is_kernels {
        log::info!("balloon: virtio, not used because of balloon=none");
        return None;
    }
    let name = device.name();
    let balloon = VirtioBalloon::open(device);
    if balloon.is_none() {
        log::warn!("{name} is not used: no memory is left for its queues");
    }
    balloon.map(AnyHost::Virtio)
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
