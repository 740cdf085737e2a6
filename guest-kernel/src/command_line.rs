//! The command line: the kernel's own options on it, and the application's words. Pure.

use core::fmt;

use aerostat_abi::boot::MAX_COMMAND_LINE;
use aerostat_abi::units::{FRAME_BYTES, FrameCount};
use aerostat_balloon_driver::{BadRate, RateLimits};
use aerostat_reclaim_policy::{Name, UnknownPolicy};
use log::LevelFilter;

/// More swap than any memory could hold compressed.
const MAX_COMPRESSED_SWAP: u64 = 1 << 40;

/// The beginnings of the words that are not for the application: the kernel's options, and those
/// with which loaders name devices.
const RESERVED: [&str; 6] = ["log=", "reclaim=", "compressed_swap=", "balloon=", "balloon_rate=", "virtio_mmio."];

/// A copy of the command line, as the loader's own lies in memory that the kernel does not keep.
#[derive(Debug)]
pub(crate) struct CommandLine {
    bytes: [u8; MAX_COMMAND_LINE],
    length: usize,
}

/// The error of a command line that is too long or not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadCommandLine;

impl CommandLine {
    /// Copies `text`.
    ///
    /// # Errors
    /// [`BadCommandLine`].
    pub(crate) fn new(text: &[u8]) -> Result<Self, BadCommandLine> {
        let mut bytes = [0; MAX_COMMAND_LINE];
        bytes.get_mut(..text.len()).ok_or(BadCommandLine)?.copy_from_slice(text);
        core::str::from_utf8(text).map_err(|_| BadCommandLine)?;
        Ok(Self { bytes, length: text.len() })
    }

    /// Returns the whole command line.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// Returns the words that are meant for the application.
    pub(crate) fn application_words(&self) -> impl Iterator<Item = &str> {
        let is_reserved = |word: &&str| RESERVED.iter().any(|start| word.starts_with(start));
        self.as_str().split_whitespace().filter(move |word| !is_reserved(word))
    }

    /// Returns the level that `log=` asks for.
    pub(crate) fn log_level(&self) -> LevelFilter {
        self.option("log=").and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::Info)
    }

    /// Returns the options of the kernel.
    ///
    /// # Errors
    /// [`OptionError`] for the first option with a value that can't be used.
    pub(crate) fn options(&self) -> Result<Options, OptionError> {
        Ok(Options {
            balloon_rate: self.balloon_rate()?,
            balloon_driver: self.balloon_driver()?,
            reclaim_policy: Name::from_command_line(self.as_str()).map_err(OptionError::UnknownPolicy)?,
            compressed_swap: self.compressed_swap()?,
        })
    }

    fn balloon_rate(&self) -> Result<RateLimits, OptionError> {
        let limits = self.option("balloon_rate=").map_or(Ok(RateLimits::DEFAULT), RateLimits::parse);
        limits.map_err(OptionError::BadBalloonRate)
    }

    fn balloon_driver(&self) -> Result<BalloonDriver, OptionError> {
        match self.option("balloon=") {
            None => Ok(BalloonDriver::Kernel),
            Some("none") => Ok(BalloonDriver::Application),
            Some(_) => Err(OptionError::UnknownDriver),
        }
    }

    fn compressed_swap(&self) -> Result<FrameCount, OptionError> {
        let Some(size) = self.option("compressed_swap=") else { return Ok(FrameCount::ZERO) };
        let bytes = parse_size(size).filter(|bytes| *bytes <= MAX_COMPRESSED_SWAP);
        Ok(FrameCount(bytes.ok_or(OptionError::BadSwapSize)? / FRAME_BYTES))
    }

    /// Returns what follows `key` in the first word that begins with it.
    fn option(&self, key: &str) -> Option<&str> {
        self.as_str().split_whitespace().find_map(|word| word.strip_prefix(key))
    }
}

/// What the command line chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The limits of the balloon's rate: `balloon_rate=MIN-MAX`, in MiB per second.
    pub(crate) balloon_rate: RateLimits,
    /// Which program drives the balloon: `balloon=none` leaves it to the application.
    pub(crate) balloon_driver: BalloonDriver,
    /// Which pages are evicted first: `reclaim=NAME`.
    pub(crate) reclaim_policy: Name,
    /// How much may be committed beyond memory with nothing but the compressed pool behind it, in
    /// whole frames: `compressed_swap=SIZE`, a number with a unit, `K`, `M` or `G`.
    pub(crate) compressed_swap: FrameCount,
}

