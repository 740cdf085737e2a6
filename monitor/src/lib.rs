//! The monitor: one VMM process ([`vmm`]) per guest ([`host`] starts them), and one [`supervisor`],
//! whose [`scheduler`] decides how much memory each guest gets.

pub mod cli;
pub mod clock;
pub mod display;
pub mod fleet;
pub mod host;
pub mod report;
pub mod scheduler;
pub mod size;
pub mod supervisor;
mod token_bucket;
pub mod vmm;
