//! The monitor: one VMM process per guest ([`host`] starts them), one supervisor that decides who gets how much memory.

mod clock;
pub mod host;
pub mod vmm;
