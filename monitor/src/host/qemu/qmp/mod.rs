//! QMP, the protocol by which QEMU is controlled: JSON, a line for each message. Pure.
//!
//! | part | what it does |
//! |---|---|
//! | `lines` | cuts bytes into lines of bounded length |
//! | `message` | typed commands, answers and events |
//! | `session` | what may be sent when, and what is overdue |
//!
//! QEMU is not trusted: a guest may control it, and the socket may belong to another program. Lines
//! and the number of commands that wait for an answer are bounded, each command has a deadline, and
//! whatever is no QMP ends the session with one line that says why.
//! Source: QEMU, docs/interop/qmp-spec.

#[cfg(any(test, feature = "harness"))]
pub mod harness;
mod lines;
mod message;
mod session;

pub(super) use self::message::{Command, CommandError, QmpEvent, ShutdownCause, printable};
pub(super) use self::session::{QmpError, Received, Session};
