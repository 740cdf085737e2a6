//! How a run is shown: a live table on a terminal, plain lines elsewhere, a summary at the end.
//!
//! The live table is redrawn in place with a few ANSI sequences (ECMA-48), each frame in one write.
//! Text goes to an [`Output`], in a run a [`Sink`], which never blocks the run. Text of guests is
//! untrusted: control characters in it are replaced before they reach the terminal.

mod columns;
mod event_log;
mod fleet_figures;
mod fleet_table;
mod full_screen;
mod queue;
mod run_plot;
mod screen;
mod sink;
mod summary;
mod table;

use std::io::{self, IsTerminal};
use std::time::Duration;

use rustix::termios::tcgetwinsize;

pub use self::event_log::EventLog;
pub use self::fleet_figures::{fleet_figures, guest_figures};
pub use self::fleet_table::{Order, TopView, guest_table, pool_lines, top};
pub use self::full_screen::{FullScreen, Key};
pub use self::run_plot::run_svg;
pub use self::screen::{Output, Screen};
pub use self::sink::{Sink, SinkError};
pub use self::summary::write_summary;

use self::columns::Width;
use self::table::{plain_lines, table};
use crate::supervisor::{Event, EventKind, FleetStatus, Observer, seconds};

/// Time between frames of the live table.
const LIVE_PACE: Duration = Duration::from_millis(100);
/// Time between plain lines.
const PLAIN_PACE: Duration = Duration::from_secs(1);

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A table that is redrawn in place.
    Live,
    /// Lines without terminal control.
    Plain,
}

impl Mode {
    /// Returns the live mode where standard output is a terminal that supports it.
    #[must_use]
    pub fn of_stdout() -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if io::stdout().is_terminal() && !is_dumb { Self::Live } else { Self::Plain }
    }
}

/// A display of a run. A reader that goes away or does not read ends the display, not the run.
#[derive(Debug)]
pub struct Display<O> {
    output: O,
    mode: Mode,
    /// When the next table or line is due.
    due: Duration,
}

impl<O: Output> Display<O> {
    /// Creates a display in `mode`.
    pub const fn new(output: O, mode: Mode) -> Self {
        Self { output, mode, due: Duration::ZERO }
    }

    /// Returns the output, for what is written after the run.
    pub fn into_output(self) -> O {
        self.output
    }
}

impl<O: Output> Observer for Display<O> {
    fn on_event(&mut self, event: &Event) {
        // Targets change many times a second. The table shows them, and the event log lists them.
        if matches!(event.what, EventKind::Target { .. }) {
            return;
        }
        self.output.text(printable(&format!("{}  {}", seconds(event.at), event.what)) + "\n");
        if self.mode == Mode::Live {
            self.due = Duration::ZERO;
        }
    }

    fn on_poll(&mut self, status: &FleetStatus) {
        if status.elapsed < self.due {
            return;
        }
        match self.mode {
            Mode::Live => {
                let (columns, rows) = terminal_size();
                self.output.frame(table(status, Width(columns), rows.saturating_sub(1)));
                self.due = status.elapsed.saturating_add(LIVE_PACE);
            }
            Mode::Plain => {
                self.output.text(plain_lines(status));
                self.due = status.elapsed.saturating_add(PLAIN_PACE);
            }
        }
    }
}

/// Returns the columns and rows of the terminal, or the usual minimum where they are unknown.
fn terminal_size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// Formats thousandths as per cent, with a decimal.
fn percent(per_mille: u16) -> String {
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

/// Returns `text` with its control characters replaced.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Display, Mode, Screen};
    use crate::host::{EndReason, Ending};
    use crate::supervisor::{Event, EventKind, FleetStatus, GuestState, GuestStatus, Observer};
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    fn status(ms: u64) -> FleetStatus {
        let mib = FrameCount::from_mib;
        let guest = GuestStatus {
            state: GuestState::Growing,
            size: mib(128),
            balloon: mib(384),
            target: mib(256),
            resident: mib(100),
            activity: "walk\x1b[2Jing".into(),
            ..GuestStatus::for_tests("alpha", mib(512))
        };
        FleetStatus {
            elapsed: Duration::from_millis(ms),
            granted: mib(256),
            resident: mib(100),
            moved: mib(12),
            guests: vec![guest],
            ..FleetStatus::for_tests(mib(768))
        }
    }

    fn shown(mode: Mode, show: impl FnOnce(&mut Display<Screen<&mut Vec<u8>>>)) -> String {
        let mut output = Vec::new();
        let mut display = Display::new(Screen::new(&mut output), mode);
        show(&mut display);
        drop(display);
        String::from_utf8(output).unwrap()
    }

    fn ended() -> Event {
        let ending = Ending { reason: EndReason::Fault("at\x07 0".into()), details: Vec::new() };
        Event { at: Duration::from_secs(1), what: EventKind::Ended { guest: "alpha".into(), ending } }
    }

    #[test]
    fn plain_lines_have_units_and_no_control_characters() {
        let text = shown(Mode::Plain, |display| {
            display.on_poll(&status(0));
            display.on_poll(&status(999));
            display.on_event(&ended());
            display.on_poll(&status(1000));
        });
        let line = "growing    guest size 128 MiB, balloon size 384 MiB, target 256 MiB, resident 100 MiB; walk?[2Jing";
        let lines = [
            format!("   0.00 s  alpha  {line}"),
            "   1.00 s  alpha ended: guest fault: at? 0".into(),
            format!("   1.00 s  alpha  {line}"),
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn the_table_stays_in_place() {
        let text = shown(Mode::Live, |display| {
            display.on_poll(&status(0));
            display.on_poll(&status(50));
            display.on_poll(&status(100));
            display.on_event(&ended());
            display.on_poll(&status(110));
        });
        assert_eq!(text.matches("alpha ").count(), 4, "three tables and an event");
        assert_eq!(text.matches("\x1b[4A\r").count(), 2, "back to the top for the second table and for the event");
        assert!(!text.contains("\x1b[2J"), "untrusted text moves nothing");
        assert!(text.ends_with("\x1b[?25h"), "the cursor comes back");
    }
}
