//! The link to the supervisor that this process serves now, if there is one.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use aerostat_link::message::FromVmm;
use aerostat_link::{Link, LinkError, Patience};

/// The link, shared by all threads. Only the main thread connects and disconnects it.
#[derive(Debug)]
pub(super) struct SupervisorLink(RwLock<Option<Link>>);

impl SupervisorLink {
    pub(super) fn new(link: Link) -> Self {
        Self(RwLock::new(Some(link)))
    }

    /// Sends a message. Without a supervisor, fails as if the link were closed.
    pub(super) fn send(&self, message: &FromVmm, patience: Patience) -> Result<(), LinkError> {
        self.get().as_ref().ok_or(LinkError::Closed)?.send(message, &[], patience)
    }

    /// Returns the link, which stays as long as the result lives.
    pub(super) fn get(&self) -> RwLockReadGuard<'_, Option<Link>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has messages go to another supervisor, or to none.
    pub(super) fn set(&self, link: Option<Link>) {
        let before = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), link);
        // A supervisor that left on purpose sees that this process knows.
        if let Some(before) = before {
            before.hang_up();
        }
    }
}
