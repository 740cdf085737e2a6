//! The test bench: boots guest images and waits for what they report.
//!
//! A test describes a guest in a [`Plan`], boots it on a [`Machine`] and gets a running [`Guest`].
//! It then waits for lines of the guest's log, for values in its register page and for its end. It
//! always waits for something reported, never for time to pass. Every wait has a deadline. A failed
//! wait or check panics with the guest's whole log. A guest that is dropped is ended.
//!
//! The modules:
//!
//! * [`environment`] has the paths of images, and [`image`] makes broken ones.
//! * [`command`] runs the `aerostat` command, and [`fleet`] runs a fleet with it.
//! * [`PhysicalMeter`] measures the physical memory that a test's guests take.
//! * [`qmp`] speaks to a QEMU.
//! * [`without_kvm`] hides the host's KVM. A test that can't run on a machine calls [`skip()`].
//! * [`text`] packs text for the application `index` and checks its index.
//!
//! The images are those of the applications and of one tiny guest per behaviour, in `tests/guests`.

pub mod chaos;
mod clock;
pub mod command;
pub mod environment;
pub mod fleet;
mod guest;
pub mod hostile_vmm;
pub mod image;
mod kvm;
mod log_file;
mod on_machines;
mod owned_process;
mod physical;
mod process;
mod qemu;
pub mod qmp;
mod resident;
mod skip;
pub mod text;
pub mod without_kvm;

pub use clock::monotonic_ns;
pub use guest::{DEADLINE, Guest, Lack, Machine, Plan, WayOut};
pub use owned_process::OwnedProcess;
pub use physical::PhysicalMeter;
pub use process::Vmm;
pub use resident::resident_mib;
pub use skip::skip;
