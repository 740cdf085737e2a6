//! One request over one connection, and its answer.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, IF_MATCH};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::{ClientError, to_json};
use crate::control::api::{Problem, ProblemCode};

/// How long the server may take to answer, besides what the client asks it to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request.
#[derive(Debug)]
pub(super) struct Query {
    method: Method,
    path: String,
    body: Option<Vec<u8>>,
    /// The version that the settings must have.
    expected: Option<u64>,
    /// How long the server is asked to wait.
    wait: Duration,
}

impl Query {
    pub(super) fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), body: None, expected: None, wait: Duration::ZERO }
    }

    pub(super) fn with_body(self, body: &impl Serialize) -> Result<Self, ClientError> {
        Ok(Self { body: Some(to_json(body)?), ..self })
    }

    pub(super) fn if_version(self, expected: Option<u64>) -> Self {
        Self { expected, ..self }
    }

    pub(super) fn waiting(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    fn into_request(self) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut builder = Request::builder().method(self.method).uri(self.path).header(HOST, "aerostat");
        if let Some(version) = self.expected {
            builder = builder.header(IF_MATCH, format!("\"{version}\""));
        }
        if self.body.is_some() {
            builder = builder.header(CONTENT_TYPE, "application/json");
        }
        builder.body(Full::new(self.body.unwrap_or_default().into())).map_err(broken)
    }
}

/// The head of an answer, and a connection from which its body can be read.
#[derive(Debug)]
pub(super) struct Answer {
    runtime: Runtime,
    response: Response<Incoming>,
}

/// The body of an answer while it arrives.
#[derive(Debug)]
pub(super) struct Body {
    runtime: Runtime,
    incoming: Incoming,
}

/// Sends a request and waits for the head of its answer.
pub(super) fn exchange(stream: UnixStream, query: Query) -> Result<Answer, ClientError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(ClientError::Unreachable)?;
    let patience = PATIENCE.saturating_add(query.wait);
    let request = query.into_request()?;
    let response = runtime.block_on(async {
        stream.set_nonblocking(true).map_err(ClientError::Unreachable)?;
        let stream = tokio::net::UnixStream::from_std(stream).map_err(ClientError::Unreachable)?;
        within(patience, async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
            // Runs while this client waits for something.
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(broken)
        })
        .await
    })?;
    Ok(Answer { runtime, response })
}

impl Answer {
    /// Reads the answer to a request that asks for JSON.
    pub(super) fn into_json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let body = self.into_stream()?.read_all()?;
        serde_json::from_slice(&body).map_err(broken)
    }

    /// Returns the body of an answer that is not a refusal.
    pub(super) fn into_stream(self) -> Result<Body, ClientError> {
        let Self { runtime, response } = self;
        let status = response.status();
        let body = Body { runtime, incoming: response.into_body() };
        if status.is_success() {
            return Ok(body);
        }
        let text = body.read_all()?;
        let unknown = || Problem {
            status: status.as_u16(),
            code: ProblemCode::Other,
            detail: format!("the supervisor answered {status}"),
        };
        Err(serde_json::from_slice(&text).unwrap_or_else(|_| unknown()).into())
    }
}

impl Body {
    /// Waits for the next part; returns `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Self { runtime, incoming } = self;
        runtime.block_on(async {
            loop {
                match incoming.frame().await {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(broken(error)),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                }
            }
        })
    }

    fn read_all(self) -> Result<Bytes, ClientError> {
        let Self { runtime, incoming } = self;
        let all = async { incoming.collect().await.map_err(broken) };
        runtime.block_on(within(PATIENCE, all)).map(http_body_util::Collected::to_bytes)
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let late = |_| ClientError::Broken(format!("nothing came for {} s", patience.as_secs()));
    tokio::time::timeout(patience, work).await.map_err(late)?
}

fn broken(error: impl ToString) -> ClientError {
    ClientError::Broken(error.to_string())
}
