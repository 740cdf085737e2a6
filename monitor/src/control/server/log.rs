//! The log of a guest.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use super::answer::{Answer, Stream, stream};
use super::context::{self, Context, blocking};
use super::log_reader::{LogReader, Start};
use super::race::{First, race};
use super::request::{Follow, Parameters};
use crate::control::api::{Problem, ProblemCode};

/// How often a log that is followed is read. A guest's process writes to it and does not say so.
const PACE: Duration = Duration::from_millis(100);

/// Returns a guest's log of this run, or the last lines of it, and with `follow=true` what is added
/// to it until the run ends.
#[utoipa::path(get, path = "/v1/guests/{name}/log", operation_id = "readLog", tag = "guests",
    params(
        ("name" = String, Path, description = "The guest's name in the fleet file."),
        ("lines" = Option<u64>, Query, description = "How many of the last lines; all without it."),
        ("follow" = Option<bool>, Query, description = "Whether the answer goes on until the run ends."),
    ),
    responses(
        (status = 200, description = "The log, as the guest wrote it.", body = String, content_type = "text/plain"),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn log(context: Arc<Context>, head: &Parts, name: &str) -> Result<Answer, Problem> {
    let parameters = Parameters::read(head.uri.query(), &["lines", "follow"])?;
    let start = match parameters.number("lines")? {
        Some(lines) => Start::Last(usize::try_from(lines).unwrap_or(usize::MAX)),
        None => Start::Beginning,
    };
    let follow = parameters.follow()?;
    // Only names of guests lead to files.
    let published = context.latest().await?;
    context::guest(&published, name)?;
    let path = context.log_dir()?.join(format!("{name}.log"));
    let unreadable = |error: std::io::Error| {
        let code =
            if error.kind() == std::io::ErrorKind::NotFound { ProblemCode::NotFound } else { ProblemCode::Failed };
        Problem::new(code, format!("the log of guest {name:?} can't be read: {error}"))
    };
    let reader = blocking(move || LogReader::open(&path, start)).await?.map_err(unreadable)?;
    let permit = context.stream()?;
    let body = Stream::new(|sender| async move {
        send_log(&context, reader, follow, sender).await;
        drop(permit);
    });
    Ok(stream("text/plain; charset=utf-8", body))
}

async fn send_log(context: &Context, mut reader: LogReader, follow: Follow, sender: Sender<Bytes>) {
    let mut feed = context.feed();
    let mut is_over = follow == Follow::No;
    loop {
        let Ok((back, part)) = blocking(move || {
            let part = reader.read();
            (reader, part)
        })
        .await
        else {
            return;
        };
        reader = back;
        match part {
            Ok(Some(part)) => {
                if sender.send(part).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
            Ok(None) if is_over => return,
            Ok(None) => {
                let over = race(feed.wait_for(|_| false), context.stopped());
                // What was written before the end is still read.
                is_over = matches!(timeout(PACE, over).await, Ok(First::Left(_) | First::Right(())));
            }
        }
    }
}
