//! A fleet as a whole.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The status of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fleet {
    /// The fleet's name.
    pub name: String,
    /// The version of its settings. Every change of the pool and every guest that comes or goes
    /// counts one up.
    pub version: u64,
    /// The process that runs it.
    pub process: u32,
    /// The version of the program that runs it.
    pub program_version: String,
    /// When this status was taken, by the host's clock.
    pub taken_unix_ms: u64,
    /// Time since the run began.
    pub elapsed_ms: u64,
    /// Host memory that the guests share.
    pub pool_bytes: u64,
    /// The pool's state: how much of it is free.
    pub state: PoolState,
    /// Pool memory that no guest holds.
    pub free_bytes: u64,
    /// The targets of all living guests together.
    pub granted_bytes: u64,
    /// Memory that the host has behind all living guests, by their own measurement.
    pub resident_bytes: u64,
    /// Physical memory that the guests' processes use, where it is measured.
    pub physical_bytes: Option<u64>,
    /// The minima and reservations of all admitted guests together.
    pub guaranteed_bytes: u64,
    /// The largest sizes of all living guests together.
    pub max_bytes: u64,
    /// How much the largest sizes exceed the pool, in per cent of it.
    pub overcommit_percent: u64,
    /// Memory that moved between guests so far.
    pub moved_bytes: u64,
    /// How much more idle memory costs a guest.
    pub idle_tax_percent: u8,
    /// Polls at which more memory was granted or used than the pool has.
    pub violations: u64,
    /// The loop of the supervisor, which serves all guests.
    pub supervisor: SupervisorLoop,
    /// Guests of the fleet, those that don't run included.
    pub guests: usize,
    /// The number of the latest event; 0 before the first one.
    pub last_event: u64,
}

/// The rounds of the supervisor's loop so far. No guest is served while a round lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SupervisorLoop {
    /// Their number.
    pub rounds: u64,
    /// The longest one.
    pub longest_us: u64,
    /// The longest one of the last 10 to 20 seconds.
    pub recent_longest_us: u64,
    /// The longest one, less the time in which its thread was ready and waited for a processor.
    pub longest_own_us: u64,
}

/// How much of the pool is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PoolState {
    /// Enough.
    High,
    /// Little: what guests do not need is reclaimed at once.
    Soft,
    /// Very little.
    Hard,
    /// Next to nothing.
    Low,
}

impl PoolState {
    /// Returns the state as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Soft => "soft",
            Self::Hard => "hard",
            Self::Low => "low",
        }
    }
}
