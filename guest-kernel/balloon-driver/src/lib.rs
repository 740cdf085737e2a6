//! The balloon driver's loop as a pure machine: what it does next, with what, and when to come
//! back.
//!
//! A [`Driver`] stands between a [`Monitor`], which wants the guest to have a certain size, and the
//! guest's [`Memory`]; what it holds is in its [`PageList`]. It asks for blocks like anybody else
//! and gives them to the monitor, or it asks the monitor for blocks of its page list and frees
//! them. It neither knows nor asks who needs the memory, what a block is beyond its number and
//! size, or how the monitor is reached: so the guest kernel's driver and the application `balloon`
//! (US 7,433,951, claim 9) run the same code.
//!
//! How fast, how much at once, and when not: `rate` limits frames per second, `pace` the length of
//! a burst, `backoff` how often is tried what failed, `hold` gives way to the guest itself,
//! `compaction` chooses between moving pages and giving single frames. `session` begins, and after
//! a reset begins anew. What keeps the driver from its target is one [`StallReason`]; what it has
//! done is in [`Metrics`].
//!
//! Nothing in here is unsafe, allocates or has a clock of its own. Moments are nanoseconds since
//! whenever the guest began to count.

#![no_std]
#![forbid(unsafe_code)]

mod backoff;
mod batch;
mod compaction;
mod driver;
mod hold;
mod pace;
mod rate;
mod session;
mod sides;
mod state;
#[cfg(test)]
mod testing;

pub use compaction::Compactable;
pub use driver::{Driver, Extent, Next};
pub use pace::PAUSE_GOAL_NS;
pub use rate::{BadRate, Rate, RateLimits};
pub use sides::{Block, Listed, Memory, Monitor, PageList, Reply, Room};
pub use state::{Announcements, Failure, Metrics, StallReason, State};
