//! The balloon driver's loop as a pure machine: what it does next, with what, and when to come back.
//!
//! A [`Driver`] stands between a [`Monitor`], which wants the guest to have a certain size, and the guest's [`Memory`]; what it holds
//! is in its [`Ledger`]. It asks for blocks like anybody else and gives them to the monitor, or it asks the monitor for blocks of its
//! ledger and frees them. It neither knows nor asks who needs the memory, what a block is beyond its number and size, or how the monitor
//! is reached: so the guest kernel's driver and a balloon that is an ordinary application (US 7,433,951, claim 9) run the same code.
//!
//! Nothing in here is unsafe, allocates or knows a clock of its own. Moments are nanoseconds since whenever the caller began to count.

#![no_std]
#![forbid(unsafe_code)]

mod batch;
mod driver;
mod rate;
mod sides;
#[cfg(test)]
mod testing;

pub use driver::{Driver, Next};
pub use rate::{Rate, RateLimits};
pub use sides::{Block, Ledger, Memory, Monitor, Reply};
