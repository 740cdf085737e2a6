//! Rules that decide on targets: the scheduler, and what it is compared with.
//!
//! A rule sees what a supervisor sees of each guest. What it returns are wishes: the run lowers
//! targets at once and raises them from free memory only (`simulate/run.rs`), so no rule can
//! overdraw the pool. The rules of other systems are written from their published sources, with
//! their own constants, as far as these make sense for small guests.

mod mom;
mod partition;
mod qmemman;
mod scheduled;

use aerostat_abi::units::FrameCount;

pub use self::mom::Mom;
pub use self::partition::{EqualParts, PartsByMaximum, ProportionalToDemand};
pub use self::qmemman::Qmemman;
pub use self::scheduled::Scheduled;
use crate::clock::Moment;
use crate::scheduler::{GuestSample, Hints, Limits, Policy, Usage};

/// What a rule sees of one guest.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// The guest's limits.
    pub limits: Limits,
    /// The present target.
    pub target: FrameCount,
    /// What its VMM process measured and the guest reported.
    pub sample: GuestSample,
}

impl Observed {
    fn usage(&self) -> Usage {
        match self.sample.hints {
            Hints::None | Hints::FixedSize => Usage::default(),
            Hints::Report(usage) | Hints::Stale(usage) => usage,
        }
    }
}

/// A way to share the pool.
pub trait Rule {
    /// Returns the name in tables.
    fn name(&self) -> &'static str;

    /// Returns whether the guest of this number, which ignores its target, is held to it by the
    /// host.
    fn is_confined(&self, _guest: usize) -> bool {
        false
    }

    /// Returns the target that each guest should have, in the order of `guests`.
    fn decide(&mut self, guests: &[Observed], now: Moment) -> Vec<FrameCount>;
}

/// Returns all rules for a fleet, the scheduler first.
#[must_use]
pub fn all(pool: FrameCount, limits: &[Limits]) -> Vec<Box<dyn Rule + Send>> {
    vec![
        Box::new(Scheduled::new(pool, Policy::default(), limits)),
        Box::new(PartsByMaximum { pool }),
        Box::new(EqualParts { pool }),
        Box::new(ProportionalToDemand { pool }),
        Box::new(Mom::new(pool)),
        Box::new(Qmemman { pool }),
    ]
}
