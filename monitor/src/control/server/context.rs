//! What all requests share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::timeout;

use super::host_checks::HostChecks;
use super::request::body;
use crate::control::api::{Problem, ProblemCode};
use crate::control::publisher::{Feed, Published, RunEnded};
use crate::supervisor::{Answer, Command, CommandError, GuestStatus, Mailbox, MailboxError};

/// How long the supervisor may take to answer a command: it does so in the next round of its loop.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all requests share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) fleet: String,
    pub(super) host: Arc<dyn HostChecks>,
    pub(super) mailbox: Mailbox,
    pub(super) feed: Feed,
    pub(super) log_dir: Option<PathBuf>,
    /// Places for answers that arrive over time.
    pub(super) streams: Arc<Semaphore>,
    /// How long a request's body may take to arrive.
    pub(super) body_patience: Duration,
    pub(super) is_stopped: watch::Receiver<bool>,
}

impl Context {
    /// Returns a reader of its own of what the run publishes.
    pub(super) fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// Returns the latest status, the first one if there is none yet.
    pub(super) async fn latest(&self) -> Result<Arc<Published>, Problem> {
        self.status_after(0).await
    }

    /// Returns the first status after this round.
    pub(super) async fn status_after(&self, round: u64) -> Result<Arc<Published>, Problem> {
        let starting = |_| Problem::new(ProblemCode::Unavailable, "the fleet is starting; try again");
        let mut feed = self.feed();
        timeout(PATIENCE, feed.wait_for(|published| published.round > round)).await.map_err(starting)?.map_err(ended)
    }

    /// Returns the round of the latest status.
    pub(super) fn round(&self) -> u64 {
        self.feed.latest().map_or(0, |published| published.round)
    }

    /// Has the supervisor carry a command out, and returns its answer.
    pub(super) async fn command(&self, command: Command) -> Result<Answer, Problem> {
        let (sender, answer) = oneshot::channel();
        // The client may be gone when the answer comes.
        let reply = Box::new(move |answer| drop(sender.send(answer)));
        self.mailbox.send(command, reply).map_err(|error| match error {
            MailboxError::Full => Problem::new(ProblemCode::Busy, error.to_string()),
            MailboxError::Closed => ended(RunEnded),
        })?;
        let late = |_| Problem::new(ProblemCode::NoAnswer, "the supervisor does not answer");
        let answer = timeout(PATIENCE, answer).await.map_err(late)?.map_err(|_| ended(RunEnded))?;
        answer.map_err(|error| refused(&error))
    }

    /// Reads a request's body.
    pub(super) async fn body<T: DeserializeOwned>(&self, incoming: Incoming) -> Result<T, Problem> {
        let late = |_| Problem::new(ProblemCode::TooSlow, "the request's body did not arrive in time");
        timeout(self.body_patience, body(incoming)).await.map_err(late)?
    }

    /// Takes one of the places for answers that arrive over time.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = |_| Problem::new(ProblemCode::Busy, "too many streams are open; close one");
        Arc::clone(&self.streams).try_acquire_owned().map_err(busy)
    }

    /// Waits until the server stops.
    pub(super) async fn stopped(&self) {
        let mut is_stopped = self.is_stopped.clone();
        // An error means that the server is gone.
        let _ = is_stopped.wait_for(|is_stopped| *is_stopped).await;
    }

    /// Returns the directory of the logs.
    pub(super) fn log_dir(&self) -> Result<&Path, Problem> {
        let none = || Problem::new(ProblemCode::NotFound, "logs are not kept; start the fleet with --log-dir DIR");
        self.log_dir.as_deref().ok_or_else(none)
    }
}

/// Returns a guest of a status.
pub(super) fn guest<'a>(published: &'a Published, name: &str) -> Result<&'a GuestStatus, Problem> {
    let unknown = || refused(&CommandError::NoSuchGuest(name.to_owned()));
    published.status.guests.iter().find(|guest| guest.name == name).ok_or_else(unknown)
}

/// Runs what may wait for a disk on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let failed = |_| Problem::new(ProblemCode::Failed, "the control server failed; see its standard error");
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

pub(super) fn ended(error: RunEnded) -> Problem {
    Problem::new(ProblemCode::Unavailable, error.to_string())
}

fn refused(error: &CommandError) -> Problem {
    let code = match error {
        CommandError::NoSuchGuest(_) => ProblemCode::NotFound,
        CommandError::WrongState { .. } => ProblemCode::WrongState,
        CommandError::Conflict { .. } => ProblemCode::Conflict,
        CommandError::Invalid(_) => ProblemCode::Invalid,
    };
    Problem::new(code, error.to_string())
}
