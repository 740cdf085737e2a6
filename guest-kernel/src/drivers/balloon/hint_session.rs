//! The protocol of free page hints (virtio 1.2, 5.5.6.6): what the host's command asks for. Pure.
//!
//! A host that migrates a guest asks for free memory, so that it need not copy it. Each time that
//! it asks it names another number, and the guest answers with that number, free memory, and the
//! number that says stop. The memory is the guest's again when the host is done.

/// The host wants no more hints for now.
pub(crate) const STOP: u32 = 0;
/// The host needs none of the hints any more.
const DONE: u32 = 1;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintStep {
    /// Nothing, until the command changes.
    Nothing,
    /// Send this number, then ask again.
    Begin(u32),
    /// Hint free memory, then ask again.
    Hint,
    /// Send [`STOP`].
    End,
    /// Free all memory that was hinted.
    Release,
}

/// Where the guest is in its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing is hinted.
    #[default]
    Idle,
    /// Free memory is being hinted for this number.
    Hinting(u32),
    /// The answer to this number has ended; the host is not done with it.
    Answered(u32),
}

/// The guest's side of free page hints.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HintSession {
    state: State,
}

impl HintSession {
    /// Returns what to do, as the host's command is this number now.
    pub(crate) fn next(&mut self, command: u32) -> HintStep {
        match (self.state, command) {
            (State::Idle, STOP | DONE) | (State::Answered(_), STOP) => HintStep::Nothing,
            (_, DONE) => {
                self.state = State::Idle;
                HintStep::Release
            }
            (State::Hinting(number), STOP) => self.end(number),
            (State::Hinting(number), _) if number == command => HintStep::Hint,
            (State::Answered(number), _) if number == command => HintStep::Nothing,
            (_, number) => {
                self.state = State::Hinting(number);
                HintStep::Begin(number)
            }
        }
    }

    /// Notes that there is no more memory to hint. Returns what to do.
    pub(crate) fn exhausted(&mut self) -> HintStep {
        match self.state {
            State::Hinting(number) => self.end(number),
            State::Idle | State::Answered(_) => HintStep::Nothing,
        }
    }

    fn end(&mut self, number: u32) -> HintStep {
        self.state = State::Answered(number);
        HintStep::End
    }
}

#[cfg(test)]
mod tests {
    use super::{DONE, HintSession, HintStep, STOP};

    #[test]
    fn a_number_is_answered_once() {
        let mut session = HintSession::default();
        assert_eq!((session.next(STOP), session.next(DONE)), (HintStep::Nothing, HintStep::Nothing));
        assert_eq!(session.next(7), HintStep::Begin(7));
        assert_eq!((session.next(7), session.next(7)), (HintStep::Hint, HintStep::Hint));
        assert_eq!(session.exhausted(), HintStep::End);
        assert_eq!((session.next(7), session.exhausted()), (HintStep::Nothing, HintStep::Nothing));
        assert_eq!((session.next(DONE), session.next(DONE)), (HintStep::Release, HintStep::Nothing));
        assert_eq!(session.next(7), HintStep::Begin(7), "the host has begun anew");
    }

    #[test]
    fn the_host_may_stop_and_ask_again_at_any_moment() {
        let mut session = HintSession::default();
        assert_eq!((session.next(7), session.next(7)), (HintStep::Begin(7), HintStep::Hint));
        assert_eq!((session.next(STOP), session.next(STOP)), (HintStep::End, HintStep::Nothing));
        assert_eq!((session.next(8), session.next(9)), (HintStep::Begin(8), HintStep::Begin(9)));
        assert_eq!((session.next(9), session.next(DONE)), (HintStep::Hint, HintStep::Release), "without an end");
        assert_eq!((session.next(STOP), session.exhausted()), (HintStep::Nothing, HintStep::Nothing));
    }
}
