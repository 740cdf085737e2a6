//! What the kernel knows about the machine it runs on: read once from whatever the loader left,
//! validated, then trusted.

use core::fmt;
use core::ops::Range;

use aerostat_abi::boot::MAX_COMMAND_LINE;
use aerostat_abi::units::{FRAME_BYTES, FrameCount};
use aerostat_balloon_driver::{BadRate, RateLimits};
use aerostat_reclaim_policy::UnknownPolicy;
use log::LevelFilter;

use super::virtio_devices::VirtioDevices;
use crate::layout;

/// Ranges of memory at most.
pub(crate) const MAX_RANGES: usize = 16;
/// As much swap as nobody has memory to compress it in.
const MAX_COMPRESSED_SWAP: u64 = 1 << 40;
/// The smallest machine worth booting on.
const MIN_MEMORY: FrameCount = FrameCount::from_mib(16);

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Usable memory, sorted, whole frames, none of it in the device hole below 4 GiB.
    pub(crate) memory: MemoryMap,
    /// The command line.
    pub(crate) command_line: CommandLine,
    /// Rate of the time stamp counter, where the monitor tells it.
    pub(crate) tsc_hz: Option<u64>,
    /// I/O port of the serial device, where named.
    pub(crate) serial_port: Option<u16>,
    /// Whether memory that nobody has written reads as zero: so our own monitor hands it over,
    /// while firmware may have used it.
    pub(crate) is_memory_zeroed: bool,
    /// Whether the monitor announces the balloon port.
    pub(crate) has_balloon_port: bool,
    /// The virtio devices that the loader tells of.
    pub(crate) virtio_devices: VirtioDevices,
}

/// Who drives the balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BalloonDriver {
    /// The kernel's thread.
    Kernel,
    /// The application, if it wants to.
    Application,
}

/// Why a machine can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MachineError {
    /// The boot information is not where it should be, or not what it should be.
    BadBootInformation,
    /// The memory map is empty, overlaps itself, or has too many ranges.
    BadMemoryMap,
    /// There is too little memory in one piece behind the image.
    TooSmall,
    /// The command line is too long or not UTF-8.
    BadCommandLine,
    /// The command line's `compressed_swap` is no size.
    BadSwapSize,
    /// The command line's `balloon_rate` names no limits.
    BadBalloonRate(BadRate),
    /// The command line's `balloon` names nobody who could drive it.
    UnknownDriver,
    /// The command line's `reclaim` names no policy.
    UnknownPolicy(UnknownPolicy),
    /// A virtio device is described that can't be: its registers, its interrupt, or one device too
    /// many.
    BadVirtioDevice,
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadBootInformation => "the boot information is unreadable",
            Self::BadMemoryMap => "the memory map is empty, overlaps itself, or has too many ranges",
            Self::TooSmall => "there is too little memory behind the kernel image (at least 16 MiB are needed)",
            Self::BadCommandLine => "the command line is longer than 2047 bytes or not UTF-8",
            Self::BadBalloonRate(error) => return error.fmt(f),
            Self::UnknownDriver => "balloon= can only be none, which leaves the balloon to an application",
            Self::UnknownPolicy(error) => return error.fmt(f),
            Self::BadSwapSize => "compressed_swap= is no size up to 1024G; say, for example, compressed_swap=64M",
            Self::BadVirtioDevice => {
                "a virtio device has registers or an interrupt that can't be, or there are more than 16"
            }
        })
    }
}

impl Machine {
    /// A machine with this memory and command line.
    ///
    /// # Errors
    /// When either can't be used.
    pub(crate) fn new(ranges: impl Iterator<Item = Range<u64>>, command_line: &[u8]) -> Result<Self, MachineError> {
        let memory = MemoryMap::new(ranges)?;
        let command_line = CommandLine::new(command_line)?;
        if memory.total() < MIN_MEMORY {
            return Err(MachineError::TooSmall);
        }
        Ok(Self {
            memory,
            command_line,
            tsc_hz: None,
            serial_port: None,
            is_memory_zeroed: false,
            has_balloon_port: false,
            virtio_devices: VirtioDevices::default(),
        })
    }

    /// All memory, in frames.
    pub(crate) fn total_frames(&self) -> FrameCount {
        self.memory.total()
    }

    /// What `compressed_swap=SIZE` on the command line allows to be committed beyond memory with
    /// nothing but the compressed pool behind it, in whole frames; the size is a number with a
    /// unit, `K`, `M` or `G`.
    ///
    /// # Errors
    /// [`MachineError::BadSwapSize`].
    pub(crate) fn compressed_swap(&self) -> Result<FrameCount, MachineError> {
        let words = self.command_line.as_str().split_whitespace();
        let Some(size) = words.filter_map(|word| word.strip_prefix("compressed_swap=")).next() else {
            return Ok(FrameCount::ZERO);
        };
        let bytes = parse_size(size).filter(|bytes| *bytes <= MAX_COMPRESSED_SWAP);
        Ok(FrameCount(bytes.ok_or(MachineError::BadSwapSize)? / FRAME_BYTES))
    }

