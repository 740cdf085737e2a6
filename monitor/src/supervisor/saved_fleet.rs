//! A fleet as its users have left it: what the next supervisor needs besides the guests that run.
//!
//! It has what a fleet file says, as it was changed since, and which guests are to run. It is
//! written whenever a user has changed something, before the user is told that it is done.

use aerostat_abi::units::FrameCount;
use serde::{Deserialize, Serialize};

use crate::fleet::{Fleet, GuestSpec};
use crate::scheduler::IdleTax;
use crate::size::frames;

/// A fleet as it is to be now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFleet {
    /// The host memory that all guests share.
    #[serde(with = "frames")]
    pub pool: FrameCount,
    /// How much more idle memory costs a guest.
    pub idle_tax: IdleTax,
    /// The version of the fleet.
    pub version: u64,
    /// Its guests, in order.
    pub guests: Vec<SavedGuest>,
}

/// One guest of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGuest {
    /// The guest, as it was changed since its file was read.
    pub spec: GuestSpec,
    /// The version of its settings.
    pub version: u64,
    /// The target in bytes that a user has set.
    pub pinned_bytes: Option<u64>,
    /// How often it was to start.
    pub starts: u64,
    /// Whether it is to run.
    pub wanted: Wanted,
}

/// Whether a guest is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// It is.
    Up,
    /// It is not: it has ended, or a user has stopped it.
    Down,
}

impl SavedFleet {
    /// Returns the fleet without what only its users' commands have set.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        let guests = self.guests.iter().map(|guest| guest.spec.clone()).collect();
        Fleet { pool: self.pool, idle_tax: self.idle_tax, guests }
    }

    /// Returns the guest of this name.
    #[must_use]
    pub fn guest(&self, name: &str) -> Option<&SavedGuest> {
        self.guests.iter().find(|guest| guest.spec.name == name)
    }
}
