//! A balloon without a driver in the kernel (`balloon=none`): port and initial balloon wait for an
//! application that drives it.
//!
//! Nobody may touch what was given from the start, whoever drives the balloon and whenever that
//! begins. So the kernel asks which frames these are and ends the session at once: what is given
//! stays given. It keeps them until the application has found each of them in the monitor's list,
//! too, and claims it.

use core::sync::atomic::Ordering;

use aerostat_abi::units::FrameNumber;
use aerostat_balloon_driver::{Monitor as _, PageList as _};

use super::machine::IN_BALLOON;
use super::page_list::PageList;
use super::port::Port;
use crate::mm::{Block, BlockSize};
use crate::sync::SpinLock;

/// What is left to an application.
#[derive(Debug)]
struct Left {
    /// Until somebody drives the balloon.
    port: Option<Port>,
    /// What has not been claimed.
    initial: PageList,
}

static LEFT: SpinLock<Option<Left>> = SpinLock::new(None);

/// Leaves the balloon to an application.
pub(super) fn leave(mut port: Port, initial: PageList) {
    // Should nobody hear this, the application's driver finds itself negotiated already, and says
    // it again.
    let _ = port.reset();
    *LEFT.lock() = Some(Left { port: Some(port), initial });
}

/// The port, once; `None` where it was not left to the application.
pub(crate) fn take_port() -> Option<Port> {
    LEFT.lock().as_mut()?.port.take()
}

/// A block of the initial balloon, now the caller's; `None` where it is none, or not any more.
pub(crate) fn claim_initial(first: FrameNumber, size: BlockSize) -> Option<Block> {
    let mut left = LEFT.lock();
    let initial = &mut left.as_mut()?.initial;
    if !initial.contains(first, size) {
        return None;
    }
    let block = initial.take_within(first..FrameNumber(first.0 + size.frames()));
    IN_BALLOON.store(initial.size().0, Ordering::Relaxed);
    block
}
