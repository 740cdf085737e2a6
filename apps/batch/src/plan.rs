//! What the command line asks for.

use core::fmt;
use core::time::Duration;

use aerostat_guest::app;

/// When the job begins, and what it needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The memory of the job.
    pub(crate) bytes: usize,
    /// When it begins, after the guest's start.
    pub(crate) start: Duration,
    /// How long before that its memory is requested, if at all.
    pub(crate) ask: Option<Duration>,
    /// How long it runs.
    pub(crate) run: Duration,
    pub(crate) habit: Habit,
}

/// What the job does with its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// It reads it all the time.
    Works,
    /// It reads it when it ends.
    Rests,
}

/// A word of the command line that is no option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadPlan<'a>(&'a str);

impl fmt::Display for BadPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no option of batch; write size=96M start=6s ask=2s run=3s rest", self.0)
    }
}

impl Plan {
    /// Parses the words of a command line.
    pub(crate) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, BadPlan<'a>> {
        let mut plan = Self {
            bytes: 64 << 20,
            start: Duration::from_secs(2),
            ask: None,
            run: Duration::from_secs(1),
            habit: Habit::Works,
        };
        for word in words {
            plan.set(word).ok_or(BadPlan(word))?;
        }
        Ok(plan)
    }

    fn set(&mut self, word: &str) -> Option<()> {
        if word == "rest" {
            self.habit = Habit::Rests;
            return Some(());
        }
        let (key, value) = word.split_once('=')?;
        match key {
            "size" => self.bytes = app::parse_size(value).filter(|&bytes| bytes > 0)?,
            "start" => self.start = seconds(value)?,
            "ask" => self.ask = Some(seconds(value)?),
            "run" => self.run = seconds(value)?,
            _ => return None,
        }
        Some(())
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: u64 = text.strip_suffix('s')?.parse().ok()?;
    (seconds <= 86_400).then(|| Duration::from_secs(seconds))
}
