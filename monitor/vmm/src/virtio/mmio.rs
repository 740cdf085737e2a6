//! A virtio device on the bus: accesses to its page of addresses become reads and writes of
//! registers and of configuration space.
//!
//! All of it happens on a vCPU's thread while the guest waits, and none of it does I/O. A start, a
//! stop and a reset take queues from their workers and may wait for the request that each has in
//! progress. The registers' lock is held meanwhile, and taken before those of the queues.

use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::device::{Device, QueueIndex};
use super::memory::DeviceMemory;
use super::registers::{CONFIG, Effect, Registers};
use super::state::State;
use crate::lock::lock;

/// A device on the bus.
#[derive(Debug)]
pub(super) struct MmioDevice {
    device: Arc<dyn Device>,
    registers: Mutex<Registers>,
    state: Arc<State>,
    memory: Arc<DeviceMemory>,
    /// Wakes the worker of each queue.
    kicks: Vec<EventFd>,
}

impl MmioDevice {
    /// Creates a device that was just reset.
    pub(super) fn new(
        device: Arc<dyn Device>,
        state: Arc<State>,
        memory: Arc<DeviceMemory>,
        kicks: Vec<EventFd>,
    ) -> Self {
        let registers = Mutex::new(Registers::new(device.identity()));
        Self { device, registers, state, memory, kicks }
    }

    /// Returns what the rest of the machine shares with the device.
    pub(super) fn shared_state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Returns a line for a device that had to stop because of what the guest did.
    pub(super) fn complaint(&self) -> Option<String> {
        Some(format!("{} stopped: {}", self.device.name(), self.state.complaint()?))
    }

    /// Handles the guest's read at `offset` of the device's page. Where there is no register,
    /// leaves `bytes` as it is and returns `None`.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Option<()> {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.device.read_config(usize::try_from(offset).ok()?, bytes);
        }
        let word: &mut [u8; 4] = bytes.try_into().ok()?;
        let registers = lock(&self.registers);
        *word = registers.read(offset, self.state.status(), self.state.interrupts())?.to_le_bytes();
        Some(())
    }

    /// Handles the guest's write at `offset`. Returns `None` where no register takes it.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Option<()> {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.device.write_config(usize::try_from(offset).ok()?, bytes);
        }
        let value = u32::from_le_bytes(bytes.try_into().ok()?);
        let state = &self.state;
        let mut registers = lock(&self.registers);
        match registers.write(offset, value, state.status()) {
            Effect::None => {}
            Effect::Status(bits) => state.add_status(bits),
            Effect::Start { features, status } => {
                state.add_status(status);
                state.start(registers.queues(), features, self.device.identity().queue_sizes, &**self.memory);
            }
            Effect::StopQueue(queue) => state.stop_queue(queue),
            Effect::Reset => state.reset(),
            Effect::Acknowledge(bits) => state.acknowledge(bits),
            Effect::Notify(QueueIndex(queue)) => {
                // Reached only where KVM does not take notifications itself. The counter never
                // overflows, as the worker reads it.
                let _ = self.kicks.get(queue)?.write(1);
            }
            Effect::Unknown => return None,
        }
        Some(())
    }
}
