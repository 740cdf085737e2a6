//! What a guest and its monitor agree on while booting: progress marks and names in the device
//! tree.

/// The port to which a guest writes [`BootMark`]s, eight bits wide. The first of each kind counts.
/// Other machines ignore the port.
pub const MARK_PORT: u16 = 0xae58;

/// The longest command line that a guest accepts, in bytes.
pub const MAX_COMMAND_LINE: usize = 2047;

/// `compatible` of the device tree node that announces the balloon port.
pub const BALLOON_COMPATIBLE: &str = "aerostat,balloon-port";

/// `compatible` of a device tree node that announces a virtio device with memory-mapped registers,
/// which its `reg` names.
pub const VIRTIO_COMPATIBLE: &str = "virtio,mmio";

/// Property of a virtio device's node: the interrupt vector that the device raises, 32 bits.
pub const VIRTIO_VECTOR: &str = "aerostat,vector";

/// The answer of the disk with the guest's data to a virtio request for its identity.
pub const DATA_DISK_ID: &str = "data";

/// The answer of the swap disk to a virtio request for its identity.
pub const SWAP_DISK_ID: &str = "swap";

/// Property of `/cpus/cpu@0`: rate of the time stamp counter in Hz, 64 bits, big-endian as all of
/// the tree. Absent where the rate is unknown.
pub const TSC_FREQUENCY: &str = "clock-frequency";

/// Stages that a guest announces, so that start-up time can be measured from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMark {
    /// The kernel's first Rust code is running.
    Kernel,
    /// The application's `main` is about to be called.
    Main,
}

impl BootMark {
    /// Returns the byte that is written to [`MARK_PORT`].
    #[must_use]
    pub const fn encode(self) -> u8 {
        match self {
            Self::Kernel => 1,
            Self::Main => 2,
        }
    }

    /// Returns the mark in a byte that was written to [`MARK_PORT`].
    #[must_use]
    pub const fn decode(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Kernel),
            2 => Some(Self::Main),
            _ => None,
        }
    }
}
