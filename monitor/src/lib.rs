//! The monitor: one VMM process per guest ([`host`] starts them), one supervisor that decides who gets how much memory.

pub mod clock;
pub mod fleet;
pub mod host;
pub mod scheduler;
pub mod size;
