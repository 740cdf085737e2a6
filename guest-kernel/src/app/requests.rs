//! Memory that the application is going to need: declared before it is allocated, so that the host
//! has time to make room and no thread has to wait.
//!
//! ```ignore
//! let declaration = requests::declare(Workload::new(96 << 20, Duration::from_secs(2)));
//! // ... other work, until the job begins ...
//! let memory = Mapping::anonymous(96 << 20)?;
//! ```
//!
//! The kernel compares what is declared with what the guest has, and asks the host for the rest
//! ([`declare`]), or has the host keep also what the guest has ([`request`]). A declaration that is
//! dropped is withdrawn. `docs/requests.md` describes what the host does.

use core::time::Duration;

use aerostat_abi::requests::Resources;
pub use aerostat_abi::requests::{Outcome, Urgency};
use aerostat_abi::units::FrameCount;

pub use crate::requests::Status;
use crate::requests::{self, Claim, REQUESTER, WorkloadId};
use crate::time::Instant;

/// The longest time ahead that counts; the host keeps nothing for longer.
const MOST_AHEAD: Duration = Duration::from_secs(600);

/// What the application is going to need.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Memory in addition to what it uses.
    pub bytes: usize,
    /// In how much time it needs it.
    pub within: Duration,
    /// How much it needs it.
    pub urgency: Urgency,
}

impl Workload {
    /// Returns a workload that needs `bytes` more `within` this time, of normal urgency.
    #[must_use]
    pub const fn new(bytes: usize, within: Duration) -> Self {
        Self { bytes, within, urgency: Urgency::Normal }
    }
}

/// A workload that was declared. Dropping it withdraws it: for a job that has ended, or that will
/// not begin.
#[derive(Debug)]
pub struct Declaration {
    id: WorkloadId,
    needed: Instant,
}

/// Declares a workload. The kernel asks the host for its memory if the guest has too little of it.
/// Returns `None` when there are eight declarations already.
#[must_use]
pub fn declare(workload: Workload) -> Option<Declaration> {
    Declaration::new(workload, Claim::WhenShort)
}

/// Requests a workload's memory, also where the guest has enough now: the host then keeps it for
/// the guest, which might shrink otherwise. Returns `None` when there are eight declarations
/// already.
#[must_use]
pub fn request(workload: Workload) -> Option<Declaration> {
    Declaration::new(workload, Claim::Always)
}

/// Returns what the host has told the guest about its resources; `None` where it does not.
#[must_use]
pub fn resources() -> Option<Resources> {
    REQUESTER.lock().resources()
}

impl Declaration {
    fn new(workload: Workload, claim: Claim) -> Option<Self> {
        let Workload { bytes, within, urgency } = workload;
        let within = u64::try_from(within.min(MOST_AHEAD).as_nanos()).unwrap_or(u64::MAX);
        let needed = Instant::now().after(within);
        let amount = FrameCount::from_bytes_ceil(bytes as u64);
        let memory = requests::memory_state();
        let workload = requests::Workload { amount, needed, urgency, claim };
        let id = REQUESTER.lock().declare(workload, &memory)?;
        requests::changed();
        Some(Self { id, needed })
    }

    /// Returns whether the memory is there.
    #[must_use]
    pub fn status(&self) -> Status {
        let memory = requests::memory_state();
        REQUESTER.lock().status(self.id, &memory)
    }

    /// Waits until the memory is there, the host has denied it, or it was needed.
    #[must_use]
    pub fn wait(&self) -> Status {
        loop {
            let status = self.status();
            if status != Status::Pending || Instant::now() >= self.needed {
                return status;
            }
            requests::wait(self.needed);
        }
    }
}

impl Drop for Declaration {
    fn drop(&mut self) {
        let memory = requests::memory_state();
        REQUESTER.lock().withdraw(self.id, &memory);
        requests::changed();
    }
}
