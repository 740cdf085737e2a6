//! A guest whose machine is QEMU, started by this program or by another.
//!
//! | part | what it does |
//! |---|---|
//! | `qmp` | the protocol; pure |
//! | `tracker` | what is known of a machine, and what to ask it next; pure |
//! | `target`, `usage`, `statistics` | its parts: targets, what a guest needs, what it reports; pure |
//! | `connection`, `worker` | the socket, and the thread that owns it |
//! | `memory` | what the process uses |
//! | `guest` | the handle that the supervisor has |
//! | `attach` | takes a machine of another program into the fleet |
//! | `spawn`, `command_line`, `complaints` | starts a machine, or takes over one of an earlier supervisor |
//!
//! *What is trusted.* A virtio-balloon device lets a guest deflate whenever it likes; nothing on
//! the host keeps it from that. So a guest may have all of its machine, whatever its target says
//! ([`Confinement::ByGuest`](super::Confinement)), and what it has taken is counted when it is
//! seen.

mod attach;
mod command_line;
mod complaints;
mod connection;
mod guest;
mod memory;
mod qmp;
mod spawn;
mod statistics;
mod target;
#[cfg(test)]
mod tests;
mod tracker;
mod usage;
mod worker;

pub use self::attach::{AttachError, resident_behind};
pub use self::guest::QemuGuest;
#[cfg(any(test, feature = "harness"))]
#[doc(hidden)]
pub use self::qmp::harness;
pub use self::spawn::{PROGRAM, QemuConfig, QemuError, version};
