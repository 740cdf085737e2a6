//! Waits for ends that may take long: a separate thread waits for each, so that the supervisor does
//! not.
//!
//! Closing a socket drops its unread messages, and with them the descriptors that they carry. The
//! last close of some files waits for a peer or a server. A process that is stuck in the kernel
//! does not even end when it is killed.

use std::mem::ManuallyDrop;
use std::thread;

/// Drops `what` in another thread. Where there can't be a thread it is never dropped, which costs
/// less than waiting.
pub(super) fn leave(what: impl Send + 'static) {
    let what = ManuallyDrop::new(what);
    let _ = thread::Builder::new().name("reaper".to_owned()).spawn(move || drop(ManuallyDrop::into_inner(what)));
}
