//! Signals: those that end a run, which wake the loop, and the one that has all guests inspected.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::low_level::{pipe, unregister};

/// SIGINT, SIGTERM, SIGHUP and SIGUSR1, caught while a value lives.
#[derive(Debug)]
pub struct StopSignals {
    receiver: UnixStream,
    registered: Vec<SigId>,
    is_inspection_wanted: Arc<AtomicBool>,
}

impl StopSignals {
    /// Catches the signals from now on.
    ///
    /// # Errors
    ///
    /// Returns the system's error where it refuses a socket pair or a handler.
    pub fn catch() -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let mut signals = Self { receiver, registered: Vec::new(), is_inspection_wanted: Arc::default() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signals.registered.push(pipe::register(signal, sender.try_clone()?)?);
        }
        let is_wanted = Arc::clone(&signals.is_inspection_wanted);
        signals.registered.push(flag::register(SIGUSR1, is_wanted)?);
        Ok(signals)
    }

    /// Returns a descriptor that is readable when [`Self::take`] returns true.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }

    /// Returns whether SIGUSR1 came since the last call.
    pub fn take_inspection(&mut self) -> bool {
        self.is_inspection_wanted.swap(false, Ordering::Relaxed)
    }

    /// Returns whether a signal to stop came since the last call; never blocks.
    pub fn take(&mut self) -> bool {
        let mut buffer = [0; 64];
        matches!(self.receiver.read(&mut buffer), Ok(count) if count > 0)
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        self.registered.drain(..).for_each(|id| {
            unregister(id);
        });
    }
}
