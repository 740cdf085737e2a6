//! Opens virtio devices on a PCI bus.
#![allow(unsafe_code, reason = "memory-mapped registers")]

use core::fmt;
use core::ops::Range;

use aerostat_abi::units::{HUGE_BYTES, to_usize};
use allocator_api2::vec::Vec;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{
    Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, HeaderType, PciRoot,
};
use virtio_drivers::transport::pci::{PciTransport, VIRTIO_VENDOR_ID, VirtioPciError, virtio_device_type};

use super::super::hal::KernelHal;
use super::super::mmio;
use super::bars::{self, Addresses, BadBar};
use super::capabilities::{BadCapabilities, Capabilities, Structure};
use super::config_space::ConfigSpace;
use super::msi_x::MsiX;
use super::scan::{self, Function};
use crate::mm::{self, KernelHeap};
use crate::patience::Patience;
use crate::time::Instant;

/// How long a device may take to reset itself.
const RESET_PATIENCE_NS: u64 = 1_000_000_000;

/// The word of the configuration space with the interrupt's pin and the line that firmware chose.
const INTERRUPT: u8 = 0x3c;
/// What firmware writes where a line is not known.
const NO_LINE: u8 = 0xff;

/// Fields of the common structure (virtio 1.2, 4.1.4.3).
const CONFIG_VECTOR: u64 = 16;
const STATUS: u64 = 20;
const QUEUE_SELECT: u64 = 22;
const QUEUE_VECTOR: u64 = 26;
const QUEUE_NOTIFY_OFFSET: u64 = 30;

/// Why a device on a PCI bus can't be used.
#[derive(Debug)]
pub(in super::super) enum OpenError {
    Capabilities(BadCapabilities),
    Registers(BadBar),
    /// Its registers do not do what they should.
    Silent,
    Transport(VirtioPciError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capabilities(error) => error.fmt(f),
            Self::Registers(error) => error.fmt(f),
            Self::Silent => f.write_str("it does not finish a reset"),
            Self::Transport(error) => error.fmt(f),
        }
    }
}

impl From<BadCapabilities> for OpenError {
    fn from(error: BadCapabilities) -> Self {
        Self::Capabilities(error)
    }
}

impl From<BadBar> for OpenError {
    fn from(error: BadBar) -> Self {
        Self::Registers(error)
    }
}

/// A PCI bus, with the buses behind its bridges. It is used while the kernel starts.
pub(in super::super) struct Bus<'a> {
    config: ConfigSpace,
    root: PciRoot<ConfigSpace>,
    functions: Vec<Function, KernelHeap>,
    /// What else lies in the device hole.
    others: &'a [Range<u64>],
    /// Read when the first address has to be chosen.
    addresses: Option<Addresses>,
}

/// Where a function's memory is, by the numbers of its base address registers, as far as it is
/// known. To find that out is slow: the function does not answer meanwhile.
type Bars = [Option<Range<u64>>; 6];

/// A device whose registers are at hand.
pub(in super::super) struct Opened {
    pub(in super::super) transport: PciTransport,
    pub(in super::super) registers: CommonRegisters,
    pub(in super::super) msi_x: Option<MsiX>,
    /// The pin of the I/O APIC, as far as firmware knows it.
    pub(in super::super) pin: Option<u8>,
}

impl<'a> Bus<'a> {
    /// Scans the bus. `others` are addresses in the device hole that are in use.
    pub(in super::super) fn scan(config: ConfigSpace, others: &'a [Range<u64>]) -> Self {
        let functions = scan::functions(&config);
        Self { config, root: PciRoot::new(config), functions, others, addresses: None }
    }

