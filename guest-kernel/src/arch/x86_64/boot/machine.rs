//! The machine that the kernel runs on: the facts that the loader left, read once, validated, then
//! trusted.

use core::fmt;
use core::ops::Range;

use aerostat_abi::units::FrameCount;

use super::devices::{BadVirtioDevice, DeviceSources, PciSearch, VirtioDescriptions};
use super::interrupt_controllers::InterruptControllers;
use super::memory_map::MemoryMap;
use crate::arch::x86_64::power::PowerRegisters;
use crate::command_line::{BadCommandLine, CommandLine};
use crate::layout;

/// The smallest machine that the kernel boots on.
const MIN_MEMORY: FrameCount = FrameCount::from_mib(16);

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Usable memory.
    pub(crate) memory: MemoryMap,
    /// The command line.
    pub(crate) command_line: CommandLine,
    /// Rate of the time stamp counter, if the monitor tells it.
    pub(crate) tsc_hz: Option<u64>,
    /// I/O port of the serial device, if the loader names it.
    pub(crate) serial_port: Option<u16>,
    /// Whether memory that nothing has written to reads as zero: our own monitor hands it over so,
    /// while firmware may have used it.
    pub(crate) is_memory_zeroed: bool,
    /// Whether the monitor announces the balloon port.
    pub(crate) has_balloon_port: bool,
    /// How the machine is powered off.
    pub(crate) power: PowerRegisters,
    /// Where devices are, as the loader describes it.
    pub(crate) devices: DeviceSources,
}

/// Why a machine can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MachineError {
    /// The boot information is not where it should be, or not what it should be.
    BadBootInformation,
    /// The memory map is empty or overlaps itself.
    BadMemoryMap,
    /// There is too little memory in one piece behind the image.
    TooSmall,
    /// The command line is too long or not UTF-8.
    BadCommandLine,
    /// The description of a virtio device is incomplete, or there is one too many.
    BadVirtioDevice(BadVirtioDevice),
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadBootInformation => "the boot information is unreadable",
            Self::BadMemoryMap => "the memory map is empty or overlaps itself",
            Self::TooSmall => "there is too little memory behind the kernel image (at least 16 MiB are needed)",
            Self::BadCommandLine => "the command line is longer than 2047 bytes or not UTF-8",
            Self::BadVirtioDevice(error) => return error.fmt(f),
        })
    }
}

impl From<BadCommandLine> for MachineError {
    fn from(BadCommandLine: BadCommandLine) -> Self {
        Self::BadCommandLine
    }
}

impl From<BadVirtioDevice> for MachineError {
    fn from(error: BadVirtioDevice) -> Self {
        Self::BadVirtioDevice(error)
    }
}

impl Machine {
    /// Returns a machine with this memory and command line, of which nothing else is known.
    ///
    /// # Errors
    /// When either can't be used.
    pub(super) fn new(ranges: impl Iterator<Item = Range<u64>>, command_line: &[u8]) -> Result<Self, MachineError> {
        let mut memory_in_device_hole = layout::DEVICE_HOLE.start..layout::DEVICE_HOLE.start;
        let memory = MemoryMap::new(ranges.inspect(|range| {
            if range.start < layout::DEVICE_HOLE.end && range.end > memory_in_device_hole.end {
                memory_in_device_hole.end = range.end.min(layout::DEVICE_HOLE.end);
            }
        }))?;
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
            power: PowerRegisters::default(),
            devices: DeviceSources {
                controllers: InterruptControllers::default(),
                mmio: VirtioDescriptions::new("none described"),
                pci: PciSearch::Without("this machine has none"),
                memory_in_device_hole,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, MachineError};
    use aerostat_abi::units::FrameCount;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ranges_are_sorted_and_cut_to_whole_frames() {
        let machine = Machine::new([4096 * MIB..5120 * MIB, 5..64 * MIB + 7].into_iter(), b"").unwrap();
        assert_eq!(&*machine.memory, &[4096..64 * MIB, 4096 * MIB..5120 * MIB]);
        assert_eq!(machine.memory.total(), FrameCount(FrameCount::from_mib(1088).0 - 1));
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
    }

    #[test]
    fn of_too_many_ranges_the_largest_are_used() {
        let small = (0..40).map(|n| (200 + n) * MIB..(200 + n) * MIB + 4096 * (n + 1));
        let machine = Machine::new(small.chain(core::iter::once(0..64 * MIB)), b"").unwrap();
        assert_eq!(machine.memory.len(), 16);
        assert_eq!(machine.memory[0], 0..64 * MIB);
        assert_eq!(machine.memory[1], 225 * MIB..225 * MIB + 4096 * 26);
        assert_eq!(machine.memory[15], 239 * MIB..239 * MIB + 4096 * 40);
    }

    #[test]
    fn a_command_line_that_cannot_be_kept_is_refused() {
        let error = |text: &[u8]| Machine::new(core::iter::once(0..64 * MIB), text).unwrap_err();
        assert_eq!(error(b"\xff"), MachineError::BadCommandLine);
        assert_eq!(error(&[b'x'; 4096]), MachineError::BadCommandLine);
    }
}
