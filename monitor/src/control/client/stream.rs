//! Answers that arrive over time.

use std::io::{self, BufRead, BufReader, Read};

use hyper::body::Bytes;

use super::ClientError;
use super::transport::Body;
use crate::control::api::Event;

/// A guest's log. Reading waits for what is added to it, where it is followed.
#[derive(Debug)]
pub struct LogStream {
    body: Body,
    /// What arrived and was not read.
    left: Bytes,
}

impl LogStream {
    pub(super) fn new(body: Body) -> Self {
        Self { body, left: Bytes::new() }
    }
}

impl Read for LogStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.body.next().map_err(io::Error::other)? {
                Some(part) => self.left = part,
                None => return Ok(0),
            }
        }
        let count = self.left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.left.split_to(count));
        Ok(count)
    }
}

/// Events in their order. The iteration waits for the next one, where events are followed, and ends
/// with the run.
#[derive(Debug)]
pub struct EventStream {
    lines: BufReader<LogStream>,
}

impl EventStream {
    pub(super) fn new(stream: LogStream) -> Self {
        Self { lines: BufReader::new(stream) }
    }
}

impl Iterator for EventStream {
    type Item = Result<Event, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        let broken = |error: &dyn ToString| ClientError::Broken(error.to_string());
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).map_err(|error| broken(&error))),
            Err(error) => Some(Err(broken(&error))),
        }
    }
}
