//! Whether a guest is silent, and the question where its processor is. Pure.

use std::time::Duration;

use crate::clock::Moment;

/// How long a guest may make no call to its balloon before it counts as silent. Its driver makes
/// one at least every two seconds.
const SILENCE: Duration = Duration::from_secs(5);
/// The most lines of an answer that are reported: registers, return addresses, and two lines for
/// each thread.
const LINES_OF_ANSWER: usize = 192;

/// The state of the contact with one guest.
#[derive(Debug, Default)]
pub(super) struct Contact {
    is_silence_reported: bool,
    /// The guest was asked where its processor is, and has not answered.
    is_asked: bool,
    answer: Vec<String>,
    /// Problems to be reported.
    problems: Vec<String>,
}

impl Contact {
    /// Returns whether a guest is silent that last made a call at `last_call`.
    pub(super) fn is_silent(last_call: Moment, now: Moment) -> bool {
        now.since(last_call) > SILENCE
    }

    /// Returns whether a silence is to be reported: once in each silence.
    pub(super) fn begins_silence(&mut self, is_silent: bool) -> bool {
        let was_reported = std::mem::replace(&mut self.is_silence_reported, is_silent);
        is_silent && !was_reported
    }

    /// Records that the guest was asked where its processor is.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Records an answer. One that was not asked for is dropped, so that it does not fill the logs.
    pub(super) fn receive(&mut self, lines: Vec<String>) {
        if std::mem::take(&mut self.is_asked) {
            self.answer = lines;
            self.answer.truncate(LINES_OF_ANSWER);
        }
    }

    /// Records a problem that the guest's process has reported.
    pub(super) fn add_problem(&mut self, what: String) {
        self.problems.push(what);
    }

    /// Returns the problems that were not taken.
    pub(super) fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }

    /// Returns the answer, if there is one that was not taken.
    pub(super) fn take_answer(&mut self) -> Vec<String> {
        std::mem::take(&mut self.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::{Contact, LINES_OF_ANSWER};

    #[test]
    fn each_silence_is_reported_once() {
        let mut contact = Contact::default();
        let reported = [true, true, false, true].map(|is_silent| contact.begins_silence(is_silent));
        assert_eq!(reported, [true, false, false, true]);
    }

    #[test]
    fn an_answer_is_taken_only_where_it_was_asked_for() {
        let mut contact = Contact::default();
        contact.receive(vec!["unasked".into()]);
        assert!(contact.take_answer().is_empty());
        contact.ask();
        contact.receive(vec!["RIP".into(); 2 * LINES_OF_ANSWER]);
        contact.receive(vec!["again".into()]);
        assert_eq!(contact.take_answer(), vec!["RIP"; LINES_OF_ANSWER]);
    }
}