    /// The limits of the balloon's rate, as `balloon_rate=MIN-MAX` on the command line names them
    /// in MiB per second.
    ///
    /// # Errors
    /// [`MachineError::BadBalloonRate`].
    pub(crate) fn balloon_rate(&self) -> Result<RateLimits, MachineError> {
        let asked = self.command_line.as_str().split_whitespace().find_map(|word| word.strip_prefix("balloon_rate="));
        asked.map_or(Ok(RateLimits::DEFAULT), RateLimits::parse).map_err(MachineError::BadBalloonRate)
    }

    /// Who drives the balloon: with `balloon=none` on the command line nobody in the kernel does.
    ///
    /// # Errors
    /// [`MachineError::UnknownDriver`].
    pub(crate) fn balloon_driver(&self) -> Result<BalloonDriver, MachineError> {
        let asked = self.command_line.as_str().split_whitespace().find_map(|word| word.strip_prefix("balloon="));
        match asked {
            None => Ok(BalloonDriver::Kernel),
            Some("none") => Ok(BalloonDriver::Application),
            Some(_) => Err(MachineError::UnknownDriver),
        }
    }

    /// The level that `log=` on the command line asks for.
    pub(crate) fn log_level(&self) -> LevelFilter {
        let asked = self.command_line.as_str().split_whitespace().find_map(|word| word.strip_prefix("log="));
        asked.and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::Info)
    }
}

/// Ranges of usable memory.
#[derive(Debug)]
pub(crate) struct MemoryMap {
    ranges: [Range<u64>; MAX_RANGES],
    count: usize,
}

impl MemoryMap {
    fn new(ranges: impl Iterator<Item = Range<u64>>) -> Result<Self, MachineError> {
        let mut map = Self { ranges: [const { 0..0 }; MAX_RANGES], count: 0 };
        // Memory in the hole for devices is left alone; a range may lie on both sides of it.
        let hole = layout::DEVICE_HOLE;
        let around_hole =
            |range: Range<u64>| [range.start..range.end.min(hole.start), range.start.max(hole.end)..range.end];
        for range in ranges.flat_map(around_hole) {
            let Some(start) = range.start.checked_next_multiple_of(FRAME_BYTES) else { continue };
            let whole = start..(range.end - range.end % FRAME_BYTES).min(layout::IDENTITY_END);
            if whole.is_empty() {
                continue;
            }
            *map.ranges.get_mut(map.count).ok_or(MachineError::BadMemoryMap)? = whole;
            map.count += 1;
        }
        let used = &mut map.ranges[..map.count];
        used.sort_unstable_by_key(|range| range.start);
        let overlaps = used.windows(2).any(|pair| pair[0].end > pair[1].start);
        if used.is_empty() || overlaps { Err(MachineError::BadMemoryMap) } else { Ok(map) }
    }

    fn total(&self) -> FrameCount {
        FrameCount(self.iter().map(|range| (range.end - range.start) / FRAME_BYTES).sum())
    }
}

impl core::ops::Deref for MemoryMap {
    type Target = [Range<u64>];

    fn deref(&self) -> &[Range<u64>] {
        &self.ranges[..self.count]
    }
}

/// A copy of the command line: the loader's own lies in memory that is not ours to keep.
#[derive(Debug)]
pub(crate) struct CommandLine {
    bytes: [u8; MAX_COMMAND_LINE],
    length: usize,
}

impl CommandLine {
    fn new(text: &[u8]) -> Result<Self, MachineError> {
        let mut bytes = [0; MAX_COMMAND_LINE];
        bytes.get_mut(..text.len()).ok_or(MachineError::BadCommandLine)?.copy_from_slice(text);
        core::str::from_utf8(text).map_err(|_| MachineError::BadCommandLine)?;
        Ok(Self { bytes, length: text.len() })
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// The words that are meant for the application: neither the kernel's own nor those with which
    /// loaders name devices.
    pub(crate) fn application_words(&self) -> impl Iterator<Item = &str> {
        let is_for_others = |word: &&str| {
            ["log=", "reclaim=", "compressed_swap=", "balloon=", "balloon_rate=", "virtio_mmio."]
                .iter()
                .any(|start| word.starts_with(start))
        };
        self.as_str().split_whitespace().filter(move |word| !is_for_others(word))
    }
}

/// The bytes of a size as command lines give it: a whole number with a unit, `K`, `M` or `G`
/// (1024-based).
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let (digits, unit) = units.iter().find_map(|&(letter, unit)| Some((text.strip_suffix(letter)?, unit)))?;
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::{BadRate, BalloonDriver, Machine, MachineError, RateLimits};
    use aerostat_abi::units::FrameCount;
    use log::LevelFilter;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ranges_are_sorted_and_cut_to_whole_frames() {
        let machine = Machine::new([4096 * MIB..5120 * MIB, 5..64 * MIB + 7].into_iter(), b"").unwrap();
        assert_eq!(&*machine.memory, &[4096..64 * MIB, 4096 * MIB..5120 * MIB]);
        assert_eq!(machine.total_frames(), FrameCount(FrameCount::from_mib(1088).0 - 1));
    }

