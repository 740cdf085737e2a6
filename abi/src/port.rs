//! The balloon port: one I/O port to which a guest writes 32 bits, with everything else in
//! registers.
//!
//! A *call* is `out dx, eax` with `DX` = [`PORT`]. The monitor reads the registers while the guest
//! is stopped, acts, writes the reply into the same registers (all 64 bits of each), and lets the
//! guest continue after the `out`. Any other access to the port is no call and changes no register.
//!
//! | register | call                  | reply                                   |
//! |----------|-----------------------|-----------------------------------------|
//! | `RAX`    | [`Command`]           | [`Status`]                              |
//! | `RDI`    | first argument        | result, 0 where there is none           |
//! | `RSI`    | second argument       | the current target, in frames           |
//! | `R8`     | third argument        | second result, 0 where there is none;   |
//! |          |                       | the generation of the host's resources  |
//!
//! Every reply carries the target, whatever its status. A call with another status than
//! [`Status::Ok`] has done nothing.
//!
//! Commands have a tag in their upper half, and statuses never do. A machine without the port
//! leaves `RAX` as it was, and so the driver sees that there was no answer. The idea of a backdoor
//! port is VMware's (Waldspurger, "Memory resource management in VMware ESX Server", OSDI 2002).

use crate::units::FrameCount;

/// The port's number.
pub const PORT: u16 = 0xae50;
/// The protocol version that this crate describes.
pub const VERSION: u32 = 3;
/// The tag in the upper half of every command.
const TAG: u64 = 0xae50_0000;

/// A guest's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens a session. `RDI`: version | [`Features`] << 32; `RSI`: the guest's own floor in
    /// frames; `R8`: interrupt vector for target changes, 0 for none. Reply `RDI`: version, with
    /// the accepted features in the upper half. A monitor that refuses the version names its own in
    /// `RDI`.
    Hello,
    /// Asks for the target only.
    GetTarget,
    /// Puts the frames of a batch into the balloon. `RDI`: guest-physical address of the batch
    /// page; `RSI`: entries, 1 to [`crate::batch::CAPACITY`]. Reply `RDI`: frames inflated, those
    /// of entries that are done. Their contents are lost: they read as zero.
    Inflate,
    /// Gets the frames of a batch back from the balloon, as far as the target allows. Registers as
    /// for [`Command::Inflate`]. Contents stay as they are: zero, if the guest has not touched the
    /// frames while they were ballooned.
    Deflate,
    /// Reports statistics. `RDI`: guest-physical address of a [`crate::statistics::Statistics`]
    /// record, 8-byte aligned, within one page.
    Report,
    /// Ends the session. What was negotiated in HELLO is void, and only HELLO is answered.
    /// Ballooned frames stay ballooned.
    Reset,
    /// Asks which frames are ballooned. `RDI`: address of the batch page; `RSI`: the frame number
    /// to begin at. Reply `RDI`: entries that the monitor wrote, ascending blocks as large as
    /// possible, each marked as done; `R8`: the frame number to continue at, 0 at the end.
    List,
    /// Shares the states of all huge frames with the monitor, which may then reclaim those that are
    /// offered ([`Features::OFFERS`]). `RDI`: guest-physical address of an array of
    /// [`crate::frame_state::HugeFrameWord`], one for each huge frame from address 0 to the end of
    /// memory, in memory that is not ballooned; `RSI`: its length. The frames of the array can't be
    /// inflated from then on.
    Share,
    /// Asks what is known of the host's resources ([`Features::REQUESTS`]). `RDI`: guest-physical
    /// address for a [`crate::requests::Resources`] record, 8-byte aligned, within one page. The
    /// generation of what was written is in the reply's `R8`, as in every reply but LIST's while
    /// the feature is in force.
    Resources,
    /// Files a request ([`Features::REQUESTS`]), with [`crate::requests::Request`] in `RDI`, `RSI`
    /// and `R8`. The answer comes with the resources of a later generation.
    Request,
}

impl Command {
    const ALL: [Self; 10] = [
        Self::Hello,
        Self::GetTarget,
        Self::Inflate,
        Self::Deflate,
        Self::Report,
        Self::Reset,
        Self::List,
        Self::Share,
        Self::Resources,
        Self::Request,
    ];

    /// Returns the value of `RAX` for this command.
    #[must_use]
    pub const fn encode(self) -> u64 {
        TAG | match self {
            Self::Hello => 1,
            Self::GetTarget => 2,
            Self::Inflate => 3,
            Self::Deflate => 4,
            Self::Report => 5,
            Self::Reset => 6,
            Self::List => 7,
            Self::Share => 8,
            Self::Resources => 9,
            Self::Request => 10,
        }
    }

    /// Returns the command in a `RAX`. Only its low 32 bits count, as only they are written to the
    /// port.
    #[must_use]
    pub fn decode(rax: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.encode() == rax & 0xffff_ffff)
    }
}

/// The outcome of a call as a whole. Each entry of a batch has an [`crate::batch::EntryStatus`] of
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The call was carried out; the entries of a batch have the outcome of each block.
    Ok,
    /// This monitor does not know the command. This is tested first, even before a session exists.
    UnknownCommand,
    /// HELLO named a version that this monitor does not speak.
    UnsupportedVersion,
    /// There is no session: HELLO has not succeeded yet.
    NoSession,
    /// The address in the call is misaligned, is not guest memory or lies in a ballooned frame; or
    /// a record of statistics crosses a page.
    BadPage,
    /// The batch has no entries, or more than fit a page; or the number of shared words is not that
    /// of the huge frames.
    BadCount,
    /// HELLO was called in a session.
    SessionExists,
    /// An argument of HELLO is out of its range: an interrupt vector from 1 to 31 or above 255, a
    /// floor above memory. Or one of REQUEST: no kind, no urgency, or a number that is not larger
    /// than that of the request before.
    BadArgument,
    /// The call was not carried out: the monitor has ended the session, as a RESET does.
    ResetOrdered,
}

