//! One connection to QEMU: negotiation, commands that wait for their answers, deadlines. Pure:
//! bytes and moments in, bytes and messages out.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::lines::{LineTooLong, Lines};
use super::message::{Command, CommandError, Incoming, QmpEvent, printable};
use crate::clock::Moment;

/// How long QEMU may take for its first line, and for each answer. Its main loop serves other work
/// in between, such as a large release of memory.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Commands that may wait for their answers.
pub(super) const MOST_OUTSTANDING: usize = 16;
/// The oldest QEMU whose commands and events are known to be those that are used here.
const OLDEST_MAJOR: u64 = 4;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::host::qemu) enum QmpError {
    /// The other side has closed the connection.
    #[error("QEMU has closed the connection{}", .0.map_or(String::new(), |name| format!(" before it answered {name}")))]
    Closed(Option<&'static str>),
    /// No first line came.
    #[error("nothing came from the socket; another program may be using it: give QEMU one more -qmp socket")]
    NoBanner,
    /// No answer came.
    #[error("QEMU has not answered {0} in time")]
    NoAnswer(&'static str),
    /// The first line is no QMP.
    #[error("the socket does not speak QMP, it begins with {0:?}; name the socket of QEMU's -qmp option")]
    NotQmp(String),
    /// A later line is no QMP.
    #[error("QEMU sent what is no QMP: {0:?}")]
    Garbage(String),
    /// A line has no end.
    #[error("QEMU sent a line that has no end")]
    LongLine,
    /// QEMU is too old.
    #[error("QEMU has version {0}; take version {OLDEST_MAJOR} or later")]
    TooOld(u64),
    /// QEMU does not let this program control it.
    #[error("QEMU refuses to be controlled: {0}")]
    Refused(String),
    /// An answer that belongs to no command.
    #[error("QEMU answered what was not asked")]
    Unasked,
}

/// What came of bytes that were received.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::host::qemu) enum Received {
    /// Commands may be sent from now on.
    Ready,
    /// The answer to a command.
    Answer(Command, Result<Value, CommandError>),
    /// An event.
    Event(QmpEvent),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitsBanner,
    Negotiates,
    Ready,
}

#[derive(Debug)]
struct Outstanding {
    id: u64,
    command: Command,
    deadline: Moment,
}

/// A connection.
#[derive(Debug)]
pub(in crate::host::qemu) struct Session {
    stage: Stage,
    opened: Moment,
    lines: Lines,
    outstanding: VecDeque<Outstanding>,
    next_id: u64,
    /// Bytes to be sent.
    output: Vec<u8>,
}

impl Session {
    /// Begins a session on a connection that was opened `now`.
    pub(in crate::host::qemu) fn new(now: Moment) -> Self {
        Self {
            stage: Stage::AwaitsBanner,
            opened: now,
            lines: Lines::default(),
            outstanding: VecDeque::new(),
            next_id: 1,
            output: Vec::new(),
        }
    }

    /// Returns how many more commands may be sent now.
    pub(in crate::host::qemu) fn room(&self) -> usize {
        match self.stage {
            Stage::Ready => MOST_OUTSTANDING - self.outstanding.len(),
            Stage::AwaitsBanner | Stage::Negotiates => 0,
        }
    }

    /// Sends a command, for which there is [`Self::room`].
    pub(in crate::host::qemu) fn execute(&mut self, command: Command, now: Moment) {
        debug_assert!(self.room() > 0 || command == Command::Capabilities, "no room for {command:?}");
        let id = self.next_id;
        self.next_id += 1;
        self.output.extend(command.encode(id));
        self.outstanding.push_back(Outstanding { id, command, deadline: now.after(PATIENCE) });
    }

    /// Returns the bytes to be sent.
    pub(in crate::host::qemu) fn output(&self) -> &[u8] {
        &self.output
    }

    /// Records that the first `count` bytes of the output were sent.
    pub(in crate::host::qemu) fn sent(&mut self, count: usize) {
        self.output.drain(..count);
    }

    /// Takes in bytes that QEMU sent. What came before an error is returned with it.
    pub(in crate::host::qemu) fn receive(&mut self, bytes: &[u8], now: Moment) -> (Vec<Received>, Option<QmpError>) {
        self.lines.push(bytes);
        let mut received = Vec::new();
        loop {
            let line = match self.lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return (received, None),
                Err(LineTooLong) => return (received, Some(QmpError::LongLine)),
            };
            match self.take(&line, now) {
                Ok(what) => received.extend(what),
                Err(error) => return (received, Some(error)),
            }
        }
    }

    fn take(&mut self, line: &[u8], now: Moment) -> Result<Option<Received>, QmpError> {
        let incoming = Incoming::decode(line);
        match (self.stage, incoming) {
            (Stage::AwaitsBanner, Some(Incoming::Banner { major })) if major < OLDEST_MAJOR => {
                Err(QmpError::TooOld(major))
            }
            (Stage::AwaitsBanner, Some(Incoming::Banner { .. })) => {
                self.stage = Stage::Negotiates;
                self.execute(Command::Capabilities, now);
                Ok(None)
            }
            (Stage::AwaitsBanner, _) => Err(QmpError::NotQmp(excerpt(line))),
            (Stage::Negotiates | Stage::Ready, None | Some(Incoming::Banner { .. })) => {
                Err(QmpError::Garbage(excerpt(line)))
            }
            (_, Some(Incoming::Other)) => Ok(None),
            (_, Some(Incoming::Event(event))) => Ok(Some(Received::Event(event))),
            (stage, Some(Incoming::Answer { id, result })) => {
                // Answers come in the order of the commands.
                let is_next = self.outstanding.front().is_some_and(|next| Some(next.id) == id);
                let next = if is_next { self.outstanding.pop_front() } else { None };
                let Outstanding { command, .. } = next.ok_or(QmpError::Unasked)?;
                if stage == Stage::Ready {
                    return Ok(Some(Received::Answer(command, result)));
                }
                result.map_err(|error| QmpError::Refused(error.description))?;
                self.stage = Stage::Ready;
                Ok(Some(Received::Ready))
            }
        }
    }

    /// Returns what became of the session where the connection was closed.
    pub(in crate::host::qemu) fn closed(&self) -> QmpError {
        QmpError::Closed(self.outstanding.front().map(|next| next.command.name()))
    }

    /// Returns when [`Self::overdue`] finds something, if nothing is received before.
    pub(in crate::host::qemu) fn deadline(&self) -> Option<Moment> {
        match self.stage {
            Stage::AwaitsBanner => Some(self.opened.after(PATIENCE)),
            Stage::Negotiates | Stage::Ready => self.outstanding.front().map(|next| next.deadline),
        }
    }

    /// Returns what QEMU has not sent in time.
    pub(in crate::host::qemu) fn overdue(&self, now: Moment) -> Option<QmpError> {
        self.deadline().filter(|&deadline| now >= deadline)?;
        Some(self.outstanding.front().map_or(QmpError::NoBanner, |next| QmpError::NoAnswer(next.command.name())))
    }
}

