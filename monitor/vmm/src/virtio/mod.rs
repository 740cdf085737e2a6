//! Virtio devices with registers in memory: the bus, and what can be on it. `docs/devices.md`
//! describes the layout.
//!
//! The modules by layer:
//!
//! * bus: this one (addresses, vectors), `mmio` (a device's page)
//! * transport: `registers` (the driver's side: pure), `state` (what threads share)
//! * queue: `worker` (serves it), `adaptive_poll` (when it polls: pure), `quiescence` (when no
//!   worker runs), `queue` (its requests), `chain` (the parts of a request: pure), `memory` (the
//!   bytes behind them)
//! * device: `device` (what every device has), `block`
//!
//! Only `block` knows what a disk is: a further kind of device implements [`Device`].
//!
//! The guest is not trusted. The worst that its writes to registers and rings can cause is a device
//! that says `DEVICE_NEEDS_RESET` and stops, or a request that ends with an error.

mod adaptive_poll;
mod block;
mod chain;
mod device;
#[cfg(any(test, feature = "harness"))]
#[doc(hidden)]
pub mod harness;
mod memory;
mod mmio;
mod queue;
mod quiescence;
mod registers;
mod state;
#[cfg(test)]
mod test_driver;
mod worker;

use std::io;
use std::sync::Arc;

use aerostat_abi::units::{FRAME_BYTES, to_usize};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

pub(super) use self::block::{Disk, FaultPlan, reopen_cached};
pub(super) use self::device::Device;
use self::device::QueueIndex;
use self::memory::DeviceMemory;
pub(super) use self::memory::Direction;
use self::mmio::MmioDevice;
pub(super) use self::quiescence::{Quiescent, Workers};
use self::state::State;
use self::worker::Worker;
use super::layout::{GuestAddress, VIRTIO_START};
use super::memory::GuestMemory;

/// The most devices that the bus can have: one for each vector.
pub(super) const MOST_DEVICES: usize = 16;
/// The vector of the first device; those of the others follow.
const FIRST_VECTOR: u8 = 0x50;

/// Where a device is, and which interrupt it raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The device's page.
    pub(super) address: GuestAddress,
    /// Bytes of it.
    pub(super) bytes: u64,
    /// The interrupt that it raises.
    pub(super) vector: u8,
}

/// Returns the slots of the first `count` devices.
pub(super) fn slots(count: usize) -> impl Iterator<Item = Slot> {
    (0..).zip(FIRST_VECTOR..).take(count.min(MOST_DEVICES)).map(|(index, vector): (u64, u8)| Slot {
        address: GuestAddress(VIRTIO_START + index * FRAME_BYTES),
        bytes: FRAME_BYTES,
        vector,
    })
}

/// All links between a device and the virtual machine, to be connected by the machine's owner.
#[derive(Debug)]
pub(super) struct Wires<'a> {
    /// Where it is.
    pub(super) slot: Slot,
    /// The address of the register that a notification is written to.
    pub(super) notify: GuestAddress,
    /// For each queue, what is to be written on a notification of it. This is optional: otherwise
    /// the write reaches [`Bus::write`].
    pub(super) kicks: &'a [EventFd],
    /// Raises the device's interrupt when it is written.
    pub(super) interrupt: &'a EventFd,
}

/// All virtio devices of a guest.
#[derive(Debug, Default)]
pub(super) struct Bus {
    devices: Vec<MmioDevice>,
}

impl Bus {
    /// Creates a bus with these devices, in this order. Each queue has its worker, which waits for
    /// the first notification; `connect` is called for each device. A guest without devices costs
    /// nothing here.
    pub(super) fn new<E: From<io::Error>>(
        devices: Vec<Arc<dyn Device>>,
        memory: &Arc<GuestMemory>,
        mut connect: impl FnMut(&Wires<'_>) -> Result<(), E>,
    ) -> Result<Self, E> {
        if devices.is_empty() {
            return Ok(Self::default());
        }
        if devices.len() > MOST_DEVICES {
            return Err(io::Error::other("a guest has more devices than its bus has places").into());
        }
        let memory = Arc::new(DeviceMemory::new(Arc::clone(memory))?);
        let mut on_bus = Vec::with_capacity(devices.len());
        for (slot, device) in slots(devices.len()).zip(devices) {
            let queues = device.identity().queue_sizes.len();
            let state = Arc::new(State::new(queues, EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?));
            let kicks = (0..queues).map(|_| EventFd::new(EFD_CLOEXEC)).collect::<Result<Vec<_>, _>>()?;
            let notify = GuestAddress(slot.address.0 + registers::QUEUE_NOTIFY);
            connect(&Wires { slot, notify, kicks: &kicks, interrupt: state.interrupt() })?;
            for (queue, kick) in (0..).map(QueueIndex).zip(&kicks) {
                let (device, state, memory) = (Arc::clone(&device), Arc::clone(&state), Arc::clone(&memory));
                Worker { device, queue, state, memory, kick: kick.try_clone()? }.spawn()?;
            }
            on_bus.push(MmioDevice::new(device, state, Arc::clone(&memory), kicks));
        }
        Ok(Self { devices: on_bus })
    }

    /// Returns the workers of all devices.
    pub(super) fn workers(&self) -> Workers {
        Workers::new(self.devices.iter().map(MmioDevice::shared_state).collect())
    }

    /// Handles the guest's read at `address`; returns `None` where no device answers.
    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let (index, offset) = locate(address)?;
        self.devices.get(index)?.read(offset, bytes)
    }

    /// Handles the guest's write at `address`; returns `None` where no device takes it.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        let (index, offset) = locate(address)?;
        self.devices.get(index)?.write(offset, bytes)
    }

    /// Returns a line for each device that had to stop because of what the guest did, to explain
    /// its end.
    pub(super) fn complaints(&self) -> impl Iterator<Item = String> {
        self.devices.iter().filter_map(MmioDevice::complaint)
    }
}

/// Returns the device and the offset in its page.
fn locate(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(VIRTIO_START)?;
    Some((to_usize(offset / FRAME_BYTES), offset % FRAME_BYTES))
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
