//! An event of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An event: a line of the event stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number. Numbers begin with 1 and have no gaps.
    pub seq: u64,
    /// When it was published, by the host's clock.
    pub at_unix_ms: u64,
    /// When it happened, since the run began.
    pub at_ms: u64,
    /// What happened.
    pub kind: EventKind,
    /// The guest that it is about, if it is about one.
    pub guest: Option<String>,
    /// What happened, in words.
    pub text: String,
    /// What happened, in values. Which there are depends on the kind.
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A guest's process was started.
    Started,
    /// A guest that an earlier supervisor has started was taken over.
    Adopted,
    /// A guest was left to the next supervisor, and runs on.
    Left,
    /// The scheduler changed a target.
    Target,
    /// A guest has asked for more of a resource, and was answered.
    Request,
    /// A guest's driver has made no call to its balloon for a while.
    Silent,
    /// A line about where a guest's processor is.
    Inspected,
    /// Something in a guest's process does not work as it should, and the guest goes on.
    Problem,
    /// A guest could not be started.
    NotStarted,
    /// A guest gave up waiting for memory to start with.
    GaveUp,
    /// A user changed something.
    Changed,
    /// A guest ended.
    Ended,
    /// More than the pool was granted or used.
    Violation,
    /// A guest began to use memory beyond its size.
    Overuse,
    /// A guest ignores its target, and the host has begun to do something about it.
    Confined,
    /// A guest that was confined is at its target again.
    Unconfined,
    /// A guest began to report another balloon than it has.
    Disagreement,
    /// Events before this one are missing: the reader was too slow, or asked for old ones. Its
    /// number is that of the last one that is missing.
    Lost,
    /// A kind that this client does not know.
    #[serde(other)]
    Other,
}
