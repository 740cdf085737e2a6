//! What a guest's process says, and how it ended, as events.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use aerostat_link::message::FromVmm;
use aerostat_link::{LinkError, Patience};
use rustix::event::epoll;
use rustix::process::Signal;

use super::last_words::{LastWords, violation};
use super::record::recorded_ending;
use super::{Progress, VmmGuest};
use crate::clock::Moment;
use crate::host::process::Exit;
use crate::host::{EndReason, Ending, GuestEvent, GuestHandle, oom, reaper};

/// How long a process may take to end after the link was closed: a process that ends closes it, and
/// then removes its machine.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(2);

/// Why a guest ends whose process sends too much.
const FLOOD: &str = "its process floods the link";
/// Bytes of a message that cost as much as one message: reading a long one takes long.
const BYTES_PER_TOKEN: usize = 256;

/// Returns what a message of so many bytes costs, in messages.
fn cost(bytes: usize) -> u32 {
    u32::try_from(1 + bytes / BYTES_PER_TOKEN).unwrap_or(u32::MAX)
}

impl VmmGuest {
    /// Receives the next message of the process. A message that ends the guest closes the link, and
    /// so does an invalid one.
    pub(super) fn receive(&mut self) -> Option<GuestEvent> {
        let (message, bytes) = match self.link.as_ref()?.receive_sized::<FromVmm>(Patience::DoNotWait) {
            Ok(received) => received,
            Err(error) => {
                self.lose(error);
                return None;
            }
        };
        if !matches!(message, FromVmm::Ended(_)) && !self.messages.take_many(cost(bytes), Moment::now()) {
            self.part(Ending::failed(FLOOD));
            return None;
        }
        match message {
            FromVmm::Pressure => return Some(GuestEvent::Pressure),
            FromVmm::UseChanged => return Some(GuestEvent::UseChanged),
            FromVmm::Requested => return Some(GuestEvent::Requested),
            FromVmm::Inspected { lines } => return Some(GuestEvent::Inspected(lines)),
            FromVmm::Problem { what } if self.problems_left > 0 => {
                self.problems_left -= 1;
                return Some(GuestEvent::Problem(what.replace(char::is_control, "\u{fffd}")));
            }
            FromVmm::Problem { .. } => self.part(Ending::failed(FLOOD)),
            FromVmm::Standing(_) | FromVmm::TakenOver => {
                self.part(Ending::failed("its process sent a message of a take-over, and there is none"));
            }
            FromVmm::Ended(ending) => self.part(ending.into()),
        }
        None
    }

    /// Ends a guest whose link has failed. A process that has closed it gets some time to end.
    fn lose(&mut self, error: LinkError) {
        match error {
            LinkError::WouldBlock => {}
            LinkError::Closed => {
                self.hung_up = Some(Moment::now());
                self.close_link();
            }
            error => self.part(Ending::failed(error)),
        }
    }

    /// Notes how the guest ended. Its process has no more to report or to do.
    fn part(&mut self, ending: Ending) {
        if matches!(self.progress, Progress::Running) {
            self.progress = Progress::Ending(ending);
        }
        self.close_link();
        self.kill();
    }

    /// Ends a process that has closed its end of the link and does not end by itself: nothing that
    /// happens to its guest would be known.
    pub(super) fn check_hung_up(&mut self) {
        if self.hung_up.is_some_and(|since| Moment::now().since(since) >= HANG_UP_PATIENCE) {
            self.hung_up = None;
            self.part(Ending::failed("its process closed the link and did not end"));
        }
    }

    /// A closed link would stay readable: from now on only the process is watched.
    pub(super) fn close_link(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = epoll::delete(&self.events, &link);
            reaper::leave(link);
        }
    }

    /// Returns the last event, once.
    pub(super) fn end(&mut self, exit: Exit) -> Option<GuestEvent> {
        self.close_link();
        let _ = epoll::delete(&self.events, &self.process);
        self.registers.set_resident(FrameCount::ZERO);
        match std::mem::replace(&mut self.progress, Progress::Ended) {
            Progress::Running => Some(GuestEvent::Ended(self.silent_end(exit))),
            Progress::Ending(ending) => Some(GuestEvent::Ended(ending)),
            Progress::Ended => None,
        }
    }

    /// Returns how a process ended that did not report it over the link.
    fn silent_end(&self, exit: Exit) -> Ending {
        // A process that has lost this supervisor ends by its lease, and writes that down.
        if let Some(ending) = self.files.as_deref().and_then(recorded_ending) {
            return ending;
        }
        const KILL: i32 = Signal::KILL.as_raw();
        const SYS: i32 = Signal::SYS.as_raw();
        let words = self.last_words.as_ref().map(LastWords::read).unwrap_or_default();
        let by_kernel = || oom::explain_kill(self.group.as_ref()).map(EndReason::KilledForMemory);
        let reason = match exit {
            Exit::Status(status) => match status.signal() {
                Some(KILL) if !self.is_killed => by_kernel().unwrap_or(EndReason::Killed(KILL)),
                Some(SYS) if let Some(violation) = violation(&words) => EndReason::Failed(violation.clone()),
                Some(signal) => EndReason::Killed(signal),
                None => EndReason::Failed(format!("its process ended without a word ({status})")),
            },
            Exit::Unknown if self.is_killed => EndReason::Killed(KILL),
            Exit::Unknown => {
                by_kernel().unwrap_or_else(|| EndReason::Failed("its process ended without a word".into()))
            }
        };
        Ending { reason, details: words }
    }
}
