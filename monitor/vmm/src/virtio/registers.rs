//! The registers of a virtio device in memory (virtio 1.2, 4.2.2, "MMIO device register layout",
//! version 2). Pure.
//!
//! A driver goes through the states of 3.1.1: it negotiates features, describes its queues and sets
//! DRIVER_OK. What concerns the rest of the device is returned by
//! [`Registers::write`] as an [`Effect`]. The device's status and its pending interrupts are not
//! here but in [`super::state::State`], as workers change them too.

use super::device::{Identity, QueueIndex};
use super::state::status;

/// What every virtio device offers: the modern interface (6, "Reserved feature bits").
pub(super) const FEATURE_VERSION_1: u64 = 1 << 32;

/// `virt`, read as little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// `AERO`.
const VENDOR: u32 = 0x4f52_4541;

/// Offsets of the registers.
mod offset {
    pub(super) const MAGIC: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE_ID: u64 = 0x008;
    pub(super) const VENDOR: u64 = 0x00c;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub(super) const QUEUE_SELECT: u64 = 0x030;
    pub(super) const QUEUE_SIZE_MAX: u64 = 0x034;
    pub(super) const QUEUE_SIZE: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const QUEUE_NOTIFY: u64 = super::QUEUE_NOTIFY;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const INTERRUPT_ACK: u64 = 0x064;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESCRIPTORS: u64 = 0x080;
    pub(super) const QUEUE_DRIVER: u64 = 0x090;
    pub(super) const QUEUE_DEVICE: u64 = 0x0a0;
    /// Length and base of a shared memory region, 64 bits each: all ones where there is none.
    pub(super) const SHARED_MEMORY: std::ops::RangeInclusive<u64> = 0x0b0..=0x0bf;
    pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
}

/// The driver writes the number of a queue here to say that there is work in it.
pub(super) const QUEUE_NOTIFY: u64 = 0x050;
/// Where the device's own configuration begins.
pub(super) const CONFIG: u64 = 0x100;

/// A queue as the driver describes it: unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueSetup {
    /// Descriptors.
    pub(super) size: u32,
    /// Whether the driver has finished describing it.
    pub(super) ready: bool,
    /// Guest-physical addresses of the three parts.
    pub(super) descriptors: u64,
    pub(super) driver_ring: u64,
    pub(super) device_ring: u64,
}

/// What a write asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// The driver sets these status bits.
    Status(u32),
    /// The driver is ready: serve [`Registers::queues`], with these negotiated features, and set
    /// these status bits.
    Start { features: u64, status: u32 },
    /// The driver takes this queue back; the device stays as it is.
    StopQueue(QueueIndex),
    /// The driver resets the device.
    Reset,
    /// There is work in this queue.
    Notify(QueueIndex),
    /// The driver has seen these interrupts.
    Acknowledge(u32),
    /// No register takes this write.
    Unknown,
}

/// The registers that only the driver writes.
#[derive(Debug)]
pub(super) struct Registers {
    identity: Identity,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Box<[QueueSetup]>,
}

