//! The connection to the machine's balloon device: its registers, which the driver's thread and the
//! interrupt handler share, and how a thread waits for it.

use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::threads::Wait;
use spin::Once;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::device::{BalloonDevice, Connection, SetUpError, Waiter};
use crate::drivers::virtio::{Acknowledgement, DeviceNumber, SharedInterrupt, VirtioDevice};
use crate::patience::Patience;
use crate::sync::{LockRank, SpinLock};
use crate::thread::Event;
use crate::time::Instant;

/// How long a thread sleeps for a host that has not answered for long before it checks by itself.
const CHECK_NS: u64 = 1_000_000_000;
/// How long the host may take before the log says so.
const PATIENCE_NS: u64 = 5_000_000_000;

/// The device as this kernel reaches it.
pub(crate) type Device = BalloonDevice<Registers>;

static DEVICE: Once<SpinLock<VirtioDevice>> = Once::new();
/// Whether the configuration may have changed since it was read.
static HAS_CHANGED: AtomicBool = AtomicBool::new(false);
/// Wakes the thread that waits for the device in the middle of a call.
static INTERRUPTED: Event = Event::of(Wait::Host);
/// What is called for each interrupt.
static OWNER: Once<fn()> = Once::new();

/// Makes the machine's balloon ready to be set up, and sets what is called for each of its
/// interrupts. Called once. Returns `None` if there is no memory.
pub(crate) fn open(device: VirtioDevice, owner: fn()) -> Option<Device> {
    OWNER.call_once(|| owner);
    let device = DEVICE.call_once(|| SpinLock::new(LockRank::BalloonDevice, device));
    BalloonDevice::new(Registers(device))
}

/// Returns whether the configuration may have changed since the last call.
pub(crate) fn take_change() -> bool {
    HAS_CHANGED.swap(false, Ordering::Relaxed)
}

fn interrupt(_: DeviceNumber) -> Acknowledgement {
    let acknowledgement = DEVICE.get().map_or(Acknowledgement::NONE, |device| device.lock().acknowledge());
    if acknowledgement != Acknowledgement::NONE {
        HAS_CHANGED.fetch_or(acknowledgement.may_have_changed(), Ordering::Relaxed);
        INTERRUPTED.signal();
        if let Some(owner) = OWNER.get() {
            owner();
        }
    }
    acknowledgement
}

/// The device's registers. The device is reset when the value is dropped.
#[derive(Debug)]
pub(crate) struct Registers(&'static SpinLock<VirtioDevice>);

impl Drop for Registers {
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
    }
}

impl Connection for Registers {
    fn listen(&mut self, queues: u16) -> core::result::Result<(), SetUpError> {
        self.0.lock().listen(queues, interrupt).map_err(|SharedInterrupt| SetUpError::SharedInterrupt)
    }

    fn is_sure_to_interrupt(&self) -> bool {
        self.0.lock().is_sure_to_interrupt()
    }
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        self.0.lock().kind()
    }

    fn read_device_features(&mut self) -> u64 {
        self.0.lock().transport_mut().read_device_features()
    }

    fn write_driver_features(&mut self, features: u64) {
        self.0.lock().transport_mut().write_driver_features(features);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.0.lock().transport_mut().max_queue_size(queue)
    }

    fn notify(&mut self, queue: u16) {
        self.0.lock().notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.0.lock().transport().get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.0.lock().transport_mut().set_status(status);
    }

    fn set_guest_page_size(&mut self, bytes: u32) {
        self.0.lock().transport_mut().set_guest_page_size(bytes);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.0.lock().transport().requires_legacy_layout()
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.0.lock().transport_mut().queue_set(queue, size, descriptors, driver, device);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.0.lock().transport_mut().queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.lock().transport_mut().queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.0.lock().transport_mut().ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.0.lock().transport().read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        self.0.lock().transport().read_config_space(offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, offset: usize, value: T) -> Result<()> {
        self.0.lock().transport_mut().write_config_space(offset, value)
    }
}

/// A wait for the host in the middle of a call.
#[derive(Debug)]
pub(crate) struct HostWait {
    patience: Patience,
    /// Whether the log says that the host is slow.
    is_logged: bool,
}

impl HostWait {
    pub(crate) fn new() -> Self {
        Self { patience: Patience::new(PATIENCE_NS), is_logged: false }
    }
}

impl Waiter for HostWait {
    fn wait(&mut self) {
        let now = Instant::now();
        let until = self.patience.charge(now);
        if until.is_none() && !core::mem::replace(&mut self.is_logged, true) {
            log::warn!("balloon: the host has not answered for {} s", PATIENCE_NS / 1_000_000_000);
        }
        INTERRUPTED.wait(Some(until.unwrap_or(now.after(CHECK_NS))));
    }
}
