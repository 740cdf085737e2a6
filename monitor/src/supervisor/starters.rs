//! Threads that start guests, so that the supervisor's own thread never waits for a start.
//!
//! A start opens an image, makes a swap file and creates a process. Each of these may be slow: an
//! image may be on a server that does not answer. A few threads start guests at the same time, in
//! the order of admission. Results come back through a channel, and a descriptor says when there is
//! one.
//!
//! The threads live until [`Starters::close`], as a start may be wanted at any time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aerostat_abi::units::FrameCount;
use rustix::event::{EventfdFlags, eventfd};

use super::engine::{Admission, Launched};
use crate::clock::Moment;
use crate::fleet::GuestSpec;

/// Guests that are started at the same time. A start is short unless it waits for a file, so a few
/// that wait do not keep the others from starting.
pub const STARTERS: usize = 4;

/// A finished start.
#[derive(Debug)]
pub(super) struct Start<G> {
    pub(super) admission: Admission,
    pub(super) result: anyhow::Result<Launched<G>>,
}

/// The threads, as the supervisor's thread sees them.
#[derive(Debug)]
pub(super) struct Starters<G> {
    /// `None` once no more starts are wanted.
    jobs: Option<Sender<Admission>>,
    results: Receiver<Start<G>>,
    signal: Arc<Signal>,
    outstanding: usize,
}

/// What the threads share with the supervisor's.
#[derive(Debug)]
struct Signal {
    /// Results are not wanted any more.
    is_abandoned: AtomicBool,
    /// An eventfd: readable when there is a result.
    has_result: OwnedFd,
}

impl<G: Send + 'static> Starters<G> {
    /// Creates threads that start guests by `start`. It is passed the guest's first target.
    pub(super) fn new<S>(start: S) -> io::Result<Self>
    where
        S: Fn(&GuestSpec, FrameCount) -> anyhow::Result<G> + Send + Sync + 'static,
    {
        let has_result = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let signal = Arc::new(Signal { is_abandoned: AtomicBool::new(false), has_result });
        let (jobs, queue) = channel();
        let (sender, results) = channel();
        let (queue, start) = (Arc::new(Mutex::new(queue)), Arc::new(start));
        for _ in 0..STARTERS {
            let (queue, start) = (Arc::clone(&queue), Arc::clone(&start));
            let (sender, signal) = (sender.clone(), Arc::clone(&signal));
            thread::Builder::new()
                .name("starter".to_owned())
                .spawn(move || serve(&queue, start.as_ref(), &sender, &signal))?;
        }
        Ok(Self { jobs: Some(jobs), results, signal, outstanding: 0 })
    }

    /// Has a thread start an admitted guest; [`Self::take_result`] returns the result later.
    pub(super) fn start(&mut self, admission: Admission) {
        self.outstanding += 1;
        if let Some(jobs) = &self.jobs {
            // Received when a thread is free; the threads outlive `self`.
            let _ = jobs.send(admission);
        }
    }

    /// Returns a descriptor that is readable when there may be results.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.signal.has_result.as_fd()
    }

    /// Returns the next result, if there is one; never blocks.
    pub(super) fn take_result(&mut self) -> Option<Start<G>> {
        // Cleared first: a result that comes later makes it readable again.
        let _ = rustix::io::read(&self.signal.has_result, &mut [0; 8]);
        let result = self.results.try_recv().ok()?;
        self.outstanding -= 1;
        Some(result)
    }

    /// Returns whether all starts have returned a result.
    pub(super) fn are_done(&self) -> bool {
        self.outstanding == 0
    }

    /// Gives up starts that have no result yet. Guests that are started nevertheless are ended at
    /// once, by the threads that started them.
    pub(super) fn abandon(&mut self) {
        self.signal.is_abandoned.store(true, Ordering::Release);
        while self.take_result().is_some() {}
    }

    /// Lets the threads end. Waits for starts that are under way, but not for one that hangs: its
    /// thread ends the guest if the start ever succeeds.
    pub(super) fn close(mut self, patience: Duration) {
        self.abandon();
        self.jobs = None;
        let deadline = Instant::now() + patience;
        while self.results.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }
}

/// The life of a thread: starts guests until no more are wanted.
fn serve<G>(
    queue: &Mutex<Receiver<Admission>>,
    start: &impl Fn(&GuestSpec, FrameCount) -> anyhow::Result<G>,
    results: &Sender<Start<G>>,
    signal: &Signal,
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(admission) = next else { return };
        if signal.is_abandoned.load(Ordering::Acquire) {
            continue;
        }
        let spawned = Moment::now();
        // A thread that ended by a panic would take the guests with it that it started before.
        let started = catch_unwind(AssertUnwindSafe(|| start(admission.spec(), admission.target())));
        let handle = started.unwrap_or_else(|_| Err(anyhow::anyhow!("its start panicked")));
        let result = handle.map(|handle| Launched { handle, spawned });
        if signal.is_abandoned.load(Ordering::Acquire) {
            continue;
        }
        // Where the supervisor is gone the result is dropped, which ends the guest.
        let _ = results.send(Start { admission, result });
        let _ = rustix::io::write(&signal.has_result, &1_u64.to_ne_bytes());
    }
}
