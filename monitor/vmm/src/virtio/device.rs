//! What a device is to the bus and the transport, which know no kind of device.

use std::fmt;

use super::queue::{Broken, Requests};

/// A device: its kind, its configuration space, and what it does with requests.
///
/// The vCPU's thread accesses the configuration space while the guest waits, and a worker of each
/// queue serves requests, possibly at the same time: a device locks what they share.
pub(crate) trait Device: fmt::Debug + Send + Sync {
    /// Returns the device's name, for messages to the user and for its threads.
    fn name(&self) -> &str;

    /// Returns what the registers say of the device. This never changes.
    fn identity(&self) -> Identity;

    /// Reads the configuration space at `offset`. Where it has no such bytes, leaves `bytes` as
    /// they are and returns `None`.
    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> Option<()>;

    /// Writes the configuration space at `offset`; returns `None` where nothing there can be
    /// written.
    fn write_config(&self, _offset: usize, _bytes: &[u8]) -> Option<()> {
        None
    }

    /// Takes all requests that are in a queue, and finishes them. Its worker waits for the next
    /// notification afterwards.
    ///
    /// # Errors
    /// Returns how the driver broke the rules: the device stops until it is reset.
    fn serve(&self, requests: &mut Requests<'_>) -> Result<(), Broken>;
}

/// The kind of a device, for its registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// The kind (virtio 1.2, 5).
    pub(crate) device_id: u32,
    /// Features beyond those of every device.
    pub(crate) features: u64,
    /// For each queue, the largest one that the driver may make: a power of two.
    pub(crate) queue_sizes: &'static [u16],
}

/// The number of a device's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueIndex(pub(crate) usize);

/// Reads the configuration `space` of a device that has it as bytes, for
/// [`Device::read_config`].
pub(super) fn read_bytes(space: &[u8], offset: usize, bytes: &mut [u8]) -> Option<()> {
    bytes.copy_from_slice(space.get(offset..offset.checked_add(bytes.len())?)?);
    Some(())
}
