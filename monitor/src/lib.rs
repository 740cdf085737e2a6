//! The monitor: one VMM process ([`vmm`]) per guest ([`host`] starts them), one [`supervisor`] that
//! decides, by its [`scheduler`], who gets how much memory.

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
