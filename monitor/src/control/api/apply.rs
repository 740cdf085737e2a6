//! Changing a running fleet to match an edited fleet file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A request to change a fleet so that it matches a fleet file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The text of the fleet file.
    pub text: String,
    /// Where the file is, as an absolute path. Relative paths in it start at its directory.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Whether the plan is only returned.
    #[serde(default)]
    pub dry_run: bool,
}

/// What has to change, or was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The steps; empty where the fleet matches.
    pub steps: Vec<PlanStep>,
    /// Whether the plan is being carried out.
    pub is_applied: bool,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanStep {
    /// What is done.
    pub kind: StepKind,
    /// The guest, where it is about one.
    pub guest: Option<String>,
    /// What changes: a key, its value, its new value.
    pub changes: Vec<String>,
    /// The step in a line.
    pub text: String,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// The pool is resized.
    Pool,
    /// Idle memory is taxed otherwise.
    IdleTax,
    /// A guest comes into the fleet and is started.
    Add,
    /// A guest changes while it runs.
    Change,
    /// A guest is ended and started again.
    Replace,
    /// A guest is ended and leaves the fleet.
    Remove,
}
