//! Addresses of registers on a PCI bus. Firmware has chosen them, mostly. Where it has not, or
//! where the address is beyond what the kernel maps, this module chooses another one in the device
//! hole.

use core::fmt;
use core::ops::Range;

use allocator_api2::vec::Vec;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, MemoryBarType, PciRoot,
};

use super::scan::Function;
use crate::layout::{BAR_WINDOW, DEVICE_HOLE, IO_APIC};
use crate::mm::KernelHeap;

/// Why registers can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadBar {
    /// The device has no memory where its capabilities say so, or too little.
    Missing,
    /// They have no address below 4 GiB, and a bridge would not pass on another one.
    BehindBridge,
    /// There is no free address, or the device does not take it.
    NoAddress,
}

impl fmt::Display for BadBar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it does not have the registers that its capabilities name",
            Self::BehindBridge => "it is behind a bridge, and firmware has given its registers no address below 4 GiB",
            Self::NoAddress => "there is no address below 4 GiB for its registers",
        })
    }
}

/// The addresses of a bus that are in use: those of all functions, and others.
#[derive(Debug)]
pub(super) struct Addresses {
    ranges: Vec<Range<u64>, KernelHeap>,
}

impl Addresses {
    /// Reads the addresses of all functions.
    pub(super) fn new<C: ConfigurationAccess>(
        root: &mut PciRoot<C>,
        functions: &[Function],
        others: impl Iterator<Item = Range<u64>>,
    ) -> Self {
        let mut ranges = Vec::new_in(KernelHeap);
        ranges.extend(others);
        for Function { at, is_bridge, .. } in functions {
            let registers = if *is_bridge { 2 } else { 6 };
            let mut index = 0;
            while index < registers {
                let bar = root.bar_info(*at, index).ok().flatten();
                if let Some((address, size)) = bar.as_ref().and_then(BarInfo::memory_address_size) {
                    ranges.push(address..address.saturating_add(size));
                }
                index += if bar.is_some_and(|bar| bar.takes_two_entries()) { 2 } else { 1 };
            }
        }
        Self { ranges }
    }

    /// Takes `size` free bytes, a power of two, at a multiple of `size`.
    fn take(&mut self, size: u64) -> Option<u64> {
        let mut start = BAR_WINDOW.start;
        loop {
            let place = start.checked_next_multiple_of(size)?;
            let end = place.checked_add(size).filter(|end| *end <= BAR_WINDOW.end)?;
            match self.ranges.iter().find(|used| used.start < end && place < used.end) {
                Some(used) => start = used.end,
                None => {
                    self.ranges.push(place..end);
                    return Some(place);
                }
            }
        }
    }
}

/// Returns whether the kernel can map memory of a function where it is.
pub(super) fn is_reachable(memory: &Range<u64>) -> bool {
    memory.start >= DEVICE_HOLE.start && memory.end <= IO_APIC
}

/// Moves a function's memory to where the kernel can map it, and returns where that is.
///
/// # Errors
/// [`BadBar`].
pub(super) fn relocate<C: ConfigurationAccess>(
    root: &mut PciRoot<C>,
    at: DeviceFunction,
    bar: u8,
    addresses: &mut Addresses,
) -> Result<Range<u64>, BadBar> {
    if at.bus != 0 {
        return Err(BadBar::BehindBridge);
    }
    let (range, kind) = memory(root, at, bar)?;
    let address = addresses.take(range.end - range.start).ok_or(BadBar::NoAddress)?;
    let (_, command) = root.get_status_command(at);
    root.set_command(at, command - (Command::IO_SPACE | Command::MEMORY_SPACE));
    match kind {
        MemoryBarType::Width64 => root.set_bar_64(at, bar, address),
        _ => root.set_bar_32(at, bar, u32::try_from(address).map_err(|_| BadBar::NoAddress)?),
    }
    root.set_command(at, command);
    let (moved, _) = memory(root, at, bar)?;
    if moved.start == address { Ok(moved) } else { Err(BadBar::NoAddress) }
}