    /// Returns how the bus is accessed.
    pub(in super::super) fn access(&self) -> &'static str {
        self.config.name()
    }

    /// Returns the virtio devices in the order of their places, each with its kind, unless that is
    /// unknown.
    pub(in super::super) fn virtio_devices(&self) -> impl Iterator<Item = (DeviceFunction, Option<DeviceType>)> {
        let virtio = self.functions.iter().filter(|function| function.vendor == VIRTIO_VENDOR_ID);
        virtio.map(|function| (function.at, kind(function)))
    }

    /// Opens the transport to a device.
    ///
    /// # Safety
    /// There is no other transport to the device.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(in super::super) unsafe fn open(&mut self, at: DeviceFunction) -> Result<Opened, OpenError> {
        let capabilities = Capabilities::read(&self.config, at)?;
        let mut bars = Bars::default();
        let msi_x = capabilities.msi_x;
        let msi_x = msi_x.and_then(|msi_x| Some((msi_x.offset, self.map(at, &mut bars, &msi_x.table).ok()?.start)));
        for structure in capabilities.structures() {
            self.map(at, &mut bars, &structure)?;
        }
        let registers = CommonRegisters {
            common: self.map(at, &mut bars, &capabilities.common)?.start,
            notify: self.map(at, &mut bars, &capabilities.notify)?,
            notify_multiplier: capabilities.notify_multiplier,
        };
        let (_, command) = self.root.get_status_command(at);
        let command = command | Command::MEMORY_SPACE | Command::BUS_MASTER;
        self.root.set_command(at, command - Command::INTERRUPT_DISABLE);
        // The transport waits for a reset without an end when it is dropped.
        registers.reset().ok_or(OpenError::Silent)?;
        let transport = PciTransport::new::<KernelHal, _>(&mut self.root, at).map_err(OpenError::Transport)?;
        let msi_x = msi_x.map(|(offset, table)| MsiX { config: self.config, function: at, offset, table });
        Ok(Opened { transport, registers, msi_x, pin: self.pin(at) })
    }

    /// Maps the registers of a structure, and returns their addresses.
    fn map(&mut self, at: DeviceFunction, bars: &mut Bars, structure: &Structure) -> Result<Range<u64>, BadBar> {
        let Structure { bar, offset, bytes } = *structure;
        let place = bars.get_mut(usize::from(bar)).ok_or(BadBar::Missing)?;
        let memory = match place {
            Some(memory) => memory,
            None => place.insert(self.reach(at, bar)?),
        };
        let start = memory.start + u64::from(offset);
        let registers = start..start + u64::from(bytes);
        if registers.end > memory.end {
            return Err(BadBar::Missing);
        }
        let first = registers.start - registers.start % HUGE_BYTES;
        (first..registers.end).step_by(to_usize(HUGE_BYTES)).for_each(mm::map_registers);
        Ok(registers)
    }

    /// Returns where a function's memory is, after it has been moved to where it can be mapped if
    /// it was not there.
    fn reach(&mut self, at: DeviceFunction, bar: u8) -> Result<Range<u64>, BadBar> {
        let (memory, _) = bars::memory(&mut self.root, at, bar)?;
        if bars::is_reachable(&memory) {
            return Ok(memory);
        }
        let addresses = self.addresses.get_or_insert_with(|| {
            let windows = self.functions.iter().flat_map(|function| function.windows(&self.config));
            Addresses::new(&mut self.root, &self.functions, self.others.iter().cloned().chain(windows))
        });
        bars::relocate(&mut self.root, at, bar, addresses)
    }

    /// Returns the pin of the I/O APIC through which a device interrupts: firmware notes the line
    /// of the old interrupt controllers, and machines connect it to the pin with the same number.
    fn pin(&self, at: DeviceFunction) -> Option<u8> {
        let [line, pin, ..] = self.config.read_word(at, INTERRUPT).to_le_bytes();
        (pin != 0 && line != 0 && line != NO_LINE).then_some(line)
    }
}

fn kind(function: &Function) -> Option<DeviceType> {
    virtio_device_type(&DeviceFunctionInfo {
        vendor_id: function.vendor,
        device_id: function.device,
        class: 0,
        subclass: 0,
        prog_if: 0,
        revision: 0,
        header_type: HeaderType::Standard,
    })
}

/// The registers that are common to all virtio devices on a PCI bus, as far as the crate's
/// transport does not handle them. They are mapped.
#[derive(Debug)]
pub(in super::super) struct CommonRegisters {
    common: u64,
    notify: Range<u64>,
    notify_multiplier: u32,
}

impl CommonRegisters {
    /// Lets the configuration and the first `queues` queues interrupt by the message in this entry
    /// of the device's table. Returns whether the device has taken that.
    pub(super) fn direct_interrupts(&self, entry: u16, queues: u16) -> bool {
        self.write(CONFIG_VECTOR, entry);
        let mut is_taken = self.read::<u16>(CONFIG_VECTOR) == entry;
        for queue in 0..queues {
            self.write(QUEUE_SELECT, queue);
            self.write(QUEUE_VECTOR, entry);
            is_taken &= self.read::<u16>(QUEUE_VECTOR) == entry;
        }
        is_taken
    }

    /// Returns the address to which the number of a queue is written to notify the device; `None`
    /// if that lies outside of the registers.
    pub(in super::super) fn doorbell(&self, queue: u16) -> Option<u64> {
        self.write(QUEUE_SELECT, queue);
        let offset = u64::from(self.read::<u16>(QUEUE_NOTIFY_OFFSET)) * u64::from(self.notify_multiplier);
        let address = self.notify.start.checked_add(offset)?;
        (address + 2 <= self.notify.end && address.is_multiple_of(2)).then_some(address)
    }

    fn reset(&self) -> Option<()> {
        self.write(STATUS, 0_u8);
        let mut patience = Patience::new(RESET_PATIENCE_NS);
        while self.read::<u8>(STATUS) != 0 {
            patience.charge(Instant::now())?;
            core::hint::spin_loop();
        }
        Some(())
    }

    fn read<T: Copy>(&self, field: u64) -> T {
        // SAFETY: the structure is mapped, and these fields lie in it; reading them has no effect.
        unsafe { mmio::read(self.common + field) }
    }

    fn write<T: Copy>(&self, field: u64, value: T) {
        // SAFETY: as in `read`; these fields do not make a device write to memory.
        unsafe { mmio::write(self.common + field, value) };
    }
}
