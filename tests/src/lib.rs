//! The test bench: boots guest images and waits for what they report.
//!
//! A test says what to boot in a [`Plan`], on which [`Machine`], and gets a running [`Guest`]. From
//! there it waits for lines of the guest's log, for values in its register page and for its end:
//! always for something reported, never for time to pass. Every wait has a deadline, and whatever
//! goes wrong panics with the guest's whole log. A guest that is dropped is ended.
//!
//! [`PhysicalMeter`] measures what memory a test's guests really take. [`environment`] says where
//! images lie, [`image`] makes broken ones, [`command`] runs the `aerostat` command itself, and
//! [`fleet`] runs a fleet by it and waits for what it prints. [`without_kvm`] hides the host's KVM;
//! a test that can't run here says so by [`skip()`]. [`text`] packs text for the application
//! `index` and checks what it made of it. The images are one tiny kernel per behaviour, in
//! `tests/guests`.

mod clock;
pub mod command;
pub mod environment;
pub mod fleet;
mod guest;
pub mod image;
mod kvm;
mod log_file;
mod on_machines;
mod physical;
mod process;
mod qemu;
mod skip;
pub mod text;
pub mod without_kvm;

pub use clock::monotonic_ns;
pub use guest::{DEADLINE, Guest, Machine, Plan};
pub use physical::PhysicalMeter;
pub use process::Vmm;
pub use skip::skip;
