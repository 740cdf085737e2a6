//! The control plane: what clients of a running fleet ask and are answered, over HTTP and JSON on a
//! Unix socket. The interface in prose is `docs/control.md`.
//!
//! | part | what it is |
//! |---|---|
//! | `api/` | the JSON types of version 1 |
//! | `client.rs` | [`Client`], the blocking client that the command line uses |

pub mod api;
mod client;
mod percent;

pub use self::client::{Client, ClientError, EventStream, LogStream, Wait};
