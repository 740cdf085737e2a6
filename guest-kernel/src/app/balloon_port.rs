//! The balloon port, for an application that drives the guest's balloon itself: an ordinary program
//! with locked memory and one I/O port, as in US 7,433,951, claim 9.
//!
//! A guest has one driver. So the port is to be had only where the kernel leaves it alone
//! (`balloon=none` on the command line). The loop is `aerostat_balloon_driver`'s; [`Port`] is its
//! monitor, and its memory is made of [`Pinned`] blocks. There is no interrupt: the application
//! looks at its target a few times a second.
#![allow(unsafe_code, reason = "whoever has the port can have memory taken away")]

use aerostat_abi::units::{BlockSize, FrameNumber};
use aerostat_balloon_driver::Extent;

use super::memory::Pinned;
use crate::balloon;
pub use crate::balloon::{Port, log_stall_change};

/// The port, once; `None` where the kernel has its own driver, or no port is announced, or somebody
/// has it already.
///
/// # Safety
/// The monitor takes away what it is given, whoever uses it. The caller gives only blocks that it
/// has as [`Pinned`] values, and keeps these until the monitor has returned them.
#[must_use]
pub unsafe fn open() -> Option<Port> {
    balloon::take_port()
}

/// A block that was in the balloon from the start, which the caller has found in the monitor's
/// list; `None` for any other.
#[must_use]
pub fn claim_initial(first: FrameNumber, size: BlockSize) -> Option<Pinned> {
    balloon::claim_initial(first, size).map(Pinned::new)
}

/// The guest's memory, as a driver sees it.
#[must_use]
pub fn extent() -> Extent {
    balloon::extent()
}
