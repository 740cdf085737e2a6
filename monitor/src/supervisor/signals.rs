//! Signals that end a run, as something to wait on.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

/// SIGINT, SIGTERM and SIGHUP, caught while this lives.
#[derive(Debug)]
pub struct StopSignals {
    receiver: UnixStream,
    registered: Vec<SigId>,
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
        let mut signals = Self { receiver, registered: Vec::new() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signals.registered.push(pipe::register(signal, sender.try_clone()?)?);
        }
        Ok(signals)
    }

    /// Readable when [`Self::take`] has something to say.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }

    /// Whether a signal came since the last call; never blocks.
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
