//! What is wrong with a fleet file: a sentence for each, with what to do.

use std::io;
use std::path::PathBuf;

use aerostat_abi::units::FrameCount;
use aerostat_balloon_driver::BadRate;

use super::{LONGEST_COMMAND_LINE, LONGEST_NAME};
use crate::malformed::Malformed;
use crate::scheduler::{BadShares, BadTax};
use crate::size::Size;

#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("can't read the fleet file: {0}")]
    Unreadable(io::Error),
    #[error(transparent)]
    Malformed(Malformed),
    #[error("there is no [[guest]]; name at least one")]
    NoGuests,
    #[error("a guest has an empty name; give every guest a name")]
    EmptyName,
    #[error(
        "the name {0:?} can't be used; take at most {LONGEST_NAME} letters, digits, '-', '_' and '.', a letter or digit first"
    )]
    BadName(String),
    #[error("the name {0:?} belongs to the list of events in the log directory; choose another")]
    ReservedName(String),
    #[error("the names {0:?} and {1:?} differ only in upper and lower case; give every guest a name of its own")]
    SimilarNames(String, String),
    #[error("two guests are named {0:?}; give every guest a name of its own")]
    DuplicateName(String),
    #[error(
        "{what} is {size}, not a multiple of 2M; guest memory is dealt in blocks of 2 MiB, take {below} or {above}"
    )]
    NotWhole { what: String, size: Size, below: String, above: String },
    #[error("pool is 0; say how much host memory the guests share")]
    EmptyPool,
    #[error("guest {0:?}: max is 0; say how large the guest may become")]
    ZeroMax(String),
    #[error("guest {name:?}: min {min} is above max {max}; lower min or raise max")]
    MinAboveMax { name: String, min: Size, max: Size },
    #[error("guest {name:?}: min {min} is too little for a kernel to run on a machine of {max}; take at least {}M", .least.mib())]
    MinTooSmall { name: String, min: Size, max: Size, least: FrameCount },
    #[error("guest {name:?}: min {min} is too little for the metadata of a swap disk of {swap}; take at least {}M, or less swap", .least.mib())]
    MinTooSmallForSwap { name: String, min: Size, swap: Size, least: FrameCount },
    #[error("the minima of the guests add up to {minima} and the pool has {pool}; raise pool or lower some min")]
    MinimaExceedPool { minima: FrameCount, pool: FrameCount },
    #[error(
        "the minima and reservations of the guests add up to {reserved} and the pool has {pool}; raise pool or lower some reservation"
    )]
    ReservationsExceedPool { reserved: FrameCount, pool: FrameCount },
    #[error("guest {name:?}: reservation {reservation} is above max {max}; lower reservation or raise max")]
    ReservationAboveMax { name: String, reservation: FrameCount, max: FrameCount },
    #[error("guest {name:?}: {why}")]
    BadShares { name: String, why: BadShares },
    #[error("{0}")]
    BadTax(BadTax),
    #[error("guest {name:?}: the command line has {length} bytes; take at most {LONGEST_COMMAND_LINE}")]
    LongCommandLine { name: String, length: usize },
    #[error("guest {0:?}: the command line has a control character; take printable text")]
    ControlCharacter(String),
    #[error("guest {0:?}: disk_mode says how a disk is used and there is no disk; add disk or remove disk_mode")]
    ModeWithoutDisk(String),
    #[error("guest {0:?}: swap is 0; say how large the swap disk is, or leave swap out")]
    ZeroSwap(String),
    #[error("guest {name:?}: swap is {size}, not a multiple of 4K; a page of memory has 4 KiB")]
    PartialSwap { name: String, size: Size },
    #[error("guest {name:?}: {why}")]
    BadRate { name: String, why: BadRate },
    #[error("guest {name:?}: the image {} {why}; build it or correct the path", image.display())]
    BadImage { name: String, image: PathBuf, why: String },
    #[error("guest {0:?}: there is no image; name one, or attach a machine that runs already")]
    NoImage(String),
    #[error(
        "guest {name:?}: {key} belongs to a guest that is started, and attach names a machine that runs; remove one of the two"
    )]
    KeyOfStarted { name: String, key: &'static str },
    #[error(
        "guest {0:?}: ignored_target is \"kill\", and a machine that is attached is not ended; take \"page\" or \"pause\""
    )]
    KillsAttached(String),
    #[error("guest {0:?}: attach.qmp is empty; name the socket of the machine's -qmp option")]
    EmptySocket(String),
    #[error("guests {0:?} and {1:?} attach the same socket {socket}; a machine is one guest", socket = .2.display())]
    SameSocket(String, String, PathBuf),
}
