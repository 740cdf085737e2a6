//! Requests that read the latest status.

use hyper::StatusCode;
use hyper::http::request::Parts;

use super::answer::{Answer, json, versioned};
use super::context::{self, Context};
use super::request::Parameters;
use crate::control::api::{Explanation, Fleet, Guest, GuestList, Problem};
use crate::control::explain::explain;
use crate::control::{local_time, view};

/// Returns the status of the fleet. Its version is the `ETag`.
#[utoipa::path(get, path = "/v1/fleet", operation_id = "getFleet", tag = "fleet", responses(
    (status = 200, description = "The fleet.", body = Fleet),
    (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn fleet(context: &Context, head: &Parts) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let published = context.latest().await?;
    let fleet = view::fleet(&context.fleet, &published, context.feed().last_event());
    Ok(versioned(&fleet, fleet.version))
}

/// Returns the status of all guests, in the order of the fleet file.
#[utoipa::path(get, path = "/v1/guests", operation_id = "listGuests", tag = "guests", responses(
    (status = 200, description = "The guests.", body = GuestList),
    (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn guests(context: &Context, head: &Parts) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let published = context.latest().await?;
    let guests = published.status.guests.iter().map(|guest| view::guest(&published, guest)).collect();
    Ok(json(StatusCode::OK, &GuestList { guests }))
}

/// Returns the status of a guest. The version of its settings is the `ETag`.
#[utoipa::path(get, path = "/v1/guests/{name}", operation_id = "getGuest", tag = "guests",
    params(("name" = String, Path, description = "The guest's name in the fleet file.")),
    responses(
        (status = 200, description = "The guest.", body = Guest),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn guest(context: &Context, head: &Parts, name: &str) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let published = context.latest().await?;
    let guest = view::guest(&published, context::guest(&published, name)?);
    Ok(versioned(&guest, guest.version))
}

/// Explains why a guest has the size that it has.
#[utoipa::path(get, path = "/v1/guests/{name}/explanation", operation_id = "explainGuest", tag = "guests",
    params(("name" = String, Path, description = "The guest's name in the fleet file.")),
    responses(
        (status = 200, description = "The explanation.", body = Explanation),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn explanation(context: &Context, head: &Parts, name: &str) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let published = context.latest().await?;
    context::guest(&published, name)?;
    let explanation = explain(&published.status, name, &|at| local_time(published.unix_ms_at(at)));
    Ok(json(StatusCode::OK, &explanation))
}
