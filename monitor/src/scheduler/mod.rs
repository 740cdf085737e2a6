//! The resource scheduler: how much of the pool each guest gets.
//!
//! A pure machine: [`Scheduler::observe`] takes samples, and [`Scheduler::decide`] returns targets
//! with reasons. The moment is passed in; there is no clock, no I/O and no lock. The supervisor
//! owns a scheduler and carries its decisions out.
//!
//! *Words.* The *pool* is the host memory that all guests share. A guest's *demand* is what it uses
//! or has committed to its application, what a thread in it waits for, and some headroom
//! ([`Policy`]). Its *entitlement* is its max-min fair part of the pool, never less than its
//! minimum and never more than its demand. What it *holds* is what the pool can't give to others
//! now (`accounted_usage.rs`).
//!
//! *Invariant.* Σ held ≤ pool, at any moment and however guests behave: a raise is paid from memory
//! that is free now.
//!
//! *Decisions.* First, targets above the entitlement are lowered: at once if free memory can't
//! satisfy the guests that are below theirs, else when demand has been lower for a while. Then the
//! free memory is shared among the guests below their entitlement. Memory beyond demand stays in
//! the pool, from which a guest that needs it gets it without waiting for another to shrink.

mod accounted_usage;
mod decision;
mod engine;
mod fair;
mod guest;
mod limits;
mod moved;
mod policy;
#[cfg(test)]
mod properties;
mod targets;

pub use self::decision::{Decision, Reason};
pub use self::engine::{AdmissionError, Scheduler};
pub use self::limits::{GuestId, GuestSample, Hints, Limits, Usage};
pub use self::moved::{MovedAccount, Reading};
pub use self::policy::Policy;
pub use self::targets::{FutureEpoch, Targets};