/// Returns where a function's memory is, from its beginning to its end; zero is no address.
///
/// # Errors
/// [`BadBar::Missing`] if the function has no such memory.
pub(super) fn memory<C: ConfigurationAccess>(
    root: &mut PciRoot<C>,
    at: DeviceFunction,
    bar: u8,
) -> Result<(Range<u64>, MemoryBarType), BadBar> {
    match root.bar_info(at, bar) {
        Ok(Some(BarInfo::Memory { address, size, address_type, .. })) if size.is_power_of_two() => {
            Ok((address..address.checked_add(size).ok_or(BadBar::Missing)?, address_type))
        }
        _ => Err(BadBar::Missing),
    }
}

#[cfg(test)]
mod tests {
    use virtio_drivers::transport::pci::bus::PciRoot;

    use super::super::scan::functions;
    use super::super::testing::{FakeBus, at};
    use super::{Addresses, BadBar, is_reachable, memory, relocate};

    const WIDTH_32: u32 = 0;
    const WIDTH_64: u32 = 0b100;

    fn bus() -> FakeBus {
        let mut bus = FakeBus::default();
        bus.add(at(0, 1, 0), 0x1af4, 0x1042);
        bus.add_memory(at(0, 1, 0), 1, WIDTH_32, 0x1000, 0xfebc_0000);
        bus.add_memory(at(0, 1, 0), 4, WIDTH_64, 0x4000, 1 << 40);
        bus.add(at(0, 2, 0), 0x1af4, 0x1042);
        bus.add_memory(at(0, 2, 0), 4, WIDTH_64, 0x4000, 0);
        bus.add(at(0, 3, 0), 0x1234, 0x1111);
        bus.add_memory(at(0, 3, 0), 0, WIDTH_32, 0x10_0000, 0xc010_0000);
        bus
    }

    #[test]
    fn memory_that_the_kernel_cannot_map_is_moved_to_free_addresses() {
        let bus = bus();
        let functions = functions(&bus);
        let mut root = PciRoot::new(bus);
        let mut addresses = Addresses::new(&mut root, &functions, core::iter::once(0xc000_0000..0xc000_1000));
        assert!(is_reachable(&memory(&mut root, at(0, 1, 0), 1).unwrap().0));
        for (device, expected) in [(1, 0xc000_4000), (2, 0xc000_8000)] {
            let function = at(0, device, 0);
            assert!(!is_reachable(&memory(&mut root, function, 4).unwrap().0));
            let moved = relocate(&mut root, function, 4, &mut addresses).unwrap();
            assert_eq!(moved, expected..expected + 0x4000);
            assert_eq!(memory(&mut root, function, 4).unwrap().0, moved);
            assert!(is_reachable(&moved));
        }
    }

    #[test]
    fn addresses_are_given_out_once_and_end() {
        let mut addresses = Addresses { ranges: allocator_api2::vec::Vec::new_in(crate::mm::KernelHeap) };
        addresses.ranges.push(0xc100_0000..0xc100_0001);
        assert_eq!(addresses.take(0x100_0000), Some(0xc000_0000));
        assert_eq!(addresses.take(0x100_0000), Some(0xc200_0000), "behind what is in use");
        assert_eq!(addresses.take(0x1000_0000), Some(0xd000_0000));
        assert_eq!(addresses.take(0x1000_0000), None, "beyond the window");
        assert_eq!(addresses.take(1 << 63), None);
    }

    #[test]
    fn memory_that_is_not_there_or_behind_a_bridge_is_refused() {
        let mut bus = bus();
        bus.add(at(1, 0, 0), 0x1af4, 0x1042);
        bus.add_memory(at(1, 0, 0), 4, WIDTH_64, 0x4000, 0);
        let mut root = PciRoot::new(bus);
        let mut addresses = Addresses::new(&mut root, &[], core::iter::empty());
        assert_eq!(memory(&mut root, at(0, 2, 0), 1).map(drop), Err(BadBar::Missing));
        assert_eq!(memory(&mut root, at(0, 9, 0), 1).map(drop), Err(BadBar::Missing));
        assert_eq!(relocate(&mut root, at(1, 0, 0), 4, &mut addresses), Err(BadBar::BehindBridge));
    }
}
