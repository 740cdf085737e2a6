//! The list of everything that happened, target changes and their reasons included.

use std::io::Write;

use super::printable;
use crate::supervisor::{Event, FleetStatus, Observer, seconds};

/// Writes one line per event; a full disk ends the list, not the run.
#[derive(Debug)]
pub struct EventLog<W> {
    output: W,
}

impl<W: Write> EventLog<W> {
    /// A list that is written to `output`.
    pub fn new(output: W) -> Self {
        Self { output }
    }
}

impl<W: Write> Observer for EventLog<W> {
    fn happened(&mut self, event: &Event) {
        let line = printable(&format!("{}  {}", seconds(event.at), event.what)) + "\n";
        let _ = self.output.write_all(line.as_bytes());
    }

    fn looked(&mut self, _: &FleetStatus) {}
}
