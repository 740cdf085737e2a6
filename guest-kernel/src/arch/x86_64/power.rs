//! How a machine is powered off or reset, by what it has of ACPI 6.5, 4.8.3, and of what PCs have
//! had before.

/// A register of one to four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    /// A port.
    Port(u16),
    /// An address in the device hole.
    Memory(u64),
}

/// What the two control registers take to power off: the value is for their sleep type field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SleepType {
    pub(crate) first: u8,
    pub(crate) second: u8,
}

/// The registers that power a machine off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SleepControl {
    /// Control registers of fixed hardware, of 16 bits.
    Fixed { first: Register, second: Option<Register>, types: SleepType },
    /// The sleep control register of machines without fixed hardware, of 8 bits.
    Reduced { register: Register, types: SleepType },
}

/// The register that resets a machine, of 8 bits, with the value for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reset {
    pub(crate) register: Register,
    pub(crate) value: u8,
}

/// The registers of a machine's power, as far as it has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PowerRegisters {
    pub(crate) sleep: Option<SleepControl>,
    pub(crate) reset: Option<Reset>,
}

impl PowerRegisters {
    /// Returns the addresses of the registers in memory.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = u64> {
        let sleep = match self.sleep {
            Some(SleepControl::Fixed { first, second, .. }) => [Some(first), second],
            Some(SleepControl::Reduced { register, .. }) => [Some(register), None],
            None => [None; 2],
        };
        let reset = self.reset.map(|reset| reset.register);
        sleep.into_iter().chain([reset]).flatten().filter_map(|register| match register {
            Register::Port(_) => None,
            Register::Memory(address) => Some(address),
        })
    }
}

#[cfg(target_os = "none")]
pub(crate) use self::machine::{end, set};

#[cfg(target_os = "none")]
#[allow(unsafe_code, reason = "memory-mapped registers")]
mod machine {
    use aerostat_abi::units::to_usize;
    use spin::Once;

    use super::{PowerRegisters, Register, Reset, SleepControl};
    use crate::arch::x86_64::port_io::{in_byte, in_word, out_byte, out_word};
    use crate::arch::x86_64::ring0;

    /// Fields of a control register of fixed hardware.
    const SLEEP_TYPE: u16 = 10;
    const SLEEP_TYPE_MASK: u16 = 0b111 << SLEEP_TYPE;
    const SLEEP_ENABLE: u16 = 1 << 13;
    /// Fields of the sleep control register.
    const REDUCED_SLEEP_TYPE: u8 = 2;
    const REDUCED_SLEEP_ENABLE: u8 = 1 << 5;

    /// The keyboard controller: its status and command port, the bit of a command that is not taken
    /// yet, and the command that pulses the reset line.
    const KEYBOARD: u16 = 0x64;
    const KEYBOARD_BUSY: u8 = 1 << 1;
    const KEYBOARD_RESET: u8 = 0xfe;
    /// How often the keyboard controller is asked whether it is busy.
    const KEYBOARD_POLLS: u32 = 1000;

    static REGISTERS: Once<PowerRegisters> = Once::new();

    /// Sets what the machine has: registers in memory are mapped. Without it, only what PCs have is
    /// tried.
    pub(crate) fn set(registers: PowerRegisters) {
        REGISTERS.call_once(|| registers);
    }

    /// Ends the machine: by powering it off, or where that does nothing, by a reset. Each way is
    /// tried in turn, as none tells whether it works before it does.
    pub(crate) fn end() -> ! {
        let PowerRegisters { sleep, reset } = REGISTERS.get().copied().unwrap_or_default();
        match sleep {
            Some(SleepControl::Fixed { first, second, types }) => {
                sleep_by(first, types.first);
                if let Some(second) = second {
                    sleep_by(second, types.second);
                }
            }
            Some(SleepControl::Reduced { register, types }) => {
                write_byte(register, types.first << REDUCED_SLEEP_TYPE | REDUCED_SLEEP_ENABLE);
            }
            None => {}
        }
        if let Some(Reset { register, value }) = reset {
            write_byte(register, value);
        }
        for _ in 0..KEYBOARD_POLLS {
            if in_byte(KEYBOARD) & KEYBOARD_BUSY == 0 {
                break;
            }
        }
        out_byte(KEYBOARD, KEYBOARD_RESET);
        ring0::reset()
    }

    /// Powers off by a control register of fixed hardware.
    fn sleep_by(register: Register, kind: u8) {
        let bits = |old: u16| old & !SLEEP_TYPE_MASK | u16::from(kind) << SLEEP_TYPE;
        match register {
            Register::Port(port) => {
                let value = bits(in_word(port));
                out_word(port, value);
                out_word(port, value | SLEEP_ENABLE);
            }
            Register::Memory(address) => {
                let pointer = core::ptr::with_exposed_provenance_mut::<u16>(to_usize(address & !1));
                // SAFETY: the tables say that this register is there, and it is mapped.
                let value = bits(unsafe { pointer.read_volatile() });
                // SAFETY: as above; it powers the machine off.
                unsafe { pointer.write_volatile(value | SLEEP_ENABLE) };
            }
        }
    }

    fn write_byte(register: Register, value: u8) {
        match register {
            Register::Port(port) => out_byte(port, value),
            Register::Memory(address) => {
                let pointer = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(address));
                // SAFETY: the tables say that this register is there, and it is mapped; it ends the
                // machine.
                unsafe { pointer.write_volatile(value) };
            }
        }
    }
}
