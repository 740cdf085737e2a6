//! What happens next, by a seed.

use std::time::Duration;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, for so long.
    Rest(Duration),
    /// A guest's VMM process is killed.
    Kill {
        /// Which of the victims.
        victim: usize,
    },
    /// A guest's VMM process is stopped for so long.
    Stop {
        /// Which of all guests.
        guest: usize,
        /// How long.
        time: Duration,
    },
    /// A guest's VMM process gets hardly any processor time for so long.
    Throttle {
        /// Which of all guests.
        guest: usize,
        /// How long.
        time: Duration,
    },
    /// The memory control group of a guest gets a limit that is too low.
    Squeeze {
        /// Which of the victims.
        victim: usize,
    },
    /// The supervisor is killed, and another one is started.
    KillSupervisor,
    /// The supervisor is stopped for so long.
    StopSupervisor(Duration),
    /// The supervisor gets hardly any processor time for so long.
    ThrottleSupervisor(Duration),
    /// Many clients connect that say what makes no sense.
    Clients,
    /// The accounts are checked.
    Check,
}

/// The steps of a run.
#[derive(Debug)]
pub(super) struct Steps {
    state: u64,
}

impl Steps {
    /// Returns the steps that follow from a seed.
    pub(super) fn new(seed: u64) -> Self {
        // Seeds next to each other begin far apart, and the state is never zero.
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// Returns the next step.
    pub(super) fn next(&mut self) -> Step {
        let which = self.below(100);
        let place = usize::try_from(self.below(60)).unwrap_or_default();
        let time = self.time();
        match which {
            0..20 => Step::Rest(time),
            20..32 => Step::Kill { victim: place },
            32..50 => Step::Stop { guest: place, time },
            50..60 => Step::Throttle { guest: place, time },
            60..64 => Step::Squeeze { victim: place },
            64..69 => Step::KillSupervisor,
            69..76 => Step::StopSupervisor(time),
            76..81 => Step::ThrottleSupervisor(time),
            81..86 => Step::Clients,
            _ => Step::Check,
        }
    }

    /// Returns a time, mostly a short one.
    fn time(&mut self) -> Duration {
        let most = if self.below(8) == 0 { 1500 } else { 250 };
        Duration::from_millis(1 + self.below(most))
    }

    fn below(&mut self, bound: u64) -> u64 {
        // Xorshift (Marsaglia, 2003).
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, Steps};

    #[test]
    fn a_seed_decides_all_steps() {
        let of = |seed| {
            let mut steps = Steps::new(seed);
            (0..500).map(|_| steps.next()).collect::<Vec<_>>()
        };
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let kinds = [Step::KillSupervisor, Step::Clients, Step::Check];
        assert!(kinds.iter().all(|kind| of(7).contains(kind)), "all of them come");
    }
}
