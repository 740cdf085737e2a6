//! The host's side of guests: handles, processes, links, disks, and what the host can provide.
//!
//! The supervisor knows a guest only as a [`GuestHandle`]. [`vmm_guest::VmmGuest`] is the one whose
//! machine runs in a VMM process of ours, [`qemu::QemuGuest`] one under QEMU.

mod any_guest;
pub mod capacity;
pub mod cgroup;
pub mod descriptors;
pub mod disk;
mod guest_handle;
pub mod log_file;
pub mod memory_sampler;
pub(crate) mod oom;
mod process;
pub mod qemu;
mod reaper;
pub mod run_directory;
mod squeeze;
pub mod vmm_guest;
pub mod vmm_program;

use std::fmt;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_link::message::{self, Reason};

pub use self::any_guest::AnyGuest;
pub use self::guest_handle::{
    BalloonCounters, Confinement, GuestEvent, GuestHandle, News, Observation, Origin, PagingCounters, Reports,
};

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
    /// It runs on: the supervisor has left it to the next one.
    Left,
    /// It runs on, without a supervisor: its machine is another program's.
    Detached,
    /// The guest has powered its machine off.
    ShutDown,
    /// Another program has ended the machine.
    EndedByOthers,
    /// Its supervisor was gone, and no other one took it over in time.
    LeaseEnded,
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
    /// The supervisor ended it, because it ignored its target and kept so much memory, by the rule
    /// of the fleet file.
    IgnoredTarget(FrameCount),
    /// The guest's process failed.
    Failed(String),
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(exit) => write!(f, "{exit}"),
            Self::Stopped => f.write_str("stopped"),
            Self::Left => f.write_str("runs on, for the next supervisor"),
            Self::Detached => f.write_str("detached; its machine runs on"),
            Self::ShutDown => f.write_str("shut down"),
            Self::EndedByOthers => f.write_str("ended by another program"),
            Self::LeaseEnded => f.write_str("stopped when its lease ended: no supervisor took it over"),
            Self::Fault(what) => write!(f, "guest fault: {what}"),
            Self::Killed(signal) => write!(f, "process killed by signal {signal}"),
            Self::KilledForMemory(why) => write!(f, "process killed by signal 9, {why}"),
            Self::BeyondSize(excess) => write!(f, "used {excess} beyond its size"),
            Self::IgnoredTarget(withheld) => write!(f, "ignored its target and kept {withheld}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

impl EndReason {
    /// Returns whether the guest has ended by itself with success, or because it was asked to.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Exited(GuestExit::Success) | Self::Stopped | Self::ShutDown)
            || matches!(self, Self::Detached | Self::EndedByOthers)
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
            Reason::LeaseEnded => Self::LeaseEnded,
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
