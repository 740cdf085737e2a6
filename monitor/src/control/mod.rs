//! The control plane: what clients of a running fleet ask and are answered, over HTTP and JSON on a
//! Unix socket. The interface in prose is `docs/control.md`.
//!
//! | part | what it is |
//! |---|---|
//! | `api/` | the JSON types of version 1 |
//! | `client/` | [`Client`], the blocking client that the command line uses |
//! | `explain/` | why a guest has the size that it has |
//! | `server/` | [`Server`] |
//! | `publisher.rs` | [`Publisher`] and [`Feed`]: the latest status and events, for readers |
//! | `view.rs` | what the supervisor publishes, in the types of the interface |

pub mod api;
mod client;
mod explain;
mod percent;
mod publisher;
mod server;
mod view;
mod wall_clock;

pub use self::client::{Client, ClientError, EventStream, LogStream, Wait};
pub use self::publisher::{Batch, Feed, Published, Publisher, Recorded, RunEnded, publisher};
#[cfg(any(test, feature = "harness"))]
#[doc(hidden)]
pub use self::server::harness;
pub use self::server::{MetricsError, MetricsListener, Server, ServerOptions, openapi_document};
pub use self::wall_clock::local_time;