fn excerpt(line: &[u8]) -> String {
    printable(&String::from_utf8_lossy(&line[..line.len().min(60)]))
}

#[cfg(test)]
mod tests {
    use super::{MOST_OUTSTANDING, PATIENCE, QmpError, Received, Session};
    use crate::clock::Moment;
    use crate::host::qemu::qmp::lines::LONGEST_LINE;
    use crate::host::qemu::qmp::message::{Command, QmpEvent};
    use proptest::{collection::vec, prop_assert, proptest};

    const BANNER: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": []}}\n";
    const NOW: Moment = Moment::from_ns(1_000_000_000);

    fn receive(session: &mut Session, text: &str) -> Result<Vec<Received>, QmpError> {
        let (received, error) = session.receive(text.as_bytes(), NOW);
        error.map_or(Ok(received), Err)
    }

    fn ready() -> Session {
        let mut session = Session::new(NOW);
        assert_eq!(receive(&mut session, BANNER), Ok(vec![]));
        assert_eq!(receive(&mut session, "{\"return\": {}, \"id\": 1}\n"), Ok(vec![Received::Ready]));
        session.sent(session.output().len());
        session
    }

    #[test]
    fn nothing_is_sent_before_qemu_is_ready() {
        let mut session = Session::new(NOW);
        assert_eq!((session.room(), session.output()), (0, &b""[..]));
        receive(&mut session, BANNER).unwrap();
        assert_eq!(session.room(), 0);
        assert_eq!(session.output(), Command::Capabilities.encode(1));
        assert_eq!(ready().room(), MOST_OUTSTANDING);
    }

