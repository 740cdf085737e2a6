//! Asking a guest where its processor is.

use std::time::Duration;

use hyper::StatusCode;
use hyper::http::request::Parts;
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, json};
use super::context::{Context, blocking, ended};
use super::log_reader::last_lines;
use super::request::Parameters;
use crate::control::api::{Inspection, Problem, ProblemCode};
use crate::display::printable;
use crate::supervisor::{Command, EventKind};

/// How long a guest's process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// All lines of an answer are published at once. After this time there are no more.
const QUIET: Duration = Duration::from_millis(100);
/// Lines of the guest's log that are added.
const LOG_LINES: usize = 20;

/// Returns where a guest's processor is: its registers, return addresses, and the last lines of its
/// log.
#[utoipa::path(post, path = "/v1/guests/{name}/inspection", operation_id = "inspectGuest", tag = "guests",
    params(("name" = String, Path, description = "The guest's name in the fleet file.")),
    responses(
        (status = 200, description = "What the guest's process says.", body = Inspection),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn inspection(context: &Context, head: &Parts, name: &str) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let before = context.feed().last_event();
    context.command(Command::Inspect { guest: name.to_owned() }).await?;
    let lines = answer(context, name, before).await?;
    let log = match context.log_dir() {
        Ok(directory) => {
            let path = directory.join(format!("{name}.log"));
            let lines = blocking(move || last_lines(&path, LOG_LINES)).await?;
            lines.iter().map(|line| printable(line)).collect()
        }
        Err(_) => Vec::new(),
    };
    Ok(json(StatusCode::OK, &Inspection { guest: name.to_owned(), lines, log }))
}

/// Waits for the lines of a guest's answer, which come as events.
async fn answer(context: &Context, name: &str, mut seen: u64) -> Result<Vec<String>, Problem> {
    let mut feed = context.feed();
    let mut deadline = Instant::now() + PATIENCE;
    let mut lines = Vec::new();
    loop {
        match timeout_at(deadline, feed.wait_for_event(seen)).await {
            Ok(waited) => waited.map_err(ended)?,
            Err(_) if lines.is_empty() => {
                let detail = format!("the process of guest {name:?} does not answer; `aerostat kill` ends it");
                return Err(Problem::new(ProblemCode::NoAnswer, detail));
            }
            Err(_) => return Ok(lines),
        }
        for recorded in feed.events_after(seen).events {
            seen = recorded.seq;
            if let EventKind::Inspected { guest, line } = &recorded.event.what
                && guest == name
            {
                lines.push(printable(line));
                deadline = Instant::now() + QUIET;
            }
        }
    }
}
