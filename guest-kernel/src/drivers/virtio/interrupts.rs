//! Which driver is told that a device has interrupted. Several devices may share one line.
//!
//! PCI devices share pins of the I/O APIC, which the kernel routes edge-triggered: the ring-0 stub
//! ends an interrupt before a driver can acknowledge it at the device, so a level would raise it
//! again and again. A pin that one device holds up gives no edge for another one. Therefore all
//! devices of the line are asked until none of them has had a reason: then all were quiet at the
//! moment at which the first of them was asked, the pin was down, and the next reason is an edge.

use spin::Once;
use virtio_drivers::transport::InterruptStatus;

use crate::arch::x86_64::interrupt::InterruptLine;
use crate::config::MAX_VIRTIO_DEVICES;

/// How often the devices of a line are asked: a device that always has a reason must not stop all
/// else.
const MAX_PASSES: usize = 64;

/// The number of a device that has a driver, below [`MAX_VIRTIO_DEVICES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceNumber(pub(super) u8);

/// What a device has said about its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// Nothing, as it interrupts by messages: anything may have happened.
    Message,
    /// Its reasons for holding up a pin; none if another device holds it up.
    Pin(Reasons),
}

/// Why a device holds up a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reasons {
    has_used_buffers: bool,
    has_changed: bool,
}

impl From<InterruptStatus> for Reasons {
    fn from(status: InterruptStatus) -> Self {
        Self {
            has_used_buffers: status.contains(InterruptStatus::QUEUE_INTERRUPT),
            has_changed: status.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT),
        }
    }
}

impl Acknowledgement {
    /// What a device says that is not in use.
    pub(crate) const NONE: Self = Self::Pin(Reasons { has_used_buffers: false, has_changed: false });

    /// Returns whether the device's configuration may have changed.
    pub(crate) fn may_have_changed(self) -> bool {
        match self {
            Self::Message => true,
            Self::Pin(reasons) => reasons.has_changed,
        }
    }

    fn has_held_up_a_pin(self) -> bool {
        matches!(self, Self::Pin(reasons) if reasons.has_used_buffers || reasons.has_changed)
    }
}

/// A driver's function that is called when a device may have interrupted, with upcalls masked and
/// no spin lock held. It acknowledges the interrupt first, then serves the device.
pub(crate) type DeviceHandler = fn(DeviceNumber) -> Acknowledgement;

/// The drivers' handlers, by the numbers of their devices.
#[derive(Debug)]
pub(super) struct Listeners {
    listeners: [Once<(InterruptLine, DeviceHandler)>; MAX_VIRTIO_DEVICES],
}

impl Listeners {
    /// Returns an empty list.
    pub(super) const fn new() -> Self {
        Self { listeners: [const { Once::new() }; MAX_VIRTIO_DEVICES] }
    }

    /// Sets the handler of a device, which interrupts on `line`. A device has one handler for good.
    pub(super) fn add(&self, device: DeviceNumber, line: InterruptLine, handler: DeviceHandler) {
        self.listeners[usize::from(device.0)].call_once(|| (line, handler));
    }

    /// Calls the handlers of all devices on `line`, until no pin is held up.
    pub(super) fn call(&self, line: InterruptLine) {
        for _ in 0..MAX_PASSES {
            let mut is_quiet = true;
            for (number, listener) in (0..).map(DeviceNumber).zip(&self.listeners) {
                if let Some((own, handler)) = listener.get()
                    && *own == line
                {
                    is_quiet &= !handler(number).has_held_up_a_pin();
                }
            }
            if is_quiet {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use virtio_drivers::transport::InterruptStatus;

    use super::{Acknowledgement, DeviceNumber, InterruptLine, Listeners, MAX_PASSES};

    std::thread_local! {
        static CALLS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        /// How often each device has a reason.
        static REASONS: RefCell<[usize; 3]> = const { RefCell::new([0; 3]) };
    }

    fn pin(device: DeviceNumber) -> Acknowledgement {
        CALLS.with_borrow_mut(|calls| calls.push(device.0));
        let has_reason = REASONS.with_borrow_mut(|reasons| {
            let left = &mut reasons[usize::from(device.0)];
            *left > 0 && {
                *left -= 1;
                true
            }
        });
        let queue = InterruptStatus::QUEUE_INTERRUPT;
        Acknowledgement::Pin(if has_reason { queue } else { InterruptStatus::empty() }.into())
    }

    fn message(device: DeviceNumber) -> Acknowledgement {
        CALLS.with_borrow_mut(|calls| calls.push(device.0));
        Acknowledgement::Message
    }

    fn line(index: u8) -> InterruptLine {
        InterruptLine::device(index).unwrap()
    }

    #[test]
    fn a_shared_pin_is_served_until_all_its_devices_are_quiet() {
        let listeners = Listeners::new();
        for number in 0..3 {
            listeners.add(DeviceNumber(number), line(if number == 2 { 7 } else { 4 }), pin);
        }
        REASONS.set([0, 2, 1]);
        listeners.call(line(4));
        assert_eq!(CALLS.take(), [0, 1, 0, 1, 0, 1], "the last pass finds nothing, and the other line is left alone");
    }

    #[test]
    fn a_message_is_served_once() {
        let listeners = Listeners::new();
        listeners.add(DeviceNumber(1), line(1), message);
        listeners.call(line(1));
        assert_eq!(CALLS.take(), [1]);
        assert!(Acknowledgement::Message.may_have_changed());
    }

    #[test]
    fn a_device_that_is_never_quiet_is_left_in_the_end() {
        let listeners = Listeners::new();
        listeners.add(DeviceNumber(0), line(0), pin);
        REASONS.set([usize::MAX, 0, 0]);
        listeners.call(line(0));
        assert_eq!(CALLS.take().len(), MAX_PASSES);
    }
}