impl Registers {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: vec![QueueSetup::default(); identity.queue_sizes.len()].into(),
        }
    }

    /// Returns the queues as the driver has described them.
    pub(super) fn queues(&self) -> &[QueueSetup] {
        &self.queues
    }

    /// Returns the register at `offset`, below [`CONFIG`]; `None` where there is none to be read.
    pub(super) fn read(&self, offset: u64, status: u32, interrupts: u32) -> Option<u32> {
        Some(match offset {
            offset::MAGIC => MAGIC,
            offset::VERSION => VERSION,
            offset::DEVICE_ID => self.identity.device_id,
            offset::VENDOR => VENDOR,
            offset::DEVICE_FEATURES => half(self.offered(), self.device_features_select),
            // Zero where there is no such queue.
            offset::QUEUE_SIZE_MAX => {
                self.queue(self.queue_select).map_or(0, |queue| self.identity.queue_sizes[queue.0].into())
            }
            offset::QUEUE_READY => self.queue(self.queue_select).map_or(0, |queue| self.queues[queue.0].ready.into()),
            offset::INTERRUPT_STATUS => interrupts,
            offset::STATUS => status,
            offset::CONFIG_GENERATION => 0,
            at if offset::SHARED_MEMORY.contains(&at) => u32::MAX,
            _ => return None,
        })
    }

    /// Handles the driver's write to the register at `offset`, below [`CONFIG`], while the device's
    /// status is `status`.
    pub(super) fn write(&mut self, offset: u64, value: u32, status: u32) -> Effect {
        match offset {
            offset::DEVICE_FEATURES_SELECT => self.device_features_select = value,
            offset::DRIVER_FEATURES_SELECT => self.driver_features_select = value,
            // Negotiated features can't change (3.1.1).
            offset::DRIVER_FEATURES if status & status::FEATURES_OK == 0 => {
                set_half(&mut self.driver_features, self.driver_features_select, value);
            }
            offset::DRIVER_FEATURES => {}
            offset::QUEUE_SELECT => self.queue_select = value,
            offset::QUEUE_NOTIFY => return self.queue(value).map_or(Effect::Unknown, Effect::Notify),
            offset::INTERRUPT_ACK => return Effect::Acknowledge(value),
            offset::STATUS => return self.write_status(value, status),
            _ => return self.write_queue(offset, value),
        }
        Effect::None
    }

    /// Forgets all that the driver has written.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.identity);
    }

    fn offered(&self) -> u64 {
        self.identity.features | FEATURE_VERSION_1
    }

    fn write_status(&mut self, value: u32, status: u32) -> Effect {
        if value == 0 {
            self.reset();
            return Effect::Reset;
        }
        let mut new = value & status::DRIVERS;
        // FEATURES_OK stays set only where the device accepts what the driver chose (3.1.1).
        let acceptable = self.driver_features & FEATURE_VERSION_1 != 0 && self.driver_features & !self.offered() == 0;
        if !acceptable {
            new &= !status::FEATURES_OK;
        }
        let negotiated = (status | new) & status::FEATURES_OK != 0;
        if new & status::DRIVER_OK == 0 || status & status::DRIVER_OK != 0 {
            Effect::Status(new)
        } else if negotiated {
            Effect::Start { features: self.driver_features, status: new }
        } else {
            Effect::Status(new & !status::DRIVER_OK)
        }
    }

    /// Handles a write to a register of the selected queue. It has no effect where there is no such
    /// queue.
    fn write_queue(&mut self, offset: u64, value: u32) -> Effect {
        let index = self.queue(self.queue_select);
        let mut none = QueueSetup::default();
        let queue = index.map_or(&mut none, |index| &mut self.queues[index.0]);
        match offset {
            offset::QUEUE_SIZE => queue.size = value,
            offset::QUEUE_READY => {
                queue.ready = value & 1 != 0;
                if let (Some(index), false) = (index, queue.ready) {
                    return Effect::StopQueue(index);
                }
            }
            _ => {
                let address = match offset & !0x4 {
                    offset::QUEUE_DESCRIPTORS => &mut queue.descriptors,
                    offset::QUEUE_DRIVER => &mut queue.driver_ring,
                    offset::QUEUE_DEVICE => &mut queue.device_ring,
                    _ => return Effect::Unknown,
                };
                set_half(address, u32::from(offset & 0x4 != 0), value);
            }
        }
        Effect::None
    }

    /// Returns the queue of this number, if there is one.
    fn queue(&self, number: u32) -> Option<QueueIndex> {
        let index = usize::try_from(number).ok()?;
        (index < self.queues.len()).then_some(QueueIndex(index))
    }
}

