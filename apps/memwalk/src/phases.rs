//! The command line: `phases=SIZE:TIME,SIZE:TIME,... [repeat]`, with sizes in `K`, `M` or `G` and times in `ms` or `s`.

use alloc::vec::Vec;
use core::fmt;

/// A working set to keep for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) bytes: usize,
    pub(crate) duration_ms: u64,
}

/// The phases, in order.
#[derive(Debug)]
pub(crate) struct Plan {
    phases: Vec<Phase>,
    repeats: bool,
}

/// What is wrong with a command line.
#[derive(Debug)]
pub(crate) enum PlanError<'a> {
    /// There is no `phases=`.
    NoPhases,
    /// A word that means nothing here.
    UnknownWord(&'a str),
    /// A phase that is not SIZE:TIME.
    BadPhase(&'a str),
}

impl fmt::Display for PlanError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPhases => f.write_str("say what to do: phases=SIZE:TIME,... such as phases=64M:3s,320M:4s repeat"),
            Self::UnknownWord(word) => write!(f, "unknown word {word:?}: expected phases=SIZE:TIME,... [repeat]"),
            Self::BadPhase(phase) => write!(f, "phase {phase:?} is not SIZE:TIME, such as 64M:3s"),
        }
    }
}

impl Plan {
    /// The plan that a command line describes. Words for the kernel (`log=`) are passed over.
    pub(crate) fn parse(line: &str) -> Result<Plan, PlanError<'_>> {
        let mut plan = Plan { phases: Vec::new(), repeats: false };
        for word in line.split_whitespace() {
            if let Some(list) = word.strip_prefix("phases=") {
                for phase in list.split(',') {
                    plan.phases.push(parse_phase(phase).ok_or(PlanError::BadPhase(phase))?);
                }
            } else if word == "repeat" {
                plan.repeats = true;
            } else if !is_for_the_kernel(word) {
                return Err(PlanError::UnknownWord(word));
            }
        }
        if plan.phases.is_empty() { Err(PlanError::NoPhases) } else { Ok(plan) }
    }

    pub(crate) fn phases(&self) -> &[Phase] {
        &self.phases
    }

    pub(crate) fn repeats(&self) -> bool {
        self.repeats
    }
}

/// Loaders add words of their own for devices.
fn is_for_the_kernel(word: &str) -> bool {
    ["log=", "reclaim=", "compressed_swap=", "virtio_mmio."].iter().any(|prefix| word.starts_with(prefix))
}

fn parse_phase(text: &str) -> Option<Phase> {
    let (size, time) = text.split_once(':')?;
    let (digits, shift) = match size.char_indices().last()? {
        (at, 'K') => (&size[..at], 10),
        (at, 'M') => (&size[..at], 20),
        (at, 'G') => (&size[..at], 30),
        _ => (size, 0),
    };
    let bytes = digits.parse::<usize>().ok()?.checked_mul(1 << shift)?;
    let duration_ms = match time.strip_suffix("ms") {
        Some(digits) => digits.parse().ok()?,
        None => time.strip_suffix('s')?.parse::<u64>().ok()?.checked_mul(1000)?,
    };
    Some(Phase { bytes, duration_ms })
}
