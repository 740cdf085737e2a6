//! The command line: `phases=SIZE[/ACTIVE]:TIME,... [repeat]`, with sizes in `K`, `M` or `G` and
//! times in `ms` or `s`.

use aerostat_guest::app;
use alloc::vec::Vec;
use core::fmt;

/// A size of the working set and the time for which it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// The size in bytes.
    pub bytes: usize,
    /// The part of it that is used all the time, in bytes; the rest lies idle.
    pub active_bytes: usize,
    /// The time in milliseconds.
    pub duration_ms: u64,
}

/// The phases of a command line, in order.
#[derive(Debug)]
pub struct Plan {
    phases: Vec<Phase>,
    repeats: bool,
}

/// An error in a command line.
#[derive(Debug)]
pub enum PlanError<'a> {
    /// There is no `phases=`.
    NoPhases,
    /// A word is unknown.
    UnknownWord(&'a str),
    /// A phase is not SIZE[/ACTIVE]:TIME.
    BadPhase(&'a str),
}

impl fmt::Display for PlanError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPhases => f.write_str("say what to do: phases=SIZE:TIME,... such as phases=64M:3s,320M:4s repeat"),
            Self::UnknownWord(word) => {
                write!(f, "unknown word {word:?}: expected phases=SIZE[/ACTIVE]:TIME,... [repeat]")
            }
            Self::BadPhase(phase) => {
                write!(f, "phase {phase:?} is not SIZE[/ACTIVE]:TIME, such as 64M:3s or 64M/16M:3s")
            }
        }
    }
}

impl Plan {
    /// Parses the words of a command line.
    ///
    /// # Errors
    /// [`PlanError`], which names the word.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, PlanError<'a>> {
        let mut plan = Self { phases: Vec::new(), repeats: false };
        for word in words {
            if let Some(list) = word.strip_prefix("phases=") {
                for phase in list.split(',') {
                    plan.phases.push(parse_phase(phase).ok_or(PlanError::BadPhase(phase))?);
                }
            } else if word == "repeat" {
                plan.repeats = true;
            } else {
                return Err(PlanError::UnknownWord(word));
            }
        }
        if plan.phases.is_empty() { Err(PlanError::NoPhases) } else { Ok(plan) }
    }

    /// Returns the phases, in order.
    #[must_use]
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// Returns whether the phases begin again after the last one.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.repeats
    }
}

fn parse_phase(text: &str) -> Option<Phase> {
    let (sizes, time) = text.split_once(':')?;
    let (size, active) = sizes.split_once('/').unwrap_or((sizes, sizes));
    let bytes = app::parse_size(size)?;
    let active_bytes = app::parse_size(active).filter(|&active| active <= bytes)?;
    let duration_ms = match time.strip_suffix("ms") {
        Some(digits) => digits.parse().ok()?,
        None => time.strip_suffix('s')?.parse::<u64>().ok()?.checked_mul(1000)?,
    };
    Some(Phase { bytes, active_bytes, duration_ms })
}
