//! The choice of a policy by its name on the command line.

use core::fmt;

use crate::clock::Clock;
use crate::generations::Generations;
use crate::policy::{Age, Arrival, Pass, Policy, Seen, Verdict};

/// A policy's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Name {
    /// [`Clock`].
    Clock,
    /// [`Generations`].
    #[default]
    Generations,
}

impl Name {
    /// All names.
    pub const ALL: [Self; 2] = [Self::Clock, Self::Generations];

    /// Returns the name as the command line has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Generations => "generations",
        }
    }

    /// Returns a new policy of this name.
    #[must_use]
    pub fn policy(self) -> Selected {
        match self {
            Self::Clock => Selected::Clock(Clock::default()),
            Self::Generations => Selected::Generations(Generations::default()),
        }
    }

    /// Returns the name in the first word `reclaim=NAME` of a command line, or the default where
    /// there is none.
    ///
    /// # Errors
    /// [`UnknownPolicy`] when there is no policy of that name.
    pub fn from_command_line(line: &str) -> Result<Self, UnknownPolicy> {
        let Some(asked) = line.split_whitespace().find_map(|word| word.strip_prefix("reclaim=")) else {
            return Ok(Self::default());
        };
        Self::ALL.into_iter().find(|name| name.as_str() == asked).ok_or(UnknownPolicy)
    }
}

/// The error of a command line that names a policy that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPolicy;

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reclaim= names no policy; say reclaim=clock or reclaim=generations")
    }
}

impl core::error::Error for UnknownPolicy {}

/// The selected policy.
#[derive(Clone, Debug)]
pub enum Selected {
    /// `reclaim=clock`
    Clock(Clock),
    /// `reclaim=generations`
    Generations(Generations),
}

impl Policy for Selected {
    const PASSES: u32 = if Clock::PASSES > Generations::PASSES { Clock::PASSES } else { Generations::PASSES };

    fn arrived(&mut self, how: Arrival) -> Age {
        match self {
            Self::Clock(policy) => policy.arrived(how),
            Self::Generations(policy) => policy.arrived(how),
        }
    }

    fn visited(&mut self, page: Seen) -> Verdict {
        match self {
            Self::Clock(policy) => policy.visited(page),
            Self::Generations(policy) => policy.visited(page),
        }
    }

    fn is_new(&self, page: Seen) -> bool {
        match self {
            Self::Clock(policy) => policy.is_new(page),
            Self::Generations(policy) => policy.is_new(page),
        }
    }

    fn pass_ended(&mut self, pass: Pass) {
        match self {
            Self::Clock(policy) => policy.pass_ended(pass),
            Self::Generations(policy) => policy.pass_ended(pass),
        }
    }

    fn age(&self, age: Age) -> u8 {
        match self {
            Self::Clock(policy) => policy.age(age),
            Self::Generations(policy) => policy.age(age),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, UnknownPolicy};

    #[test]
    fn every_name_is_found_on_a_command_line() {
        for name in Name::ALL {
            let found = match name {
                Name::Clock => Name::from_command_line("log=info reclaim=clock phases=2"),
                Name::Generations => Name::from_command_line("reclaim=generations reclaim=clock"),
            };
            assert_eq!(found, Ok(name));
        }
    }

    #[test]
    fn without_a_word_it_is_the_default_and_a_wrong_word_is_refused() {
        assert_eq!(Name::from_command_line(""), Ok(Name::Generations));
        assert_eq!(Name::from_command_line("noreclaim=clock"), Ok(Name::Generations));
        assert_eq!(Name::from_command_line("reclaim=clocks"), Err(UnknownPolicy));
        assert_eq!(Name::from_command_line("reclaim="), Err(UnknownPolicy));
    }
}
