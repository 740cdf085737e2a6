//! The control server: HTTP/1.1 and JSON on a Unix socket, on a thread of its own.
//!
//! | part | what it does |
//! |---|---|
//! | `accept.rs`, `connection.rs`, `stalled.rs` | who may connect, how many, and for how long |
//! | `route.rs`, `request.rs`, `answer.rs` | what is asked, checked; how it is answered |
//! | `read.rs`, `change.rs`, `act.rs`, `apply.rs`, `inspect.rs` | what is answered at once |
//! | `events.rs`, `log.rs`, `log_reader.rs` | answers that arrive over time |
//! | `metrics.rs`, `openapi.rs` | Prometheus metrics; the description of the interface |
//!
//! The server talks to the supervisor's thread by the mailbox and reads what it publishes. The
//! supervisor never waits for the server, and the server for no client: requests, answers and
//! waiting have time limits, and connections, streams and bodies are bounded. What may wait for a
//! disk runs on a thread for that.

mod accept;
mod act;
mod answer;
mod apply;
mod change;
mod connection;
mod context;
mod events;
#[cfg(any(test, feature = "harness"))]
pub mod harness;
mod host_checks;
mod inspect;
mod log;
mod log_reader;
mod metrics;
mod openapi;
mod race;
mod read;
mod request;
mod route;
mod stalled;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};

use self::accept::{Limits, Peers, serve};
use self::context::Context;
use self::host_checks::{Host, HostChecks};
pub use self::openapi::document as openapi_document;
use super::publisher::Feed;
use crate::supervisor::Mailbox;

/// Threads for what may wait for a disk.
const BLOCKING_THREADS: usize = 4;
/// How long an idle one of them lives.
const BLOCKING_KEPT: Duration = Duration::from_secs(5);

/// What a server serves.
#[derive(Debug)]
pub struct ServerOptions {
    /// The fleet's name.
    pub fleet: String,
    /// The socket, with mode 0600. The caller removes it in the end.
    pub listener: UnixListener,
    /// Where metrics are served besides.
    pub metrics: Option<MetricsListener>,
    /// Where commands go.
    pub mailbox: Mailbox,
    /// What the run publishes.
    pub feed: Feed,
    /// Where the guests' logs are, if they are kept.
    pub log_dir: Option<PathBuf>,
}

/// A TCP socket on a loopback address, for metrics only.
#[derive(Debug)]
pub struct MetricsListener(TcpListener);

/// Why metrics can't be served at an address.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Other hosts could reach it.
    #[error("metrics are served without a password, so only on a loopback address; {0} is none, take 127.0.0.1:PORT")]
    NotLoopback(SocketAddr),
    /// The system refused it.
    #[error("metrics can't be served on {address}: {source}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A server that runs. Dropping it does the same as [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsListener {
    /// Binds a loopback address.
    ///
    /// # Errors
    ///
    /// [`MetricsError`].
    pub fn bind(address: SocketAddr) -> Result<Self, MetricsError> {
        if !address.ip().is_loopback() {
            return Err(MetricsError::NotLoopback(address));
        }
        TcpListener::bind(address).map(Self).map_err(|source| MetricsError::Refused { address, source })
    }

    /// Returns the address, with the port that the system chose for port 0.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Server {
    /// Starts to serve.
    ///
    /// # Errors
    ///
    /// Returns the system's error where it refuses a descriptor or a thread.
    pub fn start(options: ServerOptions) -> io::Result<Self> {
        Self::start_with(options, Peers::of_this_process(), Limits::default(), Arc::new(Host))
    }

    fn start_with(options: ServerOptions, peers: Peers, limits: Limits, host: Arc<dyn HostChecks>) -> io::Result<Self> {
        let (stop, is_stopped) = watch::channel(false);
        let ServerOptions { fleet, listener, metrics, mailbox, feed, log_dir } = options;
        let runtime = runtime()?;
        let context = Arc::new(Context {
            fleet,
            host,
            mailbox,
            feed,
            log_dir,
            streams: Arc::new(Semaphore::new(limits.streams)),
            body_patience: limits.body,
            is_stopped,
        });
        let sockets = {
            let _in_runtime = runtime.enter();
            listener.set_nonblocking(true)?;
            let clients = tokio::net::UnixListener::from_std(listener)?;
            let metrics = metrics.map(|MetricsListener(listener)| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            });
            (clients, metrics.transpose()?)
        };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
            runtime.block_on(serve(sockets, context, peers, limits));
            // What waits for a disk is left to its thread.
            runtime.shutdown_background();
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends streams and connections, those that do not end within a while by force.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the server was reported where it happened.
            let _ = thread.join();
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEPT)
        .build()
}
