//! Changing the fleet to match a fleet file.
//!
//! The server reads and checks the file, and all that the change needs from the host, before the
//! supervisor hears of it: the supervisor plans, this part checks what the plan starts, and the
//! supervisor plans again and carries that out.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;

use super::answer::{Answer, json};
use super::context::{Context, blocking};
use super::host_checks::Starts;
use super::request::{Parameters, expected_version};
use crate::control::api::{ApplyRequest, Plan, Problem, ProblemCode};
use crate::control::view;
use crate::fleet::Fleet;
use crate::supervisor::{self, ApplyMode, Command, Step, Version};

/// Changes the fleet to match a fleet file, or returns what would change.
#[utoipa::path(post, path = "/v1/apply", operation_id = "applyFleet", tag = "fleet", request_body = ApplyRequest,
    params(("If-Match" = Option<String>, Header, description = "The version that the fleet must have.")),
    responses(
        (status = 200, description = "What changes.", body = Plan),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn apply(context: &Context, head: &Parts, incoming: Incoming) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let expected = expected_version(&head.headers)?;
    let ApplyRequest { text, path, dry_run } = context.body(incoming).await?;
    if !path.is_absolute() {
        return Err(invalid(format!("path {} is not absolute", path.display())));
    }
    // The supervisor compares paths, and has them so.
    let read = move || Fleet::from_text(&text, &path).map(Fleet::with_absolute_paths);
    let fleet = blocking(read).await?.map_err(|error| invalid(error.to_string()))?;
    let plan = planned(context, &fleet, ApplyMode::DryRun, expected).await?;
    check(context, &fleet, &plan).await?;
    if dry_run {
        return Ok(json(StatusCode::OK, &view::plan(&plan, false)));
    }
    let plan = planned(context, &fleet, ApplyMode::CarryOut, expected).await?;
    Ok(json(StatusCode::OK, &view::plan(&plan, true)))
}

async fn planned(
    context: &Context,
    fleet: &Fleet,
    mode: ApplyMode,
    expected: Option<Version>,
) -> Result<supervisor::Plan, Problem> {
    let command = Command::Apply { fleet: Box::new(fleet.clone()), mode, expected };
    match context.command(command).await? {
        supervisor::Answer::Plan(plan) => Ok(plan),
        supervisor::Answer::Done(_) | supervisor::Answer::Starting(_) => {
            Err(Problem::new(ProblemCode::Failed, "the supervisor returned no plan"))
        }
    }
}

/// Checks what a plan needs from the host.
async fn check(context: &Context, fleet: &Fleet, plan: &supervisor::Plan) -> Result<(), Problem> {
    let mut starts = Starts::default();
    for step in &plan.steps {
        match step {
            Step::Add { guest } => starts.added.push(guest.clone()),
            Step::Replace { guest, .. } => starts.replaced.push(guest.clone()),
            Step::Pool { .. } | Step::IdleTax { .. } | Step::Change { .. } | Step::Remove { .. } => {}
        }
    }
    let published = context.latest().await?;
    let (host, fleet) = (Arc::clone(&context.host), fleet.clone());
    blocking(move || host.check_fleet(&published.status, &fleet, &starts)).await?.map_err(invalid)
}

fn invalid(why: String) -> Problem {
    Problem::new(ProblemCode::Invalid, why)
}
