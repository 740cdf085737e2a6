//! The JSON types of version 1 of the control interface.
//!
//! Amounts of memory are whole bytes, and the names of their fields end with `_bytes`. A request
//! takes bytes or a text such as `"200M"`; it is refused where it has an unknown field. Fields are
//! only ever added to answers within a version, so a client ignores those that it does not know.
//!
//! Times are milliseconds: `_unix_ms` by the host's clock since 1970, `_ms` since the run began.

mod amount;
mod apply;
mod decision;
mod enforcement;
mod event;
mod explanation;
mod fleet;
mod guest;
mod problem;
#[expect(unused_qualifications, reason = "in what `ToSchema` derives")]
mod request;

pub use self::amount::Amount;
pub use self::apply::{ApplyRequest, Plan, PlanStep, StepKind};
pub use self::decision::{Decision, Inputs, LastChange, Reason};
pub use self::enforcement::{Enforcement, EnforcementCause, EnforcementStep, IgnoredTarget};
pub use self::event::{Event, EventKind};
pub use self::explanation::{Explanation, Inspection};
pub use self::fleet::{Fleet, PoolState, SupervisorLoop};
pub use self::guest::{Guest, GuestList, GuestState, MachineKind, MemoryUse, RestartRule, SwapUse};
pub use self::problem::{Problem, ProblemCode};
pub use self::request::{Changed, FleetPatch, GuestPatch, Outcome, SharesSetting, TargetRequest, TargetSetting};
