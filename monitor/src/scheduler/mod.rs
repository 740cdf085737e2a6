//! The resource scheduler: which of the guests gets how much of the pool.
//!
//! A pure machine: [`Scheduler::observe`] takes samples, [`Scheduler::decide`] returns targets with
//! reasons and inputs. The moment is passed in; there is no clock, no I/O and no lock. The
//! supervisor owns one and carries its decisions out.
//!
//! *Words.* The *pool* is the host memory that all guests share. A guest's *need* (`need.rs`) is
//! *firm*, what it uses and waits for and the evicted pages that it brings back (`returns.rs`), or
//! *soft*, its file pages and headroom. Its *entitlement* is
//! what it should have: its minimum; its reservation, as far as its firm need uses it; and of the
//! rest a weighted max-min fair part, for all firm needs first (`fair.rs`). Weights are shares, and
//! idle memory is taxed (`policy.rs`). What a guest *holds* is what the pool can't grant to others
//! now (`accounted_usage.rs`).
//!
//! *Invariant.* Σ held ≤ pool, at any moment and however guests behave: a raise is paid from memory
//! that is free now. Guests that run already when the scheduler learns of them
//! ([`Scheduler::adopt`]) may hold more; then the sum only falls. A pool that was made smaller is
//! overdrawn by what guests held then, until they have released it; nothing is added to that.
//!
//! *Requests* (`requests.rs`) raise a guest's need before it uses more. They are answered after
//! each decision.
//!
//! *Decisions.* First, targets above the entitlement are lowered: at once if free memory can't
//! satisfy the guests below theirs or little of it is left, of the pool or of the host
//! (`pool_state.rs`, `pressure.rs`), else when the need
//! has been lower for as long as the guest's patience lasts (`patience.rs`). Then free memory is
//! shared out among the guests below their entitlement, those with waiting threads first. Memory
//! beyond demand stays in the pool, where it is free for a guest that wakes.
//!
//! *Enforcement* (`enforcement.rs`). A guest that ignores its target is confined to it
//! ([`Scheduler::enforced`]): its resident memory is limited from outside, and what that frees is
//! granted to others. Deadlines are short while others wait.
//!
//! *A user's changes.* Limits ([`Scheduler::change`]), the pool and fixed targets
//! ([`Scheduler::pin`]) take effect with the next decision. A change is made in full or, where
//! guarantees would exceed the pool, not at all. A fixed target goes before the needs of other
//! guests, but not before their guarantees.

mod accounted_usage;
mod admission;
#[cfg(test)]
mod adoption_tests;
#[cfg(test)]
mod behaviour_tests;
#[cfg(test)]
mod change_tests;
mod decision;
mod enforcement;
mod engine;
mod fair;
mod guest;
#[cfg(test)]
mod invariants;
mod limits;
mod moved;
mod need;
mod patience;
mod policy;
mod pool_state;
#[cfg(test)]
mod pool_state_tests;
mod pressure;
#[cfg(test)]
mod properties;
mod release;
mod requests;
mod resident_limit;
mod returns;
mod subscription;
mod targets;
#[cfg(test)]
mod test_characters;
#[cfg(test)]
mod test_fleet;
mod usage;
mod working_set;

pub use self::admission::AdmissionError;
pub use self::decision::{Decision, InNeed, Inputs, Reason};
pub use self::enforcement::{Cause, Enforced, IgnoredTarget, Means, Rung};
pub use self::engine::Scheduler;
pub use self::guest::Holding;
pub use self::limits::{GuestId, Limits};
pub use self::moved::{MovedAccount, Reading};
pub use self::policy::{BadTax, IdleTax, Policy};
pub use self::pool_state::{PoolState, StateCause};
pub use self::pressure::{HostMemory, MemoryStalls};
pub use self::resident_limit::ResidentLimit;
pub use self::subscription::{BadShares, Shares, Subscription};
pub use self::targets::{FutureEpoch, Targets};
pub use self::usage::{Acknowledgement, Control, GuestSample, Hints, StalledTime, Usage};
