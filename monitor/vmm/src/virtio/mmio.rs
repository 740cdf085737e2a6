//! A virtio device on the bus: accesses to its page of addresses become reads and writes of
//! registers and of configuration space.
//!
//! All of it happens on the vCPU's thread while the guest waits, and none of it does I/O. A start,
//! a stop and a reset take the queue from the worker and may wait for the one request that is in
//! progress.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::memory::DeviceMemory;
use super::registers::{CONFIG, Effect, Identity, Registers};
use super::state::State;

/// A device on the bus.
#[derive(Debug)]
pub(super) struct MmioDevice {
    registers: Registers,
    queue_size: u16,
    config: Box<[u8]>,
    state: Arc<State>,
    memory: Arc<DeviceMemory>,
    /// Wakes the worker.
    kick: EventFd,
}

impl MmioDevice {
    /// Creates a device that was just reset.
    pub(super) fn new(
        identity: Identity,
        config: impl Into<Box<[u8]>>,
        (state, kick): (Arc<State>, EventFd),
        memory: Arc<DeviceMemory>,
    ) -> Self {
        let queue_size = identity.queue_size;
        Self { registers: Registers::new(identity), queue_size, config: config.into(), state, memory, kick }
    }

    /// Returns what the rest of the machine shares with the device.
    pub(super) fn shared_state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Handles the guest's read at `offset` of the device's page. Where there is no register,
    /// leaves `bytes` as it is and returns `None`.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Option<()> {
        if let Some(start) = offset.checked_sub(CONFIG) {
            let start = usize::try_from(start).ok()?;
            bytes.copy_from_slice(self.config.get(start..start.checked_add(bytes.len())?)?);
            return Some(());
        }
        let word: &mut [u8; 4] = bytes.try_into().ok()?;
        *word = self.registers.read(offset, self.state.status(), self.state.interrupts())?.to_le_bytes();
        Some(())
    }

    /// Handles the guest's write at `offset`. Returns `None` where no register takes it.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Option<()> {
        if offset >= CONFIG {
            // Nothing in a disk's configuration can be written.
            return None;
        }
        let value = u32::from_le_bytes(bytes.try_into().ok()?);
        let state = &self.state;
        match self.registers.write(offset, value, state.status()) {
            Effect::None => {}
            Effect::Status(bits) => state.add_status(bits),
            Effect::Start { queue, features, status } => {
                state.add_status(status);
                state.start(&queue, features, self.queue_size, &**self.memory);
            }
            Effect::StopQueue => state.stop_queue(),
            Effect::Reset => state.reset(),
            Effect::Acknowledge(bits) => state.acknowledge(bits),
            Effect::Notify => {
                // Reached only where KVM does not take notifications itself. The counter never
                // overflows, as the worker reads it.
                let _ = self.kick.write(1);
            }
            Effect::Unknown => return None,
        }
        Some(())
    }
}
