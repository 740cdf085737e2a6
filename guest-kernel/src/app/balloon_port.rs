//! The balloon port, for an application that drives the guest's balloon itself: an ordinary program
//! with locked memory and one I/O port, as in US 7,433,951, claim 9.
//!
//! A guest has one driver, so the port can be opened only if the kernel does not use it
//! (`balloon=none` on the command line). The loop is `aerostat_balloon_driver`'s; [`Port`] is its
//! monitor, and its memory is made of [`Pinned`] blocks. There is no interrupt: the application
//! polls its target a few times a second.
#![allow(unsafe_code, reason = "the owner of the port can give any memory to the host")]

use aerostat_abi::units::{BlockSize, FrameNumber};
use aerostat_balloon_driver::Extent;

use super::memory::Pinned;
use crate::balloon;
pub use crate::balloon::{Port, log_stall_change};

/// Opens the port. Returns `None` if the kernel has its own driver, if no port is announced, or if
/// the port was opened before.
///
/// # Safety
/// The monitor releases what it is given, even if other code uses that memory. The caller inflates
/// only blocks that it owns as [`Pinned`] values, and keeps these until the monitor has returned
/// them.
#[must_use]
pub unsafe fn open() -> Option<Port> {
    balloon::take_port()
}

/// Claims a block that was in the balloon from the start, which the caller has found in the
/// monitor's list. Returns `None` for any other block.
#[must_use]
pub fn claim_initial(first: FrameNumber, size: BlockSize) -> Option<Pinned> {
    balloon::claim_initial(first, size).map(Pinned::new)
}

/// Returns the extent of the guest's memory.
#[must_use]
pub fn extent() -> Extent {
    balloon::extent()
}
