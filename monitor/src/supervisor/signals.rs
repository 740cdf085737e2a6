//! Signals that end a run, as something to wait on; and the one that asks where the guests are.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::low_level::{pipe, unregister};

/// SIGINT, SIGTERM and SIGHUP, and SIGUSR1, caught while this lives.
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
    /// What the system says where it refuses a socket pair or a handler.
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

    /// Readable when [`Self::take`] has something to say.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }

    /// Whether SIGUSR1 came since the last call.
    pub fn take_inspection(&mut self) -> bool {
        self.is_inspection_wanted.swap(false, Ordering::Relaxed)
    }

    /// Whether a signal to stop came since the last call; never blocks.
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
