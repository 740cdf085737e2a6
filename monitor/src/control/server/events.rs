//! The stream of events: a JSON object a line.

use std::sync::Arc;

use hyper::body::Bytes;
use hyper::http::request::Parts;
use tokio::sync::mpsc::Sender;

use super::answer::{Answer, Stream, stream};
use super::context::Context;
use super::race::{First, race};
use super::request::{Follow, Parameters};
use crate::control::api::{Event, Problem};
use crate::control::publisher::{Batch, Feed};
use crate::control::view;

/// Streams events: those that are kept, and with `follow=true` those that happen from now on, until
/// the run ends.
#[utoipa::path(get, path = "/v1/events", operation_id = "readEvents", tag = "events",
    params(
        ("after" = Option<u64>, Query, description = "Only events with higher numbers."),
        ("follow" = Option<bool>, Query, description = "Whether the stream goes on until the run ends."),
    ),
    responses(
        (status = 200, description = "Events, a JSON object a line.", body = Event,
            content_type = "application/x-ndjson"),
        (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn events(context: Arc<Context>, head: &Parts) -> Result<Answer, Problem> {
    let parameters = Parameters::read(head.uri.query(), &["after", "follow"])?;
    let feed = context.feed();
    // Numbers begin anew with each run.
    let after = parameters.number("after")?.unwrap_or(0).min(feed.last_event());
    let follow = parameters.follow()?;
    let permit = context.stream()?;
    let body = Stream::new(|sender| async move {
        send_events(&context, feed, after, follow, sender).await;
        drop(permit);
    });
    Ok(stream("application/x-ndjson", body))
}

async fn send_events(context: &Context, mut feed: Feed, mut after: u64, follow: Follow, sender: Sender<Bytes>) {
    loop {
        let batch = feed.events_after(after);
        let Some(last) = batch.events.last() else {
            let is_over = follow == Follow::No
                || !matches!(race(feed.wait_for_event(after), context.stopped()).await, First::Left(Ok(())));
            // The last events of a run may have come just before its end.
            if is_over && feed.events_after(after).events.is_empty() {
                return;
            }
            continue;
        };
        after = last.seq;
        if sender.send(lines(&batch)).await.is_err() {
            return;
        }
    }
}

fn lines(batch: &Batch) -> Bytes {
    let lost = batch.events.first().filter(|_| batch.lost > 0).map(|next| view::lost(batch.lost, next));
    let events = batch.events.iter().map(|recorded| view::event(recorded));
    let mut text = Vec::new();
    for event in lost.into_iter().chain(events) {
        // A buffer takes all, and no value of an event fails.
        let _ = serde_json::to_writer(&mut text, &event);
        text.push(b'\n');
    }
    text.into()
}
