//! Why a guest has the size that it has, and where its processor is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a guest has the size that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The guest.
    pub guest: String,
    /// What happened last, in a line.
    pub summary: String,
    /// What that follows from, a line each: what the guest lacks, which guests hold memory, and
    /// under which rule.
    pub details: Vec<String>,
    /// What would change it, a line each.
    pub remedies: Vec<String>,
}

/// Where a guest's processor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inspection {
    /// The guest.
    pub guest: String,
    /// Registers and return addresses, a line each.
    pub lines: Vec<String>,
    /// The last lines of its log; empty where logs are not kept.
    pub log: Vec<String>,
}
