//! Finds the machine's virtio devices: where boot information or the command line say that some
//! are, and on the PCI bus.
#![allow(unsafe_code, reason = "the one place that opens transports, each once")]

use core::fmt;
use core::ops::Range;

use allocator_api2::vec::Vec;
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};

use super::device::{Interrupt, Place, VirtioDevice};
use super::interrupts::DeviceNumber;
use super::mmio;
use super::pci::open::{CommonRegisters, Opened};
use super::pci::{Bus, ConfigSpace};
use crate::arch::x86_64::boot::devices::{self, DeviceSources, PciSearch, VirtioDescription};
use crate::arch::x86_64::boot::interrupt_controllers::{InterruptControllers, Pin};
use crate::arch::x86_64::interrupt::InterruptLine;
use crate::config::MAX_VIRTIO_DEVICES;
use crate::mm::KernelHeap;

/// The drivers of the kernel, as the finder sees them.
pub(in super::super) trait Drivers {
    /// Returns whether there is a driver for devices of this kind.
    fn drive(&self, kind: DeviceType) -> bool;
    /// Starts the driver of a device of such a kind.
    fn start(&mut self, device: VirtioDevice);
}

/// Passes each device that has a driver to it, those over MMIO first, and logs where devices were
/// looked for. Called once.
pub(in super::super) fn find(sources: &DeviceSources, drivers: &mut dyn Drivers) {
    let mut finder = Finder { drivers, lines: Lines::default(), controllers: &sources.controllers };
    let mmio = sources.mmio.iter().filter(|description| finder.try_mmio(description)).count();
    let pci = finder.search_pci(sources);
    log::debug!("devices: {mmio} virtio over MMIO ({}), {pci}", sources.mmio.origin());
}

struct Finder<'a> {
    drivers: &'a mut dyn Drivers,
    lines: Lines,
    controllers: &'a InterruptControllers,
}

/// What a search of the PCI bus has found.
enum PciResult {
    Found { count: usize, access: &'static str },
    NotSearched(&'static str),
}

impl fmt::Display for PciResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { count, access } => write!(f, "{count} over PCI ({access})"),
            Self::NotSearched(why) => write!(f, "none over PCI ({why})"),
        }
    }
}

impl Finder<'_> {
    /// Opens the device over MMIO, and passes it on. Returns whether there is one.
    fn try_mmio(&mut self, description: &VirtioDescription) -> bool {
        let place = Place::Mmio(description.registers);
        // SAFETY: this is the one place that opens transports, and runs once for each description.
        match unsafe { mmio::open(description) } {
            Ok(None) => return false,
            Ok(Some(transport)) if !self.drivers.drive(transport.device_type()) => {
                no_driver(Some(transport.device_type()), place);
            }
            Ok(Some(transport)) => {
                let (interrupt, line) = match description.interrupt {
                    devices::Interrupt::Message(vector) => {
                        let line = InterruptLine::of_device_vector(vector);
                        (Interrupt::Message, LineSource::Fixed(line))
                    }
                    devices::Interrupt::Pin(number) => self.of_pin(self.controllers.pin(number.into()), Interrupt::Pin),
                };
                self.pass_on(Device { place, transport: transport.into(), interrupt, registers: None }, &line);
            }
            Err(error) => log::warn!("virtio device over {place} is not used: {error}"),
        }
        true
    }

    fn search_pci(&mut self, sources: &DeviceSources) -> PciResult {
        let memory = match sources.pci {
            PciSearch::Without(why) => return PciResult::NotSearched(why),
            PciSearch::With(memory) => memory,
        };
        let Some(config) = ConfigSpace::find(memory) else { return PciResult::NotSearched("no bus") };
        let mut others = Vec::<Range<u64>, _>::new_in(KernelHeap);
        others
            .extend(sources.mmio.iter().map(|device| device.registers..device.registers.saturating_add(device.bytes)));
        others.extend(memory.map(|ecam| ecam.range()));
        others.push(sources.memory_in_device_hole.clone());
        let mut bus = Bus::scan(config, &others);
        let mut found = Vec::<_, _>::new_in(KernelHeap);
        found.extend(bus.virtio_devices());
        for (at, kind) in &found {
            let place = Place::Pci(*at);
            if !kind.is_some_and(|kind| self.drivers.drive(kind)) {
                no_driver(*kind, place);
                continue;
            }
            // SAFETY: as above, for each function of the bus.
            match unsafe { bus.open(*at) } {
                Ok(Opened { transport, registers, msi_x, pin }) => {
                    let (interrupt, line) = match msi_x {
                        Some(messages) => (Interrupt::MsiX(messages), LineSource::Own),
                        None => {
                            let pin = pin.and_then(|line| self.controllers.pin(self.controllers.of_line(line)));
                            self.of_pin(pin, Interrupt::SharedPin)
                        }
                    };
                    let (transport, registers) = (transport.into(), Some(registers));
                    self.pass_on(Device { place, transport, interrupt, registers }, &line);
                }
                Err(error) => log::warn!("virtio device over {place} is not used: {error}"),
            }
        }
        PciResult::Found { count: found.len(), access: bus.access() }
    }

    /// Returns how a device interrupts through a pin.
    fn of_pin(&self, pin: Option<Pin>, interrupt: fn(Pin) -> Interrupt) -> (Interrupt, LineSource) {
        match pin {
            Some(pin) => (interrupt(pin), LineSource::Pin(pin)),
            None => (Interrupt::Unknown, LineSource::Own),
        }
    }

    fn pass_on(&mut self, device: Device, line: &LineSource) {
        let Device { place, transport, interrupt, registers } = device;
        let Some((number, line)) = self.lines.assign(line) else {
            log::warn!(
                "virtio device over {place} is not used: its interrupt can't be, or {MAX_VIRTIO_DEVICES} others are"
            );
            return;
        };
        let doorbells = [None; _];
        self.drivers.start(VirtioDevice { number, place, transport, interrupt, line, registers, doorbells });
    }
}

/// A device that has no number and no interrupt line yet.
struct Device {
    place: Place,
    transport: SomeTransport<'static>,
    interrupt: Interrupt,
    registers: Option<CommonRegisters>,
}

fn no_driver(kind: Option<DeviceType>, place: Place) {
    match kind {
        Some(kind) => log::info!("virtio {kind:?} device over {place} is not used: the kernel has no driver for it"),
        None => log::info!("virtio device over {place} is not used: the kernel does not know its kind"),
    }
}

/// Where a device's interrupt line comes from.
enum LineSource {
    /// The line of its number.
    Own,
    /// That of a pin, which devices may share.
    Pin(Pin),
    /// This one.
    Fixed(Option<InterruptLine>),
}

/// The numbers and lines that devices have.
#[derive(Default)]
struct Lines {
    count: u8,
    pins: [Option<(Pin, InterruptLine)>; MAX_VIRTIO_DEVICES],
}

impl Lines {
    fn assign(&mut self, source: &LineSource) -> Option<(DeviceNumber, InterruptLine)> {
        let own = InterruptLine::device(self.count)?;
        let line = match *source {
            LineSource::Own => own,
            LineSource::Fixed(line) => line?,
            LineSource::Pin(pin) => match self.pins.iter().flatten().find(|(known, _)| *known == pin) {
                Some((_, line)) => *line,
                None => self.pins.iter_mut().find(|place| place.is_none())?.insert((pin, own)).1,
            },
        };
        let number = DeviceNumber(self.count);
        self.count += 1;
        Some((number, line))
    }
}
