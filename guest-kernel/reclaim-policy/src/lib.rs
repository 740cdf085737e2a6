//! Reclaim policies: which pages a guest can best do without. Pure.
//!
//! The kernel's reclaimer goes over the resident pages like the hand of a clock. At each page it
//! reads and clears the accessed bit and asks a [`Policy`]. It does what the [`Verdict`] says, and
//! stores the page's [`Age`], one byte that only the policy reads. When an evicted page comes back,
//! the reclaimer says how many evictions ago it was evicted, and what its age was. Nothing else is
//! remembered about evicted pages. So a policy needs no memory that grows with the guest, allocates
//! nothing, reads no clock and touches no page: the bench replays traces against the code that the
//! kernel runs.
//!
//! [`Clock`] is the simple policy, [`Generations`] the default, and [`Selected`] the one that the
//! command line names. `docs/reclaim.md` gives the reasons, and compares them.

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
