//! A virtio device that is ready for its driver.
//!
//! A driver takes these steps: [`VirtioDevice::negotiate`], its queues, [`VirtioDevice::listen`],
//! [`VirtioDevice::finish`]. Then it may notify the device, and is told of its interrupts.
#![allow(unsafe_code, reason = "memory-mapped registers")]

use core::fmt;

use virtio_drivers::transport::pci::bus::DeviceFunction;
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};

use super::interrupts::{Acknowledgement, DeviceHandler, DeviceNumber, Listeners};
use super::mmio;
use super::negotiation::{self, NegotiationError};
use super::pci::msi_x::MsiX;
use super::pci::open::CommonRegisters;
use crate::arch::x86_64::boot::interrupt_controllers::Pin;
use crate::arch::x86_64::interrupt::{InterruptLine, LineInUse};
use crate::arch::x86_64::{cpu, trap};
use crate::drivers::io_apic;

/// The most queues of a device that are notified directly.
const MAX_QUEUES: usize = 8;

static LISTENERS: Listeners = Listeners::new();

/// The transport to a device.
pub(crate) type VirtioTransport = SomeTransport<'static>;

/// A device that no driver uses yet, or the connection of a driver to its device. The device is
/// reset when the value is dropped.
pub(crate) struct VirtioDevice {
    pub(super) number: DeviceNumber,
    pub(super) place: Place,
    pub(super) transport: VirtioTransport,
    pub(super) interrupt: Interrupt,
    pub(super) line: InterruptLine,
    /// The registers that the transport does not handle; `None` over MMIO.
    pub(super) registers: Option<CommonRegisters>,
    /// Where each queue is notified, if that is known.
    pub(super) doorbells: [Option<u64>; MAX_QUEUES],
}

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At this address.
    Mmio(u64),
    /// On a PCI bus.
    Pci(DeviceFunction),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mmio(address) => write!(f, "MMIO at {address:#x}"),
            Self::Pci(function) => write!(f, "PCI at {function}"),
        }
    }
}

/// How a device interrupts.
#[derive(Debug)]
pub(super) enum Interrupt {
    /// By a message that raises its line's vector, without being told to.
    Message,
    /// By a message that it is told.
    MsiX(MsiX),
    /// Through a pin of an I/O APIC that is its own.
    Pin(Pin),
    /// Through a pin that firmware has named in terms of another interrupt controller, and that it
    /// may share.
    SharedPin(Pin),
    /// In a way that is not known.
    Unknown,
}

/// The error of a device with an interrupt line that is in use for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedInterrupt;

impl fmt::Display for SharedInterrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it has the interrupt of another device")
    }
}

impl VirtioDevice {
    /// Returns the number of the device, which its handler is called with.
    pub(crate) fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Returns the name of the device.
    pub(crate) fn name(&self) -> DeviceName {
        DeviceName { kind: self.kind(), place: self.place }
    }

    /// Returns what the device is.
    pub(crate) fn kind(&self) -> DeviceType {
        self.transport.device_type()
    }

    /// Returns the transport, to read from the device.
    pub(crate) fn transport(&self) -> &VirtioTransport {
        &self.transport
    }

    /// Returns the transport, to make queues and to write to the device's configuration.
    pub(crate) fn transport_mut(&mut self) -> &mut VirtioTransport {
        &mut self.transport
    }

    /// Resets the device and agrees on features with it: those of `wanted` that it offers, and
    /// `VIRTIO_F_VERSION_1`, which are returned.
    ///
    /// # Errors
    /// [`NegotiationError`].
    pub(crate) fn negotiate(&mut self, wanted: u64) -> Result<u64, NegotiationError> {
        negotiation::negotiate(&mut self.transport, wanted)
    }

    /// Lets the device interrupt for its first `queues` queues and for its configuration, and calls
    /// `handler` then. To be called when the queues are made, and after every later
    /// [`Self::negotiate`], as a reset undoes it.
    ///
    /// # Errors
    /// [`SharedInterrupt`].
    pub(crate) fn listen(&mut self, queues: u16, handler: DeviceHandler) -> Result<(), SharedInterrupt> {
        LISTENERS.add(self.number, self.line, handler);
        match trap::register_interrupt(self.line, |line| LISTENERS.call(line)) {
            // The other devices of a shared pin have registered the same.
            Err(LineInUse) if matches!(self.interrupt, Interrupt::Message) => return Err(SharedInterrupt),
            Ok(()) | Err(LineInUse) => {}
        }
        if let (Interrupt::MsiX(messages), Some(registers)) = (&mut self.interrupt, &self.registers)
            && !messages.enable(registers, self.line.vector(), queues)
        {
            log::warn!("{}: it takes no interrupt vector; its driver polls while it waits", self.name());
            self.interrupt = Interrupt::Unknown;
        }
        if let Interrupt::Pin(pin) | Interrupt::SharedPin(pin) = self.interrupt {
            io_apic::route(pin, self.line.vector());
        }
        if let Some(registers) = &self.registers {
            for (queue, doorbell) in (0..queues).zip(&mut self.doorbells) {
                *doorbell = registers.doorbell(queue);
            }
        }
        Ok(())
    }

    /// Tells the device that its driver is ready.
    pub(crate) fn finish(&mut self) {
        negotiation::finish(&mut self.transport);
    }

    /// Tells the device that there is something in a queue. Over PCI, this is one access, where the
    /// transport has three.
    pub(crate) fn notify(&mut self, queue: u16) {
        match self.doorbells.get(usize::from(queue)) {
            // SAFETY: the register is mapped and takes the number of its queue, whose memory the
            // driver has given to the device.
            Some(Some(doorbell)) => unsafe { mmio::write(*doorbell, queue) },
            _ => self.transport.notify(queue),
        }
    }

    /// Acknowledges the device's interrupt. If that is a message, the device need not be told that
    /// it was seen, which saves slow accesses to registers.
    pub(crate) fn acknowledge(&mut self) -> Acknowledgement {
        match self.interrupt {
            Interrupt::Message | Interrupt::MsiX(_) => Acknowledgement::Message,
            Interrupt::Pin(_) | Interrupt::SharedPin(_) | Interrupt::Unknown => {
                Acknowledgement::Pin(self.transport.ack_interrupt().into())
            }
        }
    }

    /// Returns whether each interrupt is sure to arrive. If not, a driver that waits for one checks
    /// the device from time to time.
    pub(crate) fn is_sure_to_interrupt(&self) -> bool {
        !matches!(self.interrupt, Interrupt::SharedPin(_) | Interrupt::Unknown)
    }

    /// Returns whether the device's line has interrupted, and the handler has not been called yet.
    pub(crate) fn has_interrupted(&self) -> bool {
        cpu::is_pending(self.line)
    }
}

/// The name of a device in the log: its kind and its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceName {
    kind: DeviceType,
    place: Place,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtio {:?} device over {}", self.kind, self.place)
    }
}

impl fmt::Debug for VirtioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioDevice")
            .field("kind", &self.kind())
            .field("place", &self.place)
            .field("interrupt", &self.interrupt)
            .finish_non_exhaustive()
    }
}
