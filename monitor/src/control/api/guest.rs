//! A guest of a fleet.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::decision::{Decision, LastChange};
use super::enforcement::{Enforcement, IgnoredTarget};

/// The guests of a fleet, in the order of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestList {
    /// The guests.
    pub guests: Vec<Guest>,
}

/// The status of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Guest {
    /// Its name in the fleet file.
    pub name: String,
    /// What runs it.
    pub machine: MachineKind,
    /// Its state.
    pub state: GuestState,
    /// The version of its settings. Every change counts one up.
    pub version: u64,
    /// The smallest size that it may have.
    pub min_bytes: u64,
    /// The largest size that it may have.
    pub max_bytes: u64,
    /// What it gets whenever it can use it.
    pub reservation_bytes: u64,
    /// Its part of a pool that is too small for all.
    pub shares: u32,
    /// Whether it is started again when it has ended.
    pub restart: RestartRule,
    /// The target that a user has set instead of the scheduler's.
    pub pinned_target_bytes: Option<u64>,
    /// How often it was to start.
    pub starts: u64,
    /// When it starts again, or gives up waiting for memory, since the run began.
    pub until_ms: Option<u64>,
    /// All memory of its machine; 0 before it was started.
    pub machine_bytes: u64,
    /// Guest size: the machine's memory less the balloon.
    pub size_bytes: u64,
    /// The grant: the size that it is to have.
    pub target_bytes: u64,
    /// Memory in its balloon.
    pub balloon_bytes: u64,
    /// Host memory behind it.
    pub resident_bytes: u64,
    /// Memory that the host has paged out; `null` where the guest can't be paged.
    pub paged_out_bytes: Option<u64>,
    /// What follows when it goes on to ignore its target.
    pub ignored_target: IgnoredTarget,
    /// What is done about it while it is larger than its target; `null` while it is not.
    pub enforcement: Option<Enforcement>,
    /// What it uses its memory for, by its own report; `null` before the first one.
    pub memory: Option<MemoryUse>,
    /// Memory that threads in it wait for, by its own report.
    pub wanted_bytes: u64,
    /// What it has swapped out; `null` where it has nothing.
    pub swap: Option<SwapUse>,
    /// Thousandths of the time in which a thread of it waited for memory recently.
    pub pressure_per_mille: u16,
    /// How much its balloon may inflate in a second.
    pub balloon_rate_bytes_per_s: u64,
    /// What its balloon does, by its own report.
    pub balloon_state: String,
    /// What its application says it does.
    pub activity: String,
    /// How it ended, if it did.
    pub ending: Option<String>,
    /// The scheduler's latest decision, also one that changed nothing.
    pub decision: Option<Decision>,
    /// The decision that changed its target last.
    pub last_change: Option<LastChange>,
}

/// What runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MachineKind {
    /// A VMM process of Aerostat, on KVM.
    Aerostat,
    /// A QEMU that the fleet has started.
    Qemu,
    /// A QEMU of another program, which runs on without the fleet.
    Attached,
}

/// The state of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuestState {
    /// Its application's `main` has not been called.
    Starting,
    /// Its size is its target.
    Running,
    /// Its size is above its target.
    Shrinking,
    /// Its size is below its target.
    Growing,
    /// A thread in it waits for memory, and none is on its way.
    Waiting,
    /// Its driver has made no call to its balloon for a while.
    Silent,
    /// It was stopped, as it ignored its target.
    Paused,
    /// It was asked to end.
    Stopping,
    /// It has ended.
    Ended,
    /// It waits until the pool has its minimum.
    Queued,
    /// It has ended and is to start again, not at once.
    BackOff,
    /// It was never started.
    Down,
}

/// What a guest uses its memory for, by its own report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryUse {
    /// In use by kernel and application, file pages included.
    pub used_bytes: u64,
    /// Of these, memory that was accessed recently.
    pub active_bytes: u64,
    /// Of these, memory that was not accessed for a while.
    pub idle_bytes: u64,
    /// Of these, file pages: they can be dropped and read again.
    pub droppable_bytes: u64,
    /// The size below which the guest can't shrink.
    pub unshrinkable_bytes: u64,
}

/// What a guest has swapped out, and its current rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SwapUse {
    /// Pages in its compressed pool.
    pub compressed_bytes: u64,
    /// Pages on its swap disk, compressed or not.
    pub on_disk_bytes: u64,
    /// Read from the swap disk, a second.
    pub in_bytes_per_s: u64,
    /// Written to the swap disk, a second.
    pub out_bytes_per_s: u64,
}

/// Whether a guest is started again when it has ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartRule {
    /// It is not.
    Never,
    /// It is, unless it ended with success.
    OnFailure,
    /// It is.
    Always,
}

impl MachineKind {
    /// Returns the kind as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aerostat => "aerostat",
            Self::Qemu => "qemu",
            Self::Attached => "attached",
        }
    }
}

impl GuestState {
    /// Returns the state as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Shrinking => "shrinking",
            Self::Growing => "growing",
            Self::Waiting => "waiting",
            Self::Silent => "silent",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Queued => "queued",
            Self::BackOff => "back-off",
            Self::Down => "down",
        }
    }

    /// Returns whether the guest has a process or is about to get one.
    #[must_use]
    pub const fn is_up(self) -> bool {
        !matches!(self, Self::Ended | Self::Queued | Self::BackOff | Self::Down)
    }
}