impl Status {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::UnknownCommand,
        Self::UnsupportedVersion,
        Self::NoSession,
        Self::BadPage,
        Self::BadCount,
        Self::SessionExists,
        Self::BadArgument,
        Self::ResetOrdered,
    ];

    /// Returns the value of `RAX` in a reply.
    #[must_use]
    pub const fn encode(self) -> u64 {
        match self {
            Self::Ok => 0,
            Self::UnknownCommand => 1,
            Self::UnsupportedVersion => 2,
            Self::NoSession => 3,
            Self::BadPage => 4,
            Self::BadCount => 5,
            Self::SessionExists => 6,
            Self::BadArgument => 7,
            Self::ResetOrdered => 8,
        }
    }

    /// Returns the status in a reply's `RAX`, or `None` where there was no answer or no valid one.
    #[must_use]
    pub fn decode(rax: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.encode() == rax)
    }
}

/// Optional parts of the protocol, a bit each. Driver and monitor negotiate them in HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u32);

impl Features {
    /// The guest can share the states of its huge frames (SHARE), and the monitor can reclaim those
    /// that it offers.
    pub const OFFERS: Self = Self(1);
    /// The monitor tells the guest about the host's resources (RESOURCES), and the guest can ask
    /// for more of one (REQUEST).
    pub const REQUESTS: Self = Self(2);
    /// The features that this crate describes.
    pub const SUPPORTED: Self = Self(Self::OFFERS.0 | Self::REQUESTS.0);

    /// Returns the features that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns whether all features of `other` are in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The registers that a call and its reply use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Command, then status.
    pub rax: u64,
    /// First argument, then result.
    pub rdi: u64,
    /// Second argument, then the current target in frames.
    pub rsi: u64,
    /// Third argument, then second result.
    pub r8: u64,
}

/// The arguments of HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version that the driver speaks.
    pub version: u32,
    /// Optional parts that the driver supports.
    pub features: Features,
    /// The smallest size that the guest can work at.
    pub floor: FrameCount,
    /// Interrupt vector for target changes; 0 asks for none.
    pub vector: u8,
}

impl Hello {
    /// Returns the call's registers.
    #[must_use]
    pub fn encode(self) -> Registers {
        Registers {
            rax: Command::Hello.encode(),
            rdi: u64::from(self.version) | u64::from(self.features.0) << 32,
            rsi: self.floor.0,
            r8: u64::from(self.vector),
        }
    }

    /// Returns the arguments in a call's registers, or `None` where the vector does not fit a byte.
    #[must_use]
    pub fn decode(registers: &Registers) -> Option<Self> {
        let (version, features) = split(registers.rdi);
        let vector = u8::try_from(registers.r8).ok()?;
        Some(Self { version, features: Features(features), floor: FrameCount(registers.rsi), vector })
    }
}

/// The reply to HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Protocol version that the monitor speaks.
    pub version: u32,
    /// Optional parts in force from now on.
    pub features: Features,
    /// The current target.
    pub target: FrameCount,
}

impl Welcome {
    /// Returns the reply's registers.
    #[must_use]
    pub fn encode(self) -> Registers {
        Registers {
            rax: Status::Ok.encode(),
            rdi: u64::from(self.version) | u64::from(self.features.0) << 32,
            rsi: self.target.0,
            r8: 0,
        }
    }

    /// Returns the reply in the registers. The caller has checked the status.
    #[must_use]
    pub fn decode(registers: &Registers) -> Self {
        let (version, features) = split(registers.rdi);
        Self { version, features: Features(features), target: FrameCount(registers.rsi) }
    }
}

/// Returns the low and the high half of a register.
fn split(register: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = register.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::{Command, Features, Hello, Status, VERSION, Welcome};
    use crate::units::FrameCount;

    #[test]
    fn commands_and_statuses_survive_a_round_trip_and_never_overlap() {
        for command in Command::ALL {
            assert_eq!(Command::decode(command.encode()), Some(command));
            assert_eq!(Status::decode(command.encode()), None, "an unanswered call must not look like a status");
        }
        for status in Status::ALL {
            assert_eq!(Status::decode(status.encode()), Some(status));
            assert_eq!(Command::decode(status.encode()), None);
        }
    }

    #[test]
    fn only_the_low_half_of_rax_names_a_command() {
        assert_eq!(Command::decode(Command::Inflate.encode() | 7 << 32), Some(Command::Inflate));
        assert_eq!(Command::decode(3), None);
    }

    #[test]
    fn hello_and_welcome_survive_a_round_trip() {
        let hello = Hello { version: VERSION, features: Features(0x8000_0001), floor: FrameCount(4096), vector: 0x41 };
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        let welcome = Welcome { version: VERSION, features: Features(2), target: FrameCount(9) };
        assert_eq!(Welcome::decode(&welcome.encode()), welcome);
    }

    #[test]
    fn a_vector_beyond_a_byte_is_no_hello() {
        let mut registers = Hello { version: 1, features: Features(0), floor: FrameCount(0), vector: 1 }.encode();
        registers.r8 = 0x100;
        assert_eq!(Hello::decode(&registers), None);
    }
}
