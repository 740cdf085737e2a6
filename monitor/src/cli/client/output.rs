//! Standard output of a command that prints what a fleet answers.

use std::io::{self, Write};
use std::process;
use std::thread;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;

use crate::cli::Failure;

/// How an answer is printed.
#[derive(Args, Debug)]
pub(in crate::cli) struct Format {
    /// Print JSON, as the control interface has it.
    #[arg(long)]
    json: bool,
}

impl Format {
    /// Prints an answer, or the text that says the same.
    pub(super) fn print(&self, answer: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { print_json(answer) } else { print(&text()) }
    }
}

/// Prints text.
pub(in crate::cli) fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    written(output.write_all(text.as_bytes()).and_then(|()| output.flush()))
}

/// Prints a value as JSON, for people and programs.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::broken)?;
    print(&(text + "\n"))
}

/// Prints a value as a line of JSON, where more follow.
pub(super) fn print_json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::broken)?;
    print(&(text + "\n"))
}

/// Returns the failure that an error of standard output is.
pub(super) fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::SeenEnough,
        _ => Failure::broken(format!("standard output can't be written: {error}")),
    })
}

/// Ends the process with success when the reader of standard output goes away: a command that waits
/// for the next event would not notice before it comes.
pub(super) fn end_with_reader() -> Result<(), Failure> {
    let watch = || {
        let stdout = io::stdout();
        loop {
            // Nothing is asked for: only an error or the end of a pipe is reported.
            let mut ends = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut ends, None) {
                Ok(_) if ends[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => process::exit(0),
                Ok(_) | Err(Errno::INTR) => {}
                // It can't be watched; the next write will tell.
                Err(_) => return,
            }
        }
    };
    thread::Builder::new().name("reader".into()).spawn(watch).map(drop).map_err(Failure::broken)
}
