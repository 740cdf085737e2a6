//! Starting, stopping, killing and restarting a guest.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::http::request::Parts;
use tokio::time::timeout;

use super::answer::{Answer, json};
use super::context::{self, Context, ended};
use super::request::Parameters;
use crate::control::api::{Outcome, Problem, ProblemCode};
use crate::control::publisher::{Feed, Published};
use crate::control::view;
use crate::supervisor::{self, Command, EndMode, EventKind, GuestState, GuestStatus};

/// What is done with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Start,
    Stop,
    Kill,
    Restart,
}

/// The state that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// This start of the guest has reached its application.
    Up(u64),
    /// The guest has no process.
    Down,
}

/// How far a guest is from a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Reached,
    UnderWay,
    /// The guest has no process and gets none.
    Missed,
}

impl Action {
    /// Returns the action of this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "start" => Self::Start,
            "stop" => Self::Stop,
            "kill" => Self::Kill,
            "restart" => Self::Restart,
            _ => return None,
        })
    }

    fn command(self, guest: String, patience: Duration) -> Command {
        match self {
            Self::Start => Command::Start { guest, patience },
            Self::Stop => Command::End { guest, how: EndMode::Stop },
            Self::Kill => Command::End { guest, how: EndMode::Kill },
            Self::Restart => Command::Restart { guest },
        }
    }
}

impl Goal {
    fn progress(self, guest: &GuestStatus) -> Progress {
        use GuestState::{BackingOff, Down, Ended, Queued, Starting, Stopping};
        match self {
            Self::Down => match guest.state {
                Ended | Down => Progress::Reached,
                _ => Progress::UnderWay,
            },
            Self::Up(start) if guest.service.starts < start => Progress::UnderWay,
            Self::Up(_) => match guest.state {
                Queued | Starting | Stopping => Progress::UnderWay,
                BackingOff | Down => Progress::Missed,
                // A guest that has ended meanwhile did start.
                _ => Progress::Reached,
            },
        }
    }
}

/// Starts, stops, kills or restarts a guest, and waits until that is done.
#[utoipa::path(post, path = "/v1/guests/{name}/{action}", operation_id = "actOnGuest", tag = "guests",
    params(
        ("name" = String, Path, description = "The guest's name in the fleet file."),
        ("action" = String, Path, description = "`start`, `stop`, `kill` or `restart`."),
        ("wait" = Option<u32>, Query, description =
            "Seconds to wait until it is done, at most 600. A start waits so long for memory, too."),
    ),
    responses(
        (status = 200, description = "The guest has the state that was asked for.", body = Outcome),
        (status = 202, description = "The guest is on its way there.", body = Outcome),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn act(context: &Context, head: &Parts, name: String, action: Action) -> Result<Answer, Problem> {
    let wait = Parameters::read(head.uri.query(), &["wait"])?.wait()?;
    let before = context.feed().last_event();
    let goal = match context.command(action.command(name.clone(), wait)).await? {
        supervisor::Answer::Starting(start) => Goal::Up(start),
        supervisor::Answer::Done(_) | supervisor::Answer::Plan(_) => Goal::Down,
    };
    let published = wait_for(context, &name, goal, wait).await?;
    let guest = context::guest(&published, &name)?;
    let progress = goal.progress(guest);
    let failure = if goal == Goal::Down { None } else { failure(&context.feed(), &name, before) };
    if let Some(why) = failure {
        return Err(Problem::new(ProblemCode::WrongState, why));
    }
    if progress == Progress::Missed {
        let ending = guest.ending.as_deref().unwrap_or("it does not run");
        return Err(Problem::new(ProblemCode::WrongState, format!("guest {name:?} did not start: {ending}")));
    }
    let is_reached = progress == Progress::Reached;
    let status = if is_reached { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(json(status, &Outcome { is_reached, guest: view::guest(&published, guest) }))
}

/// Waits until a guest has reached its goal or misses it, and returns the status at that time. Only
/// statuses count that were taken after the command.
async fn wait_for(context: &Context, name: &str, goal: Goal, wait: Duration) -> Result<Arc<Published>, Problem> {
    let next = context.status_after(context.round()).await?;
    let is_there = |published: &Published| {
        context::guest(published, name).map_or(true, |guest| goal.progress(guest) != Progress::UnderWay)
    };
    if wait.is_zero() || is_there(&next) {
        return Ok(next);
    }
    let mut feed = context.feed();
    match timeout(wait, feed.wait_for(|published| published.round > next.round && is_there(published))).await {
        Ok(published) => published.map_err(ended),
        Err(_) => context.latest().await,
    }
}

/// Returns why a guest could not start since this event, if an event says so.
fn failure(feed: &Feed, name: &str, mut after: u64) -> Option<String> {
    loop {
        let batch = feed.events_after(after);
        after = batch.events.last()?.seq;
        let failure = batch.events.iter().find(|recorded| match &recorded.event.what {
            EventKind::NotStarted { guest, .. } | EventKind::GaveUp { guest, .. } => guest == name,
            _ => false,
        });
        if let Some(recorded) = failure {
            return Some(recorded.event.what.to_string());
        }
    }
}
