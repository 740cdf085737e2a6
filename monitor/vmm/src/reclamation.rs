//! What the VMM process's main thread does to a balloon while the guest runs, in chunks, so that
//! the guest's calls get their turn. It releases ballooned frames that the guest has touched, by a
//! pass over the whole balloon, when the supervisor asks for that; and it splits huge pages that
//! calls have left.

use std::sync::{Arc, Mutex};

use rustix::fd::OwnedFd;

use super::balloon::{Balloon, BalloonHost};
use super::lock::lock;

/// A pass over ballooned frames, while one is in progress.
#[derive(Debug)]
pub(super) struct Reclamation<H> {
    balloon: Arc<Mutex<Balloon<H>>>,
    /// Becomes readable when a call has left work.
    pub(super) work_left: Arc<OwnedFd>,
    /// The frame index that the pass has reached.
    at: Option<usize>,
}

impl<H: BalloonHost> Reclamation<H> {
    pub(super) fn new(balloon: Arc<Mutex<Balloon<H>>>, work_left: Arc<OwnedFd>) -> Self {
        Self { balloon, work_left, at: None }
    }

    /// Begins a pass, unless one is in progress.
    pub(super) fn begin(&mut self) {
        self.at.get_or_insert(0);
    }

    /// Handles that [`Self::work_left`] is readable.
    pub(super) fn woken(&self) {
        // Several wakeups count as one, and no other thread reads it.
        let _ = rustix::io::read(&self.work_left, &mut [0; 8]);
    }

    /// Does a chunk; returns whether there is more to do.
    pub(super) fn advance(&mut self) -> bool {
        self.at = self.at.and_then(|at| lock(&self.balloon).reclaim_ballooned(at));
        let is_splitting = lock(&self.balloon).split_left();
        self.at.is_some() || is_splitting
    }
}
