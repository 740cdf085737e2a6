//! Which pages a guest can best do without: reclaim policies as pure machines.
//!
//! The kernel's reclaimer goes over resident pages like the hand of a clock. At each page it reads
//! and clears the accessed bit and asks a [`Policy`]; it does what the [`Verdict`] says and keeps
//! the page's [`Age`], one byte that only the policy reads. When a page comes back that had been
//! evicted, the reclaimer says how many evictions ago that was and what its age had been; nothing
//! else is remembered about pages that are away. So a policy needs no memory of its own that grows
//! with the guest, allocates nothing, reads no clock and touches no page: the bench replays traces
//! against the very code that the kernel runs.
//!
//! [`Clock`] is the plain one, [`Generations`] the default, [`Selected`] whichever the command line
//! names. `docs/reclaim.md` argues for them and says how they fare.

#![no_std]
#![forbid(unsafe_code)]

mod clock;
mod generations;
mod policy;
#[cfg(test)]
mod properties;
mod selection;

pub use clock::Clock;
pub use generations::Generations;
pub use policy::{Age, Arrival, Pass, Policy, Refault, Seen, Verdict};
pub use selection::{Name, Selected, UnknownPolicy};