/// The program that drives the balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BalloonDriver {
    /// The kernel's thread.
    Kernel,
    /// The application, if it opens the port.
    Application,
}

/// Why an option can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OptionError {
    /// `compressed_swap=` is no size.
    BadSwapSize,
    /// `balloon_rate=` names no limits.
    BadBalloonRate(BadRate),
    /// `balloon=` names no driver.
    UnknownDriver,
    /// `reclaim=` names no policy.
    UnknownPolicy(UnknownPolicy),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadSwapSize => "compressed_swap= is no size up to 1024G; say, for example, compressed_swap=64M",
            Self::BadBalloonRate(error) => return error.fmt(f),
            Self::UnknownDriver => "balloon= can only be none, which leaves the balloon to an application",
            Self::UnknownPolicy(error) => return error.fmt(f),
        })
    }
}

/// Returns the bytes of a size as command lines give it: a whole number with a unit, `K`, `M` or
/// `G` (1024-based).
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let (digits, unit) = units.iter().find_map(|&(letter, unit)| Some((text.strip_suffix(letter)?, unit)))?;
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::{
        BadCommandLine, BadRate, BalloonDriver, CommandLine, FrameCount, LevelFilter, OptionError, Options, RateLimits,
    };

    fn options(text: &[u8]) -> Result<Options, OptionError> {
        CommandLine::new(text).unwrap().options()
    }

    #[test]
    fn the_application_gets_its_own_words_only() {
        let line = b" phases=64M:3s  log=debug reclaim=clock compressed_swap=8M balloon=none \
            balloon_rate=1-2 virtio_mmio.device=512@0xfeb00000:5 catalog=1 ";
        let line = CommandLine::new(line).unwrap();
        assert_eq!(line.application_words().collect::<Vec<_>>(), ["phases=64M:3s", "catalog=1"]);
    }

    #[test]
    fn the_command_line_allows_compressed_swap() {
        let swap = |text: &[u8]| options(text).map(|options| options.compressed_swap);
        assert_eq!(swap(b"repeat"), Ok(FrameCount::ZERO));
        assert_eq!(swap(b"a compressed_swap=64M b"), Ok(FrameCount::from_mib(64)));
        assert_eq!(swap(b"compressed_swap=6K"), Ok(FrameCount(1)));
        for wrong in [&b"compressed_swap="[..], b"compressed_swap=64", b"compressed_swap=-1M", b"compressed_swap=2000G"]
        {
            assert_eq!(swap(wrong), Err(OptionError::BadSwapSize));
        }
    }

    #[test]
    fn the_command_line_limits_the_balloon() {
        let rate = |text: &[u8]| options(text).map(|options| options.balloon_rate);
        assert_eq!(rate(b"repeat"), Ok(RateLimits::DEFAULT));
        assert_eq!(rate(b"a balloon_rate=10-100 b"), Ok(RateLimits::parse("10-100").unwrap()));
        assert_eq!(rate(b"balloon_rate=100-10"), Err(OptionError::BadBalloonRate(BadRate)));
    }

    #[test]
    fn the_command_line_says_which_program_drives_the_balloon() {
        let driver = |text: &[u8]| options(text).map(|options| options.balloon_driver);
        assert_eq!(driver(b"balloon balloon_rate=1-2"), Ok(BalloonDriver::Kernel));
        assert_eq!(driver(b"a balloon=none b"), Ok(BalloonDriver::Application));
        for wrong in [&b"balloon="[..], b"balloon=application", b"balloon=None"] {
            assert_eq!(driver(wrong), Err(OptionError::UnknownDriver));
        }
    }

    #[test]
    fn the_command_line_chooses_the_log_level() {
        let level = |text: &[u8]| CommandLine::new(text).map(|line| line.log_level());
        assert_eq!(level(b"a log=debug b"), Ok(LevelFilter::Debug));
        assert_eq!(level(b"log=loud"), Ok(LevelFilter::Info));
        assert_eq!(level(b"\xff"), Err(BadCommandLine));
        assert_eq!(level(&[b'x'; 4096]), Err(BadCommandLine));
    }
}
