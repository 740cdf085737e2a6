//! Accepting connections: whose, and how many.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::answer::refusal;
use super::connection::{Surface, serve_connection};
use super::context::Context;
use super::race::{First, race};
use crate::control::api::{Problem, ProblemCode};

/// The wait after a connection that the system could not provide, for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections to the metrics' address.
const METRICS_CONNECTIONS: usize = 8;
/// Clients that are refused at the same time and waited for. Any other may miss why.
const REFUSALS: usize = 8;
/// The most bytes that are read of a request that is refused.
const REFUSED_REQUEST_BYTES: u64 = 64 << 10;
/// How long connections may take to end when the server stops.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Users who may connect.
#[derive(Clone, Debug)]
pub(super) struct Peers(Vec<u32>);

/// Bounds of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Clients that are connected at the same time.
    pub(super) connections: usize,
    /// Answers that arrive over time.
    pub(super) streams: usize,
    /// How long a request's head may take to arrive, and a client may stay connected without one.
    pub(super) head: Duration,
    /// How long a request's body may take to arrive.
    pub(super) body: Duration,
    /// How long a client may not read its answer.
    pub(super) stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            streams: 32,
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            stall: Duration::from_secs(10),
        }
    }
}

impl Peers {
    /// Returns the user of this process, and root.
    pub(super) fn of_this_process() -> Self {
        Self(vec![0, geteuid().as_raw()])
    }

    #[cfg(test)]
    pub(super) fn only(user: u32) -> Self {
        Self(vec![user])
    }

    /// Checks who is at the other end.
    fn check(&self, stream: &UnixStream) -> Result<(), Problem> {
        let user = stream.peer_cred().ok().map(|credentials| credentials.uid());
        if user.is_some_and(|user| self.0.contains(&user)) {
            return Ok(());
        }
        let user = user.map_or("unknown".to_owned(), |user| user.to_string());
        let detail = format!("user {user} may not control this fleet; the user who started it and root may");
        Err(Problem::new(ProblemCode::Forbidden, detail))
    }
}

/// Serves until the server stops and all connections have ended.
pub(super) async fn serve(
    (clients, metrics): (UnixListener, Option<TcpListener>),
    context: Arc<Context>,
    peers: Peers,
    limits: Limits,
) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    if let Some(metrics) = metrics {
        tokio::spawn(accept_metrics(metrics, Arc::clone(&context), limits));
    }
    let gate = Gate { peers, limits, connections: Arc::clone(&connections) };
    gate.accept_clients(clients, &context).await;
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    // What does not end in time ends with the runtime.
    let _ = timeout(END_PATIENCE, connections.acquire_many(all)).await;
}

/// Who may be served, and how many at a time.
struct Gate {
    peers: Peers,
    limits: Limits,
    connections: Arc<Semaphore>,
}

impl Gate {
    async fn accept_clients(self, listener: UnixListener, context: &Arc<Context>) {
        let Self { peers, limits, connections } = self;
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        loop {
            let stream = match race(listener.accept(), context.stopped()).await {
                First::Right(()) => return,
                First::Left(Err(_)) => {
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                First::Left(Ok((stream, _))) => stream,
            };
            let busy = |_| Problem::new(ProblemCode::Unavailable, "too many clients are connected; try again");
            let permit = peers.check(&stream).and_then(|()| Arc::clone(&connections).try_acquire_owned().map_err(busy));
            match permit {
                Ok(permit) => {
                    let context = Arc::clone(context);
                    tokio::spawn(async move {
                        serve_connection(stream, context, Surface::All, limits).await;
                        drop(permit);
                    });
                }
                Err(problem) => {
                    let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() else {
                        let _ = stream.try_write(&refusal(&problem));
                        continue;
                    };
                    tokio::spawn(async move {
                        // A client that does not hang up in time is hung up on.
                        let _ = timeout(limits.head, refuse(stream, &problem)).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

/// Answers with `problem`, and reads on until the client hangs up: a socket that is closed before
/// the request was read discards the answer.
async fn refuse(mut stream: UnixStream, problem: &Problem) -> io::Result<()> {
    stream.write_all(&refusal(problem)).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REFUSED_REQUEST_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}

async fn accept_metrics(listener: TcpListener, context: Arc<Context>, limits: Limits) {
    let connections = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    loop {
        // Further clients wait in the listener's queue.
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match race(listener.accept(), context.stopped()).await {
            First::Right(()) => return,
            First::Left(Err(_)) => sleep(ACCEPT_PAUSE).await,
            First::Left(Ok((stream, _))) => {
                let context = Arc::clone(&context);
                tokio::spawn(async move {
                    serve_connection(stream, context, Surface::Metrics, limits).await;
                    drop(permit);
                });
            }
        }
    }
}
