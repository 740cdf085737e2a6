//! The test bench: boots guest images and waits for what they report.
//!
//! A test says what to boot in a [`Plan`], on which [`Machine`], and gets a running [`Guest`]. From there it waits for lines of the
//! guest's log, for values in its register page and for its end: always for something reported, never for time to pass. Every wait
//! has a deadline, and whatever goes wrong panics with the guest's whole log. A guest that is dropped is ended.
//!
//! [`environment`] says where images lie, [`image`] makes broken ones, [`command`] runs the `aerostat` command itself.
//! The images are one tiny kernel per behaviour, in `tests/guests`.

mod clock;
pub mod command;
pub mod environment;
mod guest;
pub mod image;
mod kvm;
mod log_file;
mod qemu;

pub use clock::monotonic_ns;
pub use guest::{DEADLINE, Guest, Machine, Plan};
