//! What is done about a guest that ignores its target.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A guest that is larger than its target, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Enforcement {
    /// How far the host has gone.
    pub step: EnforcementStep,
    /// Why.
    pub cause: EnforcementCause,
    /// By how much the guest is larger.
    pub withheld_bytes: u64,
    /// Since when it is, by the host's clock.
    pub since_unix_ms: u64,
    /// Since when the step is in force, by the host's clock.
    pub step_since_unix_ms: u64,
    /// The step that follows, if one does.
    pub next: Option<EnforcementStep>,
    /// After how much more time in which the guest can run and makes no progress.
    pub next_in_ms: Option<u64>,
}

/// How far the host has gone with a guest that ignores its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnforcementStep {
    /// Its balloon was asked.
    Asked,
    /// The host pages its memory out, down to its target.
    Paging,
    /// The host takes memory from its process.
    Squeezed,
    /// It is stopped.
    Paused,
    /// It is being ended.
    Ending,
}

/// Why a guest is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnforcementCause {
    /// It ignores its target.
    IgnoresTarget,
    /// Its process does not answer.
    DoesNotAnswer,
    /// Its process acknowledges limits and does not keep them.
    DoesNotKeepLimits,
}

/// What follows when a guest goes on to ignore its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IgnoredTarget {
    /// The host pages its memory for as long as it does.
    Page,
    /// The host stops the guest.
    Pause,
    /// The host ends the guest.
    Kill,
}
