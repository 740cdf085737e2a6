//! The machine's I/O APICs: those that the ACPI tables name, or the one that machines without such
//! tables have.

use crate::layout;

/// The most I/O APICs that are used.
const MAX_IO_APICS: usize = 4;
/// Lines of the old interrupt controllers.
const LINES: u8 = 16;
/// Pins of an I/O APIC.
const PINS: u32 = 24;

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IoApicDescription {
    /// Address of its registers.
    pub(crate) address: u64,
    /// The machine's number of its first interrupt.
    pub(crate) first_interrupt: u32,
}

impl IoApicDescription {
    const DEFAULT: Self = Self { address: layout::IO_APIC, first_interrupt: 0 };
}

/// The I/O APICs of a machine, and how the lines of the old controllers are connected to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InterruptControllers {
    io_apics: [Option<IoApicDescription>; MAX_IO_APICS],
    /// The interrupts of lines that have another number than the line.
    overrides: [Option<u32>; LINES as usize],
}

/// A pin of an I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    /// Address of the I/O APIC's registers.
    pub(crate) io_apic: u64,
    /// The number of the pin there.
    pub(crate) number: u8,
}

impl InterruptControllers {
    /// Adds an I/O APIC, unless there are too many, or its registers can't be where other code maps
    /// them.
    pub(super) fn add_io_apic(&mut self, io_apic: IoApicDescription) {
        let is_possible = (layout::IO_APIC..layout::LOCAL_APIC).contains(&io_apic.address);
        if let Some(place) = self.io_apics.iter_mut().find(|place| place.is_none()).filter(|_| is_possible) {
            *place = Some(io_apic);
        }
    }

    /// Notes that a line of the old controllers is connected to this interrupt.
    pub(super) fn override_line(&mut self, line: u8, interrupt: u32) {
        if let Some(place) = self.overrides.get_mut(usize::from(line)) {
            *place = Some(interrupt);
        }
    }

    /// Returns the interrupt of a line of the old controllers.
    pub(crate) fn of_line(&self, line: u8) -> u32 {
        self.overrides.get(usize::from(line)).copied().flatten().unwrap_or(line.into())
    }

    /// Returns the pin of an interrupt.
    pub(crate) fn pin(&self, interrupt: u32) -> Option<Pin> {
        let default = [IoApicDescription::DEFAULT];
        let known = self.io_apics.iter().flatten();
        let without = default.iter().filter(|_| self.io_apics[0].is_none());
        known.chain(without).find_map(|io_apic| {
            let number = interrupt.checked_sub(io_apic.first_interrupt).filter(|number| *number < PINS)?;
            Some(Pin { io_apic: io_apic.address, number: u8::try_from(number).ok()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{InterruptControllers, IoApicDescription, Pin};

    const SECOND: u64 = 0xfec1_0000;

    #[test]
    fn without_tables_there_is_one_io_apic() {
        let controllers = InterruptControllers::default();
        assert_eq!(controllers.pin(23), Some(Pin { io_apic: 0xfec0_0000, number: 23 }));
        assert_eq!(controllers.pin(24), None);
        assert_eq!(controllers.of_line(10), 10);
        assert_eq!(controllers.of_line(200), 200);
    }

    #[test]
    fn interrupts_are_pins_of_several_io_apics() {
        let mut controllers = InterruptControllers::default();
        controllers.add_io_apic(IoApicDescription { address: 0xfec0_0000, first_interrupt: 0 });
        controllers.add_io_apic(IoApicDescription { address: 0x1000, first_interrupt: 48 });
        controllers.add_io_apic(IoApicDescription { address: SECOND, first_interrupt: 24 });
        controllers.override_line(10, 40);
        controllers.override_line(99, 1);
        assert_eq!(controllers.pin(controllers.of_line(10)), Some(Pin { io_apic: SECOND, number: 16 }));
        assert_eq!(controllers.pin(5), Some(Pin { io_apic: 0xfec0_0000, number: 5 }));
        assert_eq!(controllers.pin(48), None, "registers in memory are none");
        assert_eq!(controllers.pin(u32::MAX), None);
    }
}
