//! `aerostat top`: the fleet on the whole screen, drawn again and again.
//!
//! A thread asks the supervisor, so that keys work while it does not answer.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGTERM, SIGWINCH};

use super::connection::{Connection, FleetChoice};
use super::output::{print, written};
use crate::cli::Failure;
use crate::control::api::{Fleet, Guest};
use crate::display::{FullScreen, Key, TopView, guest_table, pool_lines};
use crate::span::Span;

/// How often keys and answers are polled.
const PACE: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub(in crate::cli) struct TopArguments {
    #[command(flatten)]
    fleet: FleetChoice,
    /// The time between two screens, such as 1s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Span,
}

/// What the supervisor answered last.
struct Snapshot {
    fleet: Fleet,
    guests: Vec<Guest>,
}

pub(in crate::cli) fn top(arguments: &TopArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let first = snapshot(&connection)?;
    match FullScreen::enter() {
        Ok(Some(screen)) => draw(screen, first, connection, arguments.interval.0)?,
        Ok(None) => {
            let [pool, memory] = pool_lines(&first.fleet);
            print(&format!("{pool}\n{memory}\n{}", guest_table(&first.guests)))?;
        }
        Err(error) => return Err(Failure::refused(format!("the terminal can't be used: {error}"))),
    }
    Ok(ExitCode::SUCCESS)
}

fn snapshot(connection: &Connection) -> Result<Snapshot, Failure> {
    let ask = || Ok(Snapshot { fleet: connection.client.fleet()?, guests: connection.client.guests()? });
    ask().map_err(|error| connection.failure(&error))
}

/// Draws until a key ends it, or the supervisor does not answer any more. The screen is as before
/// when this returns.
fn draw(mut screen: FullScreen, first: Snapshot, connection: Connection, interval: Duration) -> Result<(), Failure> {
    let signals = Signals::register()?;
    let answers = ask_again_and_again(connection, interval)?;
    let (mut latest, mut view) = (first, TopView::default());
    loop {
        let (columns, rows) = screen.size();
        let lines = crate::display::top(&latest.fleet, &latest.guests, view, columns, rows);
        written(screen.show(&lines))?;
        // Until there is something new to draw.
        loop {
            let keys = screen.keys(PACE).map_err(Failure::broken)?;
            if keys.contains(&Key::Quit) || signals.end() {
                return Ok(());
            }
            keys.iter().for_each(|&key| press(key, &mut view, latest.guests.len()));
            match answers.try_recv() {
                Ok(answer) => latest = answer?,
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) if keys.is_empty() && !signals.resized() => continue,
                Err(TryRecvError::Empty) => {}
            }
            break;
        }
    }
}

fn press(key: Key, view: &mut TopView, guests: usize) {
    match key {
        Key::Sort => *view = TopView { order: view.order.next(), skipped: 0 },
        Key::Up => view.skipped = view.skipped.saturating_sub(1),
        Key::Down => view.skipped = (view.skipped + 1).min(guests.saturating_sub(1)),
        Key::Quit => {}
    }
}

fn ask_again_and_again(
    connection: Connection,
    interval: Duration,
) -> Result<Receiver<Result<Snapshot, Failure>>, Failure> {
    let (sender, answers) = sync_channel(1);
    let ask = move || {
        loop {
            thread::sleep(interval);
            let answer = snapshot(&connection);
            let is_last = answer.is_err();
            if sender.send(answer).is_err() || is_last {
                return;
            }
        }
    };
    thread::Builder::new().name("ask".into()).spawn(ask).map_err(Failure::broken)?;
    Ok(answers)
}

/// Signals that came.
struct Signals {
    end: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
}

impl Signals {
    fn register() -> Result<Self, Failure> {
        let signals = Self { end: Arc::default(), resized: Arc::default() };
        for (signal, flag) in [(SIGTERM, &signals.end), (SIGHUP, &signals.end), (SIGWINCH, &signals.resized)] {
            signal_hook::flag::register(signal, Arc::clone(flag)).map_err(Failure::broken)?;
        }
        Ok(signals)
    }

    fn end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Returns whether the terminal has another size since this was asked last.
    fn resized(&self) -> bool {
        self.resized.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::press;
    use crate::display::{Key, Order, TopView};

    #[test]
    fn keys_scroll_within_the_guests_and_sort() {
        let mut view = TopView::default();
        press(Key::Up, &mut view, 2);
        assert_eq!(view.skipped, 0);
        (0..5).for_each(|_| press(Key::Down, &mut view, 2));
        assert_eq!(view.skipped, 1);
        press(Key::Sort, &mut view, 2);
        assert_eq!(view, TopView { order: Order::Resident, skipped: 0 });
    }
}
