//! `aerostat ps`, `stats`, `explain` and `inspect`: what a fleet does and why.

use std::fmt::Write;
use std::process::ExitCode;
use std::thread;

use clap::Args;

use super::connection::FleetChoice;
use super::output::{Format, end_with_reader, print, print_json, print_json_line};
use crate::cli::Failure;
use crate::control::api::{Explanation, GuestList, Inspection};
use crate::display::{fleet_figures, guest_figures, guest_table, printable};
use crate::span::Span;

#[derive(Args, Debug)]
pub(in crate::cli) struct PsArguments {
    #[command(flatten)]
    fleet: FleetChoice,
    #[command(flatten)]
    format: Format,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct StatsArguments {
    /// The guest; without it, the fleet as a whole.
    guest: Option<String>,
    #[command(flatten)]
    fleet: FleetChoice,
    /// Print JSON, as the control interface has it; with --watch, a line each time.
    #[arg(long)]
    json: bool,
    /// Print again and again, with so much time between, such as 1s or 500ms.
    #[arg(long, value_name = "TIME")]
    watch: Option<Span>,
}

/// A guest to tell of.
#[derive(Args, Debug)]
pub(in crate::cli) struct GuestArguments {
    /// The guest.
    guest: String,
    #[command(flatten)]
    fleet: FleetChoice,
    #[command(flatten)]
    format: Format,
}

pub(in crate::cli) fn ps(arguments: &PsArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let guests = connection.client.guests().map_err(|error| connection.failure(&error))?;
    let guests = GuestList { guests };
    arguments.format.print(&guests, || guest_table(&guests.guests))?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn stats(arguments: &StatsArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    if arguments.watch.is_some() {
        end_with_reader()?;
    }
    loop {
        let failed = |error| connection.failure(&error);
        match &arguments.guest {
            Some(name) => {
                let guest = connection.client.guest(name).map_err(failed)?;
                arguments.print(&guest, guest_figures(&guest))?;
            }
            None => {
                let fleet = connection.client.fleet().map_err(failed)?;
                arguments.print(&fleet, fleet_figures(&fleet))?;
            }
        }
        let Some(Span(pause)) = arguments.watch else { return Ok(ExitCode::SUCCESS) };
        thread::sleep(pause);
    }
}

impl StatsArguments {
    fn print(&self, value: &impl serde::Serialize, text: String) -> Result<(), Failure> {
        match (self.json, self.watch) {
            (true, None) => print_json(value),
            (true, Some(_)) => print_json_line(value),
            (false, None) => print(&text),
            (false, Some(_)) => print(&(text + "\n")),
        }
    }
}

pub(in crate::cli) fn explain(arguments: &GuestArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let answer = connection.client.explanation(&arguments.guest).map_err(|error| connection.failure(&error))?;
    arguments.format.print(&answer, || explanation(&answer))?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn inspect(arguments: &GuestArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let answer = connection.client.inspection(&arguments.guest).map_err(|error| connection.failure(&error))?;
    arguments.format.print(&answer, || inspection(&answer))?;
    Ok(ExitCode::SUCCESS)
}

fn explanation(answer: &Explanation) -> String {
    let Explanation { guest, summary, details, remedies } = answer;
    let mut text = format!("{guest}: {}\n", printable(summary));
    append(&mut text, None, details);
    append(&mut text, Some("what would change it:"), remedies);
    text
}

fn inspection(answer: &Inspection) -> String {
    let Inspection { guest, lines, log } = answer;
    let mut text = format!("{guest}:\n");
    append(&mut text, None, lines);
    append(&mut text, Some("the end of its log:"), log);
    text
}

/// Appends lines, which may be a guest's words, below a title.
fn append(text: &mut String, title: Option<&str>, lines: &[String]) {
    if let Some(title) = title.filter(|_| !lines.is_empty()) {
        let _ = writeln!(text, "{title}");
    }
    for line in lines {
        let _ = writeln!(text, "  {}", printable(line));
    }
}

#[cfg(test)]
mod tests {
    use super::{explanation, inspection};
    use crate::control::api::{Explanation, Inspection};

    #[test]
    fn an_explanation_says_what_why_and_what_would_help() {
        let mut answer = Explanation {
            guest: "web".into(),
            summary: "shrunk by 32 MiB".into(),
            details: vec!["db holds 96 MiB".into(), "bell\x07".into()],
            remedies: vec!["a larger pool".into()],
        };
        let expected = "web: shrunk by 32 MiB\n  db holds 96 MiB\n  bell?\nwhat would change it:\n  a larger pool\n";
        assert_eq!(explanation(&answer), expected);
        answer.remedies.clear();
        assert!(!explanation(&answer).contains("what would change it"));
    }

    #[test]
    fn an_inspection_has_registers_and_the_log() {
        let answer = Inspection { guest: "web".into(), lines: vec!["rip 0x1".into()], log: vec!["INFO  hi".into()] };
        assert_eq!(inspection(&answer), "web:\n  rip 0x1\nthe end of its log:\n  INFO  hi\n");
    }
}
