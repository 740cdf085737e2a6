//! Guests as the supervisor sees them, independent of what runs them.
//!
//! A [`GuestHandle`] is a running guest: a register page to read facts from and to set the target
//! in, a doorbell, a stream of events and a way to end it. The scheduler and the supervisor know
//! nothing else about guests.

pub mod capacity;
pub mod cgroup;
pub mod descriptors;
pub mod disk;
pub mod log_file;
pub(crate) mod oom;
mod reaper;
pub mod vmm_guest;
pub mod vmm_program;

use std::fmt;
use std::os::fd::BorrowedFd;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::RegisterPage;
use aerostat_abi::units::FrameCount;
use aerostat_link::message::{self, Reason};

/// A running guest.
pub trait GuestHandle {
    /// Returns the page shared with the process that runs the guest.
    fn registers(&self) -> &RegisterPage;

    /// Writes the balloon register and rings the guest's doorbell.
    fn set_target(&self, target: FrameCount);

    /// Returns the anonymous memory of the guest's process, measured from outside: the guest's, and
    /// the little that the process has of its own. `None` where the process is gone.
    fn resident(&self) -> Option<FrameCount>;

    /// Returns a descriptor that is readable when [`Self::next_event`] has an event.
    fn event_fd(&self) -> BorrowedFd<'_>;

    /// Returns the next event, if there is one; never blocks. [`GuestEvent::Ended`] comes exactly
    /// once, as the last one.
    fn next_event(&mut self) -> Option<GuestEvent>;

    /// Has the guest's process release ballooned frames that the guest has touched.
    fn reclaim_ballooned(&mut self);

    /// Asks where the guest's processor is; [`GuestEvent::Inspected`] follows, from a process that
    /// can answer.
    fn inspect(&mut self);

    /// Asks the guest's process to end cleanly; [`GuestEvent::Ended`] follows.
    fn request_stop(&mut self);

    /// Ends the guest's process now; [`GuestEvent::Ended`] follows.
    fn kill(&mut self);
}

/// What a guest's process tells its supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// The guest reported that a thread in it waits for memory.
    Pressure,
    /// Where its processor is: registers and return addresses. Untrusted text.
    Inspected(Vec<String>),
    /// The guest has ended, and all its memory is free.
    Ended(Ending),
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The reason.
    pub reason: EndReason,
    /// What helps to understand it: registers, the last lines of the guest's log. Empty after a
    /// clean end.
    pub details: Vec<String>,
}

/// Why a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The guest wrote an exit code.
    Exited(GuestExit),
    /// The supervisor asked for it.
    Stopped,
    /// The guest did something that is not allowed: a triple fault, an unknown exit.
    Fault(String),
    /// The guest's process was ended by a signal.
    Killed(i32),
    /// The guest's process was ended by SIGKILL, and the kernel has killed one for lack of memory:
    /// how that is known.
    KilledForMemory(&'static str),
    /// The supervisor ended it, because it used so much memory beyond its size: memory that it had
    /// ballooned.
    BeyondSize(FrameCount),
    /// The guest's process failed.
    Failed(String),
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(exit) => write!(f, "{exit}"),
            Self::Stopped => f.write_str("stopped"),
            Self::Fault(what) => write!(f, "guest fault: {what}"),
            Self::Killed(signal) => write!(f, "process killed by signal {signal}"),
            Self::KilledForMemory(why) => write!(f, "process killed by signal 9, {why}"),
            Self::BeyondSize(excess) => write!(f, "used {excess} beyond its size"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

impl Ending {
    fn failed(why: impl ToString) -> Self {
        Self { reason: EndReason::Failed(why.to_string()), details: Vec::new() }
    }
}

impl From<message::Ending> for Ending {
    fn from(message::Ending { reason, details }: message::Ending) -> Self {
        Self { reason: reason.into(), details }
    }
}

impl From<Reason> for EndReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Exited(code) => match GuestExit::decode(code.into()) {
                Some(exit) => Self::Exited(exit),
                None => Self::Failed(format!("its process reported the unknown exit code {code}")),
            },
            Reason::Stopped => Self::Stopped,
            Reason::Fault(what) => Self::Fault(what),
            Reason::Failed(why) => Self::Failed(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EndReason;
    use aerostat_abi::exit::GuestExit;
    use aerostat_link::message::Reason;

    #[test]
    fn exit_codes_of_a_process_are_checked() {
        let panic = EndReason::Exited(GuestExit::Panic);
        assert_eq!(EndReason::from(Reason::Exited(GuestExit::Panic.encode())), panic);
        assert!(matches!(EndReason::from(Reason::Exited(0)), EndReason::Failed(_)));
    }
}