    #[test]
    fn answers_belong_to_commands_in_their_order() {
        let mut session = ready();
        session.execute(Command::QueryBalloon, NOW);
        session.execute(Command::QueryStatus, NOW);
        assert_eq!(session.room(), MOST_OUTSTANDING - 2);
        let text = "{\"return\": 1, \"id\": 2}\n{\"event\": \"STOP\"}\n{\"error\": {\"class\": \"c\"}, \"id\": 3}\n";
        let received = receive(&mut session, text).unwrap();
        let [Received::Answer(first, Ok(_)), Received::Event(event), Received::Answer(second, Err(_))] = &received[..]
        else {
            panic!("{received:?}")
        };
        assert_eq!((first, event, second), (&Command::QueryBalloon, &QmpEvent::Stop, &Command::QueryStatus));
        assert_eq!(receive(&mut session, "{\"return\": 1, \"id\": 4}\n"), Err(QmpError::Unasked));
    }

    #[test]
    fn what_is_no_qmp_is_found_out() {
        let first = |text: &str| receive(&mut Session::new(NOW), text).unwrap_err();
        assert_eq!(first("HTTP/1.1 400\r\n"), QmpError::NotQmp("HTTP/1.1 400".into()));
        assert_eq!(first("{\"return\": {}}\n"), QmpError::NotQmp("{\"return\": {}}".into()));
        assert_eq!(first(&BANNER.replace('7', "2")), QmpError::TooOld(2));
        assert_eq!(first(&"x".repeat(LONGEST_LINE + 1)), QmpError::LongLine);
        let later = |text: &str| receive(&mut ready(), text).unwrap_err();
        assert_eq!(later("\x01\n"), QmpError::Garbage("\u{fffd}".into()));
        assert_eq!(later(BANNER), QmpError::Garbage(BANNER.chars().take(60).collect()));
        let mut refused = Session::new(NOW);
        receive(&mut refused, BANNER).unwrap();
        let error = receive(&mut refused, "{\"error\": {\"desc\": \"no\"}, \"id\": 1}\n");
        assert_eq!(error, Err(QmpError::Refused("no".into())));
    }

    #[test]
    fn what_came_before_an_error_counts() {
        let mut session = ready();
        let (received, error) = session.receive(b"{\"event\": \"RESET\"}\nnonsense\n", NOW);
        assert_eq!((received, error.is_some()), (vec![Received::Event(QmpEvent::Reset)], true));
    }

    #[test]
    fn each_wait_ends() {
        let late = NOW.after(PATIENCE);
        assert_eq!(Session::new(NOW).overdue(late), Some(QmpError::NoBanner));
        let mut session = ready();
        assert_eq!(session.overdue(late), None, "nothing was asked");
        session.execute(Command::QueryBalloon, NOW);
        assert_eq!((session.overdue(NOW), session.deadline()), (None, Some(late)));
        assert_eq!(session.overdue(late), Some(QmpError::NoAnswer("query-balloon")));
        assert_eq!(session.closed(), QmpError::Closed(Some("query-balloon")));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_session_grows(parts in vec(vec(proptest::num::u8::ANY, 0..100), 0..20)) {
            let mut session = ready();
            for part in parts {
                let _ = session.receive(&part, NOW);
                prop_assert!(session.room() <= MOST_OUTSTANDING);
            }
        }
    }
}
