//! A balloon without a driver in the kernel (`balloon=none`): port and initial balloon wait for an
//! application that drives it.
//!
//! No one may touch the initial balloon, even before an application drives it. So the kernel asks
//! which frames these are and ends the session at once; ballooned frames stay ballooned. The kernel
//! keeps each block until the application has found it in the monitor's list, too, and claims it.

use aerostat_abi::units::FrameNumber;
use aerostat_balloon_driver::{Monitor as _, PageList as _};

use super::page_list::PageList;
use super::port::Port;
use super::signals::SIGNALS;
use crate::mm::{Block, BlockSize};
use crate::sync::{LockRank, SpinLock};

/// The balloon that is left to an application.
#[derive(Debug)]
struct Left {
    /// The port, until an application takes it.
    port: Option<Port>,
    /// The blocks that have not been claimed.
    initial: PageList,
}

static LEFT: SpinLock<Option<Left>> = SpinLock::new(LockRank::BalloonLeft, None);

/// Leaves the balloon to an application.
pub(super) fn leave(mut port: Port, initial: PageList) {
    // If this call is lost, the application's driver finds an open session, and resets it.
    let _ = port.reset();
    *LEFT.lock() = Some(Left { port: Some(port), initial });
}

/// Returns the port, once; `None` where it was not left to the application.
pub(crate) fn take_port() -> Option<Port> {
    LEFT.lock().as_mut()?.port.take()
}

/// Returns a block of the initial balloon, or `None` if it is not there, or not any more.
pub(crate) fn claim_initial(first: FrameNumber, size: BlockSize) -> Option<Block> {
    let mut left = LEFT.lock();
    let initial = &mut left.as_mut()?.initial;
    if !initial.contains(first, size) {
        return None;
    }
    let block = initial.remove_within(first..FrameNumber(first.0 + size.frames()));
    SIGNALS.set_balloon(initial.size());
    block
}
