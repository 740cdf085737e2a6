//! `aerostat events` and `logs`: what happens in a fleet, and what a guest writes.

use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::connection::FleetChoice;
use super::output::{end_with_reader, print, print_json_line};
use crate::cli::Failure;
use crate::control::ClientError;
use crate::control::api::Event;
use crate::display::printable;
use crate::supervisor::seconds;

/// The longest part of a line that is printed at once: a guest may write without line breaks.
const LONGEST: u64 = 64 << 10;

#[derive(Args, Debug)]
pub(in crate::cli) struct EventsArguments {
    #[command(flatten)]
    fleet: FleetChoice,
    /// Go on with the events that happen from now on.
    #[arg(short, long)]
    follow: bool,
    /// Begin after the event of this number, instead of the oldest one that is kept.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    after: u64,
    /// Print a line of JSON for each event, as the control interface has it.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct LogsArguments {
    /// The guest.
    guest: String,
    #[command(flatten)]
    fleet: FleetChoice,
    /// Go on with what the guest writes from now on.
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last N lines instead of all.
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
}

pub(in crate::cli) fn events(arguments: &EventsArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let failed = |error| connection.failure(&error);
    let client = &connection.client;
    let events = if arguments.follow {
        end_with_reader()?;
        client.follow_events(arguments.after).map_err(failed)?
    } else {
        client.events(arguments.after).map_err(failed)?
    };
    for event in events {
        let event = event.map_err(failed)?;
        if arguments.json { print_json_line(&event)? } else { print(&event_line(&event))? }
    }
    Ok(ExitCode::SUCCESS)
}

fn event_line(event: &Event) -> String {
    format!("{}  {}\n", seconds(Duration::from_millis(event.at_ms)), printable(&event.text))
}

pub(in crate::cli) fn logs(arguments: &LogsArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let failed = |error| connection.failure(&error);
    let (client, guest, lines) = (&connection.client, &arguments.guest, arguments.lines);
    let log = if arguments.follow {
        end_with_reader()?;
        client.follow_log(guest, lines).map_err(failed)?
    } else {
        client.log(guest, lines).map_err(failed)?
    };
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut log, LONGEST).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(ExitCode::SUCCESS),
            Ok(_) => print(&log_line(&line))?,
            Err(error) => return Err(connection.failure(&ClientError::Broken(error.to_string()))),
        }
    }
}

/// Returns a line as it may be shown: a guest writes any bytes.
fn log_line(line: &[u8]) -> String {
    let (line, end) = line.strip_suffix(b"\n").map_or((line, ""), |line| (line, "\n"));
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    text.split('\t').map(printable).collect::<Vec<_>>().join("\t") + end
}

#[cfg(test)]
mod tests {
    use super::{event_line, log_line};
    use crate::control::api::{Event, EventKind};
    use std::collections::BTreeMap;

    #[test]
    fn a_log_is_shown_without_control_characters() {
        assert_eq!(log_line(b"a\tb\x1b[2Jc\xff\r\n"), "a\tb?[2Jc\u{fffd}\n");
        assert_eq!(log_line(b"no end"), "no end");
    }

    #[test]
    fn an_event_has_its_time() {
        let event = Event {
            seq: 1,
            at_unix_ms: 0,
            at_ms: 12_345,
            kind: EventKind::Started,
            guest: None,
            text: "web started\n".into(),
            fields: BTreeMap::new(),
        };
        assert_eq!(event_line(&event), "  12.35 s  web started?\n");
    }
}
