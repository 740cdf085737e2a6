//! The monitor: one VMM process ([`vmm`]) per guest ([`host`] starts them), and one [`supervisor`],
//! whose [`scheduler`] decides how much memory each guest gets.

pub mod cli;
pub mod control;
pub mod display;
pub mod fleet;
pub mod fleet_checks;
#[cfg(any(test, feature = "harness"))]
#[doc(hidden)]
pub mod harness;
pub mod host;
mod malformed;
mod plot;
pub mod report;
pub mod scheduler;
pub mod simulate;
pub mod size;
mod span;
pub mod supervisor;

pub use aerostat_link::{clock, token_bucket};
pub use aerostat_vmm as vmm;
