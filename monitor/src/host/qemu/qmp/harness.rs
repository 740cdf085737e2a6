//! A session with a QEMU that sends any bytes, for a fuzzer.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::{Command, Session};
use crate::clock::Moment;

/// Holds a session in which commands are executed while these bytes arrive in parts of up to 64.
///
/// # Panics
/// When an error is not one line, or a session that has failed goes on to wait.
pub fn session(bytes: &[u8]) {
    let mut now = Moment::from_ns(1);
    let mut session = Session::new(now);
    for part in bytes.chunks(64) {
        now = now.after(Duration::from_millis(1));
        if session.room() >= 2 {
            session.execute(Command::Balloon(FrameCount(now.ns() % 1000)), now);
            session.execute(Command::QueryBalloon, now);
        }
        let ready = session.output().len();
        session.sent(ready);
        let (_, error) = session.receive(part, now);
        if let Some(error) = error {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
            return;
        }
    }
    let late = session.deadline().map(|deadline| deadline.after(Duration::from_nanos(1)));
    assert!(late.is_none_or(|late| session.overdue(late).is_some()), "a deadline that has passed is no failure");
}
