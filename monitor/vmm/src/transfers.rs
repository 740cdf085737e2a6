//! Transfers of devices to guest memory, as host paging sees them.
//!
//! The kernel holds on to the pages that direct I/O reads into, wherever they are mapped meanwhile.
//! What arrives after such a page was written to the host swap file would be lost. So no huge frame
//! leaves guest memory while a transfer is in progress; a transfer that begins later touches what
//! has left, which brings it back. A request is bounded, and one that waits for memory is served
//! without this lock, so the wait for transfers ends.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The transfers of one guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Transfers(Arc<RwLock<()>>);

impl Transfers {
    /// Begins a transfer, which lasts as long as the result lives.
    pub(super) fn begin(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of all transfers. None begins as long as the result lives.
    pub(super) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
