//! The command line: the kernel's own options on it, words of loaders, and the application's words.
//! Pure.
//!
//! A word `--` ends the words of the kernel and of loaders: all that follow are the application's.

use core::fmt;

use aerostat_abi::boot::MAX_COMMAND_LINE;
use aerostat_abi::units::{FRAME_BYTES, FrameCount};
use aerostat_balloon_driver::{BadRate, RateLimits};
use aerostat_reclaim_policy::{Name, UnknownPolicy};
use log::LevelFilter;

/// More swap than any memory could hold compressed.
const MAX_COMPRESSED_SWAP: u64 = 1 << 40;

/// The beginnings of the kernel's options.
const OPTIONS: [&str; 5] = ["log=", "reclaim=", "compressed_swap=", "balloon=", "balloon_rate="];

/// The beginnings of words with which loaders name devices. QEMU appends them to the command line,
/// whatever it ends with.
const DEVICES: &str = "virtio_mmio.device=";

/// Words of Linux that other monitors, and people who are used to Linux, put on any command line.
/// They are no application's, and the kernel heeds only those that say where devices are.
const LOADER_WORDS: [&str; 12] = [
    "earlycon",
    "earlyprintk",
    "noapic",
    "nokaslr",
    "nomodule",
    "nomodules",
    "no_timer_check",
    "noreplace-smp",
    "nosmp",
    "quiet",
    "ro",
    "rw",
];
/// The beginnings of such words.
const LOADER_KEYS: [&str; 25] = [
    "8250.",
    "BOOT_IMAGE=",
    "acpi=",
    "clocksource=",
    "console=",
    "earlycon=",
    "earlyprintk=",
    "i8042.",
    "init=",
    "initrd=",
    "ip=",
    "loglevel=",
    "mitigations=",
    "net.ifnames=",
    "nr_cpus=",
    "panic=",
    "pci=",
    "random.trust_cpu=",
    "rdinit=",
    "reboot=",
    "root=",
    "rootflags=",
    "rootfstype=",
    "tsc=",
    "virtio_mmio.",
];

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

    /// Returns the words that are meant for the application: those that are neither the kernel's
    /// nor a loader's, and all behind `--`.
    pub(crate) fn application_words(&self) -> impl Iterator<Item = &str> {
        let (common, application, _) = self.parts();
        common.split_whitespace().filter(|word| is_for_application(word)).chain(application.split_whitespace())
    }

    /// Returns the words among which loaders put theirs.
    pub(crate) fn loader_words(&self) -> impl Iterator<Item = &str> {
        let (common, _, devices) = self.parts();
        common.split_whitespace().chain(devices.split_whitespace())
    }

    /// Divides the command line into what comes before `--`, what comes behind it, and names of
    /// devices that QEMU has appended to that.
    fn parts(&self) -> (&str, &str, &str) {
        let text = self.as_str();
        let is_apart = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
        let is_word = |at: usize| {
            let bytes = text.as_bytes();
            is_apart(at.checked_sub(1).and_then(|before| bytes.get(before))) && is_apart(bytes.get(at + 2))
        };
        let Some((at, _)) = text.match_indices("--").find(|(at, _)| is_word(*at)) else { return (text, "", "") };
        let (common, application) = (&text[..at], &text[at + 2..]);
        let mut end = application.trim_end().len();
        while let Some((start, _)) = application[..end].char_indices().rfind(|(_, letter)| letter.is_whitespace())
            && application[start..end].trim_start().starts_with(DEVICES)
        {
            end = application[..start].trim_end().len();
        }
        (common, &application[..end], &application[end..])
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
            reclaim_policy: Name::from_command_line(self.parts().0).map_err(OptionError::UnknownPolicy)?,
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
        self.parts().0.split_whitespace().find_map(|word| word.strip_prefix(key))
    }
}

fn is_for_application(word: &str) -> bool {
    let begins = |starts: &[&str]| starts.iter().any(|start| word.starts_with(start));
    !begins(&OPTIONS) && !begins(&LOADER_KEYS) && !LOADER_WORDS.contains(&word)
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
    fn words_of_loaders_are_not_the_applications() {
        let line = b"console=ttyS0 reboot=k panic=1 pci=off nomodule 8250.nr_uarts=0 i8042.noaux root=/dev/vda ro \
            rows=3 roll quiet tsc=reliable acpi=off virtio_mmio.device=4K@0xc0001000:5";
        let line = CommandLine::new(line).unwrap();
        assert_eq!(line.application_words().collect::<Vec<_>>(), ["rows=3", "roll"]);
        assert!(line.loader_words().any(|word| word == "pci=off"));
    }

    #[test]
    fn all_words_behind_two_dashes_are_the_applications() {
        let words = |text: &[u8]| {
            let line = CommandLine::new(text).unwrap();
            let application: Vec<String> = line.application_words().map(str::to_owned).collect();
            let loader: Vec<String> = line.loader_words().map(str::to_owned).collect();
            (application.join(" "), loader.join(" "))
        };
        let both = |application: &str, loader: &str| (application.to_owned(), loader.to_owned());
        assert_eq!(words(b"a log=debug ro -- ro log=x --  pci=off"), both("a ro log=x -- pci=off", "a log=debug ro"));
        assert_eq!(words(b"-- root=1"), both("root=1", ""));
        assert_eq!(words(b"quiet --"), both("", "quiet"));
        assert_eq!(words(b"a--b --c d--"), both("a--b --c d--", "a--b --c d--"));
        assert_eq!(
            words(b"quiet -- virtio_mmio.device=x b virtio_mmio.device=1@2:3  virtio_mmio.device=4@5:6 "),
            both("virtio_mmio.device=x b", "quiet virtio_mmio.device=1@2:3 virtio_mmio.device=4@5:6"),
            "QEMU appends words to any command line"
        );
        assert_eq!(words(b"-- virtio_mmio.device=1@2:3"), both("", "virtio_mmio.device=1@2:3"));
        assert_eq!(options(b"-- compressed_swap=x balloon=y"), options(b""));
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