    #[test]
    fn memory_in_the_device_hole_is_left_out() {
        let machine = Machine::new([0..3584 * MIB, 3840 * MIB..4100 * MIB].into_iter(), b"").unwrap();
        assert_eq!(&*machine.memory, &[0..3072 * MIB, 4096 * MIB..4100 * MIB]);
        let machine = Machine::new(core::iter::once(MIB..8192 * MIB), b"").unwrap();
        assert_eq!(&*machine.memory, &[MIB..3072 * MIB, 4096 * MIB..8192 * MIB], "a range on both sides");
        let machine = Machine::new([0..64 * MIB, 3500 * MIB..5000 * MIB].into_iter(), b"").unwrap();
        assert_eq!(&*machine.memory, &[0..64 * MIB, 4096 * MIB..5000 * MIB]);
    }

    #[test]
    fn useless_machines_are_refused() {
        let error = |ranges: Vec<std::ops::Range<u64>>| Machine::new(ranges.into_iter(), b"").unwrap_err();
        assert_eq!(error(vec![]), MachineError::BadMemoryMap);
        assert_eq!(error(vec![0..64 * MIB, 32 * MIB..96 * MIB]), MachineError::BadMemoryMap);
        assert_eq!(error(vec![0..MIB, 2 * MIB..8 * MIB]), MachineError::TooSmall);
        assert_eq!(error((0..20).map(|n| n * MIB..n * MIB + 4096).collect()), MachineError::BadMemoryMap);
    }

    #[test]
    fn the_application_gets_its_own_words_only() {
        let line = b" phases=64M:3s  log=debug reclaim=clock compressed_swap=8M balloon=none balloon_rate=1-2 virtio_mmio.device=512@0xfeb00000:5 catalog=1 ";
        let machine = Machine::new(core::iter::once(0..64 * MIB), line).unwrap();
        assert_eq!(machine.command_line.application_words().collect::<Vec<_>>(), ["phases=64M:3s", "catalog=1"]);
    }

    #[test]
    fn the_command_line_allows_compressed_swap() {
        let swap = |text: &[u8]| Machine::new(core::iter::once(0..64 * MIB), text).unwrap().compressed_swap();
        assert_eq!(swap(b"repeat"), Ok(FrameCount::ZERO));
        assert_eq!(swap(b"a compressed_swap=64M b"), Ok(FrameCount::from_mib(64)));
        assert_eq!(swap(b"compressed_swap=6K"), Ok(FrameCount(1)));
        for wrong in [&b"compressed_swap="[..], b"compressed_swap=64", b"compressed_swap=-1M", b"compressed_swap=2000G"]
        {
            assert_eq!(swap(wrong), Err(MachineError::BadSwapSize));
        }
    }

    #[test]
    fn the_command_line_limits_the_balloon() {
        let rate = |text: &[u8]| Machine::new(core::iter::once(0..64 * MIB), text).unwrap().balloon_rate();
        assert_eq!(rate(b"repeat"), Ok(RateLimits::DEFAULT));
        assert_eq!(rate(b"a balloon_rate=10-100 b"), Ok(RateLimits::parse("10-100").unwrap()));
        assert_eq!(rate(b"balloon_rate=100-10"), Err(MachineError::BadBalloonRate(BadRate)));
    }

    #[test]
    fn the_command_line_says_who_drives_the_balloon() {
        let driver = |text: &[u8]| Machine::new(core::iter::once(0..64 * MIB), text).unwrap().balloon_driver();
        assert_eq!(driver(b"balloon balloon_rate=1-2"), Ok(BalloonDriver::Kernel));
        assert_eq!(driver(b"a balloon=none b"), Ok(BalloonDriver::Application));
        for wrong in [&b"balloon="[..], b"balloon=application", b"balloon=None"] {
            assert_eq!(driver(wrong), Err(MachineError::UnknownDriver));
        }
    }

    #[test]
    fn the_command_line_chooses_the_log_level() {
        let level = |text: &[u8]| Machine::new(core::iter::once(0..64 * MIB), text).map(|machine| machine.log_level());
        assert_eq!(level(b"a log=debug b"), Ok(LevelFilter::Debug));
        assert_eq!(level(b"log=loud"), Ok(LevelFilter::Info));
        assert_eq!(level(b"\xff"), Err(MachineError::BadCommandLine));
        assert_eq!(level(&[b'x'; 4096]), Err(MachineError::BadCommandLine));
    }
}
