//! One connection: requests one after the other.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::accept::Limits;
use super::answer::Answer;
use super::context::Context;
use super::race::{First, race};
use super::route;
use super::stalled::StallLimit;

/// Bytes of the largest head of a request.
const MOST_HEAD_BYTES: usize = 16 << 10;

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    /// The whole interface.
    All,
    /// Metrics.
    Metrics,
}

/// Serves a connection until it or the server ends.
pub(super) async fn serve_connection<S>(stream: S, context: Arc<Context>, surface: Surface, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let is_streaming = Arc::new(AtomicBool::new(false));
    let stream = StallLimit::new(stream, limits.stall, Arc::clone(&is_streaming));
    let service = service_fn(|request| {
        let (context, is_streaming) = (Arc::clone(&context), Arc::clone(&is_streaming));
        async move {
            let answer = route::answer(context, surface, request).await;
            is_streaming.store(answer.body().is_stream(), Ordering::Relaxed);
            Ok::<Answer, Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MOST_HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // An error is the client's doing, and the client has it already.
    if let First::Right(()) = race(connection.as_mut(), context.stopped()).await {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
