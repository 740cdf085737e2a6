//! Requests that change settings, and the end of the run.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;

use super::answer::{Answer, json, versioned};
use super::context::{Context, blocking};
use super::request::{Parameters, expected_version, frames};
use crate::control::api::{
    Amount, Changed, FleetPatch, GuestPatch, Problem, ProblemCode, SharesSetting, TargetRequest, TargetSetting,
};
use crate::supervisor::{self, Command, GuestChange, Version};

/// Resizes the pool. A larger one is refused where the host has no memory for it.
#[utoipa::path(patch, path = "/v1/fleet", operation_id = "changeFleet", tag = "fleet", request_body = FleetPatch,
    params(("If-Match" = Option<String>, Header, description = "The version that the fleet must have.")),
    responses(
        (status = 200, description = "The pool has its new size.", body = Changed),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn fleet(context: &Context, head: &Parts, incoming: Incoming) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let expected = expected_version(&head.headers)?;
    let FleetPatch { pool } = context.body(incoming).await?;
    let pool = frames("pool", pool)?;
    let published = context.latest().await?;
    let host = Arc::clone(&context.host);
    let checked = blocking(move || host.check_pool(&published.status, pool)).await?;
    checked.map_err(|why| Problem::new(ProblemCode::Invalid, format!("the pool is not resized: {why}")))?;
    changed(context, Command::Pool { pool, expected }).await
}

/// Changes a guest's settings, all of those named or none.
#[utoipa::path(patch, path = "/v1/guests/{name}", operation_id = "changeGuest", tag = "guests", request_body = GuestPatch,
    params(
        ("name" = String, Path, description = "The guest's name in the fleet file."),
        ("If-Match" = Option<String>, Header, description = "The version that the settings must have."),
    ),
    responses(
        (status = 200, description = "The settings are changed.", body = Changed),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn guest(context: &Context, head: &Parts, name: &str, incoming: Incoming) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let expected = expected_version(&head.headers)?;
    let GuestPatch { min, max, shares, reservation } = context.body(incoming).await?;
    let amount = |what: &str, amount: Option<Amount>| {
        amount.map(|amount| frames(&format!("guest {name:?}: {what}"), amount)).transpose()
    };
    let change = GuestChange {
        min: amount("min", min)?,
        max: amount("max", max)?,
        shares: shares.map(|SharesSetting(shares)| shares),
        reservation: amount("reservation", reservation)?,
    };
    if change == GuestChange::default() {
        let detail = "the request changes nothing; name min, max, shares or reservation";
        return Err(Problem::new(ProblemCode::Invalid, detail));
    }
    changed(context, Command::Change { guest: name.to_owned(), change, expected }).await
}

/// Fixes a guest's target, or leaves it to the scheduler again.
#[utoipa::path(put, path = "/v1/guests/{name}/target", operation_id = "setTarget", tag = "guests", request_body = TargetRequest,
    params(("name" = String, Path, description = "The guest's name in the fleet file.")),
    responses(
        (status = 200, description = "The target is set.", body = Changed),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn target(
    context: &Context,
    head: &Parts,
    guest: String,
    incoming: Incoming,
) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let TargetRequest { target } = context.body(incoming).await?;
    let target = match target {
        TargetSetting::Auto => None,
        TargetSetting::Fixed(amount) => Some(frames("target", amount)?),
    };
    changed(context, Command::Target { guest, target }).await
}

/// Ends all guests and the run. Event streams end when it is over.
#[utoipa::path(post, path = "/v1/shutdown", operation_id = "shutDown", tag = "fleet", responses(
    (status = 202, description = "The run is ending.", body = Changed),
    (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn shutdown(context: &Context, head: &Parts) -> Result<Answer, Problem> {
    end(context, head, Command::Shutdown).await
}

/// Ends the run and leaves its guests to the next supervisor. They run on until their lease ends.
#[utoipa::path(post, path = "/v1/handover", operation_id = "handOver", tag = "fleet", responses(
    (status = 202, description = "The run is ending.", body = Changed),
    (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn hand_over(context: &Context, head: &Parts) -> Result<Answer, Problem> {
    end(context, head, Command::HandOver).await
}

async fn end(context: &Context, head: &Parts, command: Command) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let version = version(&context.command(command).await?);
    Ok(json(StatusCode::ACCEPTED, &Changed { version }))
}

async fn changed(context: &Context, command: Command) -> Result<Answer, Problem> {
    let version = version(&context.command(command).await?);
    Ok(versioned(&Changed { version }, version))
}

fn version(answer: &supervisor::Answer) -> u64 {
    match answer {
        supervisor::Answer::Done(Version(version)) => *version,
        supervisor::Answer::Starting(_) | supervisor::Answer::Plan(_) => 0,
    }
}
