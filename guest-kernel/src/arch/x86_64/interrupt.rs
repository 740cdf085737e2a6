//! Interrupts that the ring-0 stub passes on: their lines, and the table of handlers.
//!
//! Each line has a vector, at which the processor raises it, and a bit in the CPU block, which the
//! ring-0 stub sets. The layers above register a handler for each of their lines, once, before they
//! let the line's source interrupt. A slot of the table is written once and then only read, so that
//! [`HandlerTable::call`] takes no lock; a line without a handler is ignored.

use spin::Once;

use crate::config::{FIRST_DEVICE_VECTOR, MAX_VIRTIO_DEVICES};

/// Bits below the first device's.
const FIRST_DEVICE_LINE: u8 = 8;
/// Lines that there are.
const LINES: usize = FIRST_DEVICE_LINE as usize + MAX_VIRTIO_DEVICES;

/// A source of interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterruptLine(u8);

impl InterruptLine {
    /// The local APIC's timer.
    pub(crate) const TIMER: Self = Self(0);
    /// The balloon interrupt.
    pub(crate) const BALLOON: Self = Self(1);

    /// Returns the line of the virtio device with this index; `None` if there are not so many.
    pub(crate) const fn device(index: u8) -> Option<Self> {
        if (index as usize) < MAX_VIRTIO_DEVICES { Some(Self(FIRST_DEVICE_LINE + index)) } else { None }
    }

    /// Returns the line of the virtio device that interrupts at `vector`; `None` if no device does.
    pub(crate) fn of_device_vector(vector: u8) -> Option<Self> {
        vector.checked_sub(FIRST_DEVICE_VECTOR).and_then(Self::device)
    }

    /// Returns the vector at which the line interrupts.
    pub(crate) const fn vector(self) -> u8 {
        match self {
            Self::TIMER => 0x40,
            Self::BALLOON => 0x41,
            Self(line) => FIRST_DEVICE_VECTOR + (line - FIRST_DEVICE_LINE),
        }
    }

    /// Returns the line's bit in [`super::cpu`]'s set of pending interrupts.
    pub(crate) const fn pending_bit(self) -> u64 {
        1 << self.0
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What is called when a line has interrupted, with upcalls masked and no spin lock held.
pub(crate) type Handler = fn(InterruptLine);

/// The error of a second handler for one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineInUse;

/// The handlers of all lines.
#[derive(Debug)]
pub(crate) struct HandlerTable {
    handlers: [Once<Handler>; LINES],
}

impl HandlerTable {
    /// Returns a table without handlers.
    pub(crate) const fn new() -> Self {
        Self { handlers: [const { Once::new() }; LINES] }
    }

    /// Sets the handler of a line.
    ///
    /// # Errors
    /// [`LineInUse`] when the line has one.
    pub(crate) fn register(&self, line: InterruptLine, handler: Handler) -> Result<(), LineInUse> {
        let mut is_new = false;
        self.handlers[line.index()].call_once(|| {
            is_new = true;
            handler
        });
        if is_new { Ok(()) } else { Err(LineInUse) }
    }

    /// Calls the handlers of all lines whose bits are set in `pending`, from the lowest bit up.
    pub(crate) fn call(&self, pending: u64) {
        for (line, handler) in (0..).map(InterruptLine).zip(&self.handlers) {
            if pending & line.pending_bit() != 0
                && let Some(handler) = handler.get()
            {
                handler(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{FIRST_DEVICE_VECTOR, HandlerTable, InterruptLine, LineInUse, MAX_VIRTIO_DEVICES};

    std::thread_local! {
        static CALLS: RefCell<Vec<InterruptLine>> = const { RefCell::new(Vec::new()) };
    }

    fn note(line: InterruptLine) {
        CALLS.with_borrow_mut(|calls| calls.push(line));
    }

    #[test]
    fn pending_lines_call_their_handlers() {
        let table = HandlerTable::new();
        let device = InterruptLine::device(3).unwrap();
        for line in [InterruptLine::TIMER, device] {
            table.register(line, note).unwrap();
        }
        table.call(device.pending_bit() | InterruptLine::TIMER.pending_bit());
        assert_eq!(CALLS.take(), [InterruptLine::TIMER, device]);
        table.call(device.pending_bit());
        assert_eq!(CALLS.take(), [device]);
        table.call(0);
        assert_eq!(CALLS.take(), []);
    }

    #[test]
    fn a_line_without_a_handler_is_ignored() {
        HandlerTable::new().call(u64::MAX);
    }

    #[test]
    fn a_line_has_one_handler() {
        let table = HandlerTable::new();
        assert_eq!(table.register(InterruptLine::BALLOON, note), Ok(()));
        assert_eq!(table.register(InterruptLine::BALLOON, |_| unreachable!("it came second")), Err(LineInUse));
        table.call(InterruptLine::BALLOON.pending_bit());
        assert_eq!(CALLS.take(), [InterruptLine::BALLOON]);
    }

    #[test]
    fn every_device_has_a_line_with_a_vector_and_a_bit_of_its_own() {
        let mut bits = InterruptLine::TIMER.pending_bit() | InterruptLine::BALLOON.pending_bit();
        for vector in (FIRST_DEVICE_VECTOR..).take(MAX_VIRTIO_DEVICES) {
            let line = InterruptLine::of_device_vector(vector).unwrap();
            assert_eq!(line.vector(), vector);
            assert_eq!(bits & line.pending_bit(), 0);
            bits |= line.pending_bit();
        }
        let beyond = FIRST_DEVICE_VECTOR + u8::try_from(MAX_VIRTIO_DEVICES).unwrap();
        for vector in [0, FIRST_DEVICE_VECTOR - 1, beyond, u8::MAX] {
            assert_eq!(InterruptLine::of_device_vector(vector), None);
        }
        assert_eq!(InterruptLine::device(u8::try_from(MAX_VIRTIO_DEVICES).unwrap()), None);
    }
}