/// Returns the low (0) or high (1) half of `value`; there are no others.
fn half(value: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, half: u32) {
    match select {
        0 => *value = *value >> 32 << 32 | u64::from(half),
        1 => *value = u64::from(half) << 32 | *value & u64::from(u32::MAX),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect, FEATURE_VERSION_1, Identity, QueueIndex, Registers, offset, status};
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    const IDENTITY: Identity = Identity { device_id: 2, features: 0b110, queue_sizes: &[256] };
    const NEGOTIATED: u32 = status::ACKNOWLEDGE | status::DRIVER;

    fn negotiated(features: u64) -> Registers {
        let mut registers = Registers::new(IDENTITY);
        for select in [0_u32, 1] {
            registers.write(offset::DRIVER_FEATURES_SELECT, select, NEGOTIATED);
            registers.write(offset::DRIVER_FEATURES, super::half(features, select), NEGOTIATED);
        }
        registers
    }

    #[test]
    fn a_device_identifies_itself() {
        let mut registers = Registers::new(IDENTITY);
        let read = |registers: &Registers, offset| registers.read(offset, 0x40, 1);
        assert_eq!(read(&registers, 0), Some(u32::from_le_bytes(*b"virt")));
        assert_eq!(
            [4, 8, 0x34, 0x60, 0x70, 0xb0].map(|at| read(&registers, at)),
            [Some(2), Some(2), Some(256), Some(1), Some(0x40), Some(u32::MAX)]
        );
        assert_eq!(read(&registers, offset::DEVICE_FEATURES), Some(0b110));
        registers.write(offset::DEVICE_FEATURES_SELECT, 1, 0);
        assert_eq!(read(&registers, offset::DEVICE_FEATURES), Some(1));
        registers.write(offset::DEVICE_FEATURES_SELECT, 2, 0);
        assert_eq!(read(&registers, offset::DEVICE_FEATURES), Some(0));
        assert_eq!(read(&registers, offset::QUEUE_NOTIFY), None);
    }

    #[test]
    fn features_stick_only_where_they_were_offered() {
        let accept = NEGOTIATED | status::FEATURES_OK;
        assert_eq!(
            negotiated(FEATURE_VERSION_1 | 0b10).write(offset::STATUS, accept, NEGOTIATED),
            Effect::Status(accept)
        );
        for features in [0b10, FEATURE_VERSION_1 | 0b1, FEATURE_VERSION_1 | 1 << 63] {
            assert_eq!(negotiated(features).write(offset::STATUS, accept, NEGOTIATED), Effect::Status(NEGOTIATED));
        }
    }

    #[test]
    fn a_driver_starts_its_queue_once() {
        let mut registers = negotiated(FEATURE_VERSION_1);
        for (offset, value) in
            [(0x38, 16), (0x80, 0x1000), (0x84, 1), (0x90, 0x2000), (0xa0, 0x3000), (0x44, 1), (0x30, 1), (0x38, 32)]
        {
            assert_eq!(registers.write(offset, value, NEGOTIATED), Effect::None);
        }
        let ready = NEGOTIATED | status::FEATURES_OK | status::DRIVER_OK;
        let Effect::Start { features, status } = registers.write(offset::STATUS, ready, ready & !4) else {
            panic!("the queue starts")
        };
        let queue = registers.queues()[0];
        assert_eq!((queue.size, queue.ready, queue.descriptors), (16, true, 0x1_0000_1000));
        assert_eq!((queue.driver_ring, queue.device_ring), (0x2000, 0x3000));
        assert_eq!((features, status), (FEATURE_VERSION_1, ready));
        assert_eq!(registers.write(offset::STATUS, ready, ready), Effect::Status(ready));
        assert_eq!(registers.write(offset::STATUS, 0, ready), Effect::Reset);
        assert_eq!(registers.read(offset::QUEUE_READY, 0, 0), Some(0));
    }

    #[test]
    fn each_queue_has_registers_of_its_own() {
        let mut registers = Registers::new(Identity { queue_sizes: &[256, 64], ..IDENTITY });
        for (queue, most, size) in [(0, 256, 16), (1, 64, 32), (2, 0, 8)] {
            registers.write(offset::QUEUE_SELECT, queue, 0);
            assert_eq!(registers.read(offset::QUEUE_SIZE_MAX, 0, 0), Some(most));
            for (offset, value) in [(offset::QUEUE_SIZE, size), (offset::QUEUE_READY, 1)] {
                assert_eq!(registers.write(offset, value, 0), Effect::None);
            }
            assert_eq!(registers.read(offset::QUEUE_READY, 0, 0), Some(u32::from(most > 0)));
        }
        assert_eq!(registers.queues().iter().map(|queue| queue.size).collect::<Vec<_>>(), [16, 32]);
        assert_eq!(registers.write(offset::QUEUE_READY, 0, 0), Effect::None, "there is no third queue");
        registers.write(offset::QUEUE_SELECT, 1, 0);
        assert_eq!(registers.write(offset::QUEUE_READY, 0, 0), Effect::StopQueue(QueueIndex(1)));
        assert_eq!(registers.write(offset::QUEUE_NOTIFY, 1, 0), Effect::Notify(QueueIndex(1)));
        assert_eq!(registers.write(offset::QUEUE_NOTIFY, 2, 0), Effect::Unknown);
    }

    #[test]
    fn nothing_starts_without_features() {
        let all = NEGOTIATED | status::FEATURES_OK | status::DRIVER_OK;
        assert_eq!(negotiated(0).write(offset::STATUS, all, NEGOTIATED), Effect::Status(NEGOTIATED));
    }

    proptest! {
        #[test]
        fn any_accesses_are_answered(accesses in vec((0_u64..0x100, any::<u32>(), any::<u32>()), 0..64)) {
            let mut registers = Registers::new(IDENTITY);
            for (offset, value, status) in accesses {
                registers.write(offset, value, status);
                registers.read(offset, status, value);
            }
        }
    }
}
