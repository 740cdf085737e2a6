//! Answers: JSON, problems, text, and bodies that arrive over time.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use crate::control::api::{Problem, ProblemCode};

pub(super) type Answer = Response<AnswerBody>;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// The body of an answer.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// It is there as a whole.
    Whole(Option<Bytes>),
    /// It arrives over time.
    Stream(Stream),
}

/// A body that arrives over time, and the task that makes it. Dropping it ends the task.
#[derive(Debug)]
pub(super) struct Stream {
    parts: Receiver<Bytes>,
    task: JoinHandle<()>,
}

impl Stream {
    /// Creates a body of what `make` sends. It waits while the client does not read.
    pub(super) fn new<F>(make: impl FnOnce(Sender<Bytes>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, parts) = channel(1);
        Self { parts, task: tokio::spawn(make(sender)) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AnswerBody {
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |bytes| Ok(Frame::data(bytes));
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(frame)),
            Self::Stream(stream) => stream.parts.poll_recv(context).map(|part| part.map(frame)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Returns an answer with a value.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => whole(status, JSON, text),
        Err(error) => problem(&Problem::new(ProblemCode::Failed, error.to_string())),
    }
}

/// Returns an answer with a value of this version.
pub(super) fn versioned(value: &impl Serialize, version: u64) -> Answer {
    let mut answer = json(StatusCode::OK, value);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

/// Returns an answer that says why a request failed.
pub(super) fn problem(problem: &Problem) -> Answer {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_vec(problem).unwrap_or_default();
    let mut answer = whole(status, PROBLEM, text);
    if matches!(problem.code, ProblemCode::Busy | ProblemCode::Unavailable) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// Returns the answer to a method that a resource does not have.
pub(super) fn wrong_method(method: &Method, allowed: &[Method]) -> Answer {
    let list = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let detail = format!("{method} is not possible here; use {list}");
    let mut answer = problem(&Problem::new(ProblemCode::MethodNotAllowed, detail));
    if let Ok(list) = HeaderValue::from_str(&list) {
        answer.headers_mut().insert(ALLOW, list);
    }
    answer
}

/// Returns an answer with a text of this type.
pub(super) fn whole(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Answer {
    with_type(status, content_type, AnswerBody::Whole(Some(text.into())))
}

/// Returns an answer that arrives over time.
pub(super) fn stream(content_type: &'static str, stream: Stream) -> Answer {
    with_type(StatusCode::OK, content_type, AnswerBody::Stream(stream))
}

fn with_type(status: StatusCode, content_type: &'static str, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Returns a problem as the bytes of a whole answer, for a client that is not served.
pub(super) fn refusal(problem: &Problem) -> Vec<u8> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_string(problem).unwrap_or_default();
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    )
    .into_bytes()
}
