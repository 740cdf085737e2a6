//! A blocking client of the control interface.
//!
//! Each request has a connection and a small event loop of its own, so a client can be used from
//! any thread that may block. The server is the user's own, but what comes from guests through it
//! is not trusted: a program replaces control characters before it shows them.

mod stream;
mod transport;

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::stream::{EventStream, LogStream};
use self::transport::{Answer, Query, exchange};
use super::api::{
    ApplyRequest, Changed, Explanation, Fleet, FleetPatch, Guest, GuestList, GuestPatch, Inspection, Outcome, Plan,
    Problem, TargetRequest, TargetSetting,
};
use super::percent;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The supervisor can't be reached.
    #[error("the supervisor can't be reached: {0}")]
    Unreachable(io::Error),
    /// The supervisor refused the request and changed nothing.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The connection broke, or what came over it is not an answer.
    #[error("the supervisor's answer is missing: {0}")]
    Broken(String),
}

/// How long a command waits until its effect is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: it only begins.
    #[default]
    No,
    /// So many seconds.
    Seconds(u32),
}

impl Wait {
    fn duration(self) -> Duration {
        match self {
            Self::No => Duration::ZERO,
            Self::Seconds(seconds) => Duration::from_secs(seconds.into()),
        }
    }
}

/// A client of one fleet.
pub struct Client {
    connect: Box<dyn Fn() -> io::Result<UnixStream> + Send>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Creates a client that reaches the server by `connect`, once for each request.
    pub fn new(connect: impl Fn() -> io::Result<UnixStream> + Send + 'static) -> Self {
        Self { connect: Box::new(connect) }
    }

    /// Returns the status of the fleet.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as for all requests.
    pub fn fleet(&self) -> Result<Fleet, ClientError> {
        self.get("/v1/fleet")
    }

    /// Resizes the pool. Where `expected` names a version of the fleet, it must be the present one.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn change_fleet(&self, patch: &FleetPatch, expected: Option<u64>) -> Result<Changed, ClientError> {
        self.change(Query::new(Method::PATCH, "/v1/fleet").with_body(patch)?.if_version(expected))
    }

    /// Returns the status of all guests.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn guests(&self) -> Result<Vec<Guest>, ClientError> {
        self.get("/v1/guests").map(|GuestList { guests }| guests)
    }

    /// Returns the status of a guest.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn guest(&self, name: &str) -> Result<Guest, ClientError> {
        self.get(&of_guest(name, ""))
    }

    /// Changes a guest's settings. Where `expected` names a version of them, it must be the present
    /// one.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn change_guest(&self, name: &str, patch: &GuestPatch, expected: Option<u64>) -> Result<Changed, ClientError> {
        self.change(Query::new(Method::PATCH, &of_guest(name, "")).with_body(patch)?.if_version(expected))
    }

    /// Sets a guest's target, or leaves it to the scheduler again.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn set_target(&self, name: &str, target: TargetSetting) -> Result<Changed, ClientError> {
        self.change(Query::new(Method::PUT, &of_guest(name, "/target")).with_body(&TargetRequest { target })?)
    }

    /// Starts a guest. While it waits, it waits for the guest's minimum, too.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn start(&self, name: &str, wait: Wait) -> Result<Outcome, ClientError> {
        self.act(name, "start", wait)
    }

    /// Asks a guest to end, and leaves it ended.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn stop(&self, name: &str, wait: Wait) -> Result<Outcome, ClientError> {
        self.act(name, "stop", wait)
    }

    /// Kills a guest's process, and leaves it ended.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn kill(&self, name: &str, wait: Wait) -> Result<Outcome, ClientError> {
        self.act(name, "kill", wait)
    }

    /// Ends a guest and starts it again.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn restart(&self, name: &str, wait: Wait) -> Result<Outcome, ClientError> {
        self.act(name, "restart", wait)
    }

    /// Returns why a guest has the size that it has.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn explanation(&self, name: &str) -> Result<Explanation, ClientError> {
        self.get(&of_guest(name, "/explanation"))
    }

    /// Returns where a guest's processor is.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn inspection(&self, name: &str) -> Result<Inspection, ClientError> {
        self.change(Query::new(Method::POST, &of_guest(name, "/inspection")))
    }

    /// Returns a guest's log, or the last `lines` of it.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn log(&self, name: &str, lines: Option<usize>) -> Result<LogStream, ClientError> {
        self.open_log(name, lines, "")
    }

    /// Returns a guest's log, or the last `lines` of it, and what is added to it from now on.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn follow_log(&self, name: &str, lines: Option<usize>) -> Result<LogStream, ClientError> {
        self.open_log(name, lines, "follow=true&")
    }

    /// Returns the events after the one with this number, as far as they are kept.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn events(&self, after: u64) -> Result<EventStream, ClientError> {
        self.open(&format!("/v1/events?after={after}")).map(EventStream::new)
    }

    /// Returns the events after the one with this number, and those that happen from now on.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn follow_events(&self, after: u64) -> Result<EventStream, ClientError> {
        self.open(&format!("/v1/events?after={after}&follow=true")).map(EventStream::new)
    }

    /// Changes the fleet to match a fleet file, or returns what would change. Where `expected`
    /// names a version of the fleet, it must be the present one.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn apply(&self, request: &ApplyRequest, expected: Option<u64>) -> Result<Plan, ClientError> {
        self.change(Query::new(Method::POST, "/v1/apply").with_body(request)?.if_version(expected))
    }

    /// Ends all guests and the run.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn shut_down(&self) -> Result<(), ClientError> {
        self.change::<Changed>(Query::new(Method::POST, "/v1/shutdown")).map(drop)
    }

    /// Ends the run and leaves its guests to the next supervisor.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn hand_over(&self) -> Result<(), ClientError> {
        self.change::<Changed>(Query::new(Method::POST, "/v1/handover")).map(drop)
    }

    fn act(&self, name: &str, action: &str, wait: Wait) -> Result<Outcome, ClientError> {
        let wait = wait.duration();
        let path = format!("{}?wait={}", of_guest(name, &format!("/{action}")), wait.as_secs());
        self.change(Query::new(Method::POST, &path).waiting(wait))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.change(Query::new(Method::GET, path))
    }

    fn change<T: DeserializeOwned>(&self, query: Query) -> Result<T, ClientError> {
        self.send(query)?.into_json()
    }

    fn open_log(&self, name: &str, lines: Option<usize>, more: &str) -> Result<LogStream, ClientError> {
        let lines = lines.map_or(String::new(), |lines| format!("lines={lines}"));
        self.open(&format!("{}?{more}{lines}", of_guest(name, "/log")))
    }

    fn open(&self, path: &str) -> Result<LogStream, ClientError> {
        self.send(Query::new(Method::GET, path))?.into_stream().map(LogStream::new)
    }

    fn send(&self, query: Query) -> Result<Answer, ClientError> {
        let stream = (self.connect)().map_err(ClientError::Unreachable)?;
        exchange(stream, query)
    }
}

/// Returns the path of something of a guest.
fn of_guest(name: &str, what: &str) -> String {
    format!("/v1/guests/{}{what}", percent::encode(name))
}

/// Returns a value as JSON.
fn to_json(value: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value).map_err(|error| ClientError::Broken(error.to_string()))
}
