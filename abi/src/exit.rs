//! How a guest ends: a code written to the exit port.
//!
//! The port is the one of QEMU's `isa-debug-exit` device, whose process exit status is `code * 2 +
//! 1`; so one image ends the same way under QEMU and under the monitor.

use core::fmt;

/// The exit port, 32 bits wide. A monitor understands narrower writes too.
pub const EXIT_PORT: u16 = 0xf4;

/// Why a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestExit {
    /// The application's `main` returned success.
    Success,
    /// The application's `main` returned failure.
    Failure,
    /// The kernel or the application panicked.
    Panic,
    /// An exception that nothing in the guest resolves: an invalid access, an undefined
    /// instruction, a division by zero.
    Exception,
    /// A thread ran into the guard page under its stack.
    StackOverflow,
    /// A fault inside the ring-0 stub.
    Ring0Fault,
    /// The machine or its boot information can't be used.
    BadMachine,
    /// A committed page is needed, and there is no memory for it.
    OutOfMemory,
    /// A page is needed, and the disk can't read it.
    DiskError,
}

impl GuestExit {
    const ALL: [Self; 9] = [
        Self::Success,
        Self::Failure,
        Self::Panic,
        Self::Exception,
        Self::StackOverflow,
        Self::Ring0Fault,
        Self::BadMachine,
        Self::OutOfMemory,
        Self::DiskError,
    ];

    /// Returns the code that is written to [`EXIT_PORT`]. Codes start at 16, so that neither an
    /// accidental zero nor a failure of QEMU looks like one.
    #[must_use]
    pub const fn encode(self) -> u8 {
        match self {
            Self::Success => 0x10,
            Self::Failure => 0x11,
            Self::Panic => 0x12,
            Self::Exception => 0x13,
            Self::StackOverflow => 0x14,
            Self::Ring0Fault => 0x15,
            Self::BadMachine => 0x16,
            Self::OutOfMemory => 0x17,
            Self::DiskError => 0x18,
        }
    }

    /// Returns the reason for a code.
    #[must_use]
    pub fn decode(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| u32::from(exit.encode()) == code)
    }

    /// Returns the reason for the exit status of a QEMU process.
    #[must_use]
    pub fn from_qemu_status(status: i32) -> Option<Self> {
        let status = u32::try_from(status).ok()?;
        if status % 2 == 1 { Self::decode(status / 2) } else { None }
    }
}

impl fmt::Display for GuestExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Panic => "panic",
            Self::Exception => "exception",
            Self::StackOverflow => "stack overflow",
            Self::Ring0Fault => "ring-0 stub fault",
            Self::BadMachine => "unusable machine",
            Self::OutOfMemory => "out of memory",
            Self::DiskError => "disk error",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::GuestExit;

    #[test]
    fn codes_survive_the_monitor_and_qemu() {
        for exit in GuestExit::ALL {
            let code = exit.encode();
            assert_eq!(GuestExit::decode(u32::from(code)), Some(exit));
            assert_eq!(GuestExit::from_qemu_status(i32::from(code) * 2 + 1), Some(exit));
        }
        assert_eq!(GuestExit::from_qemu_status(0), None);
        assert_eq!(GuestExit::from_qemu_status(-1), None);
    }
}
