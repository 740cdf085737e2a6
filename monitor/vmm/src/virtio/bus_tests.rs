//! Tests disks on their bus, with their workers, driven through registers.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use aerostat_abi::units::FrameCount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

use super::device::{Identity, read_bytes};
use super::memory::{Buffers, DeviceMemory};
use super::queue::{Broken, Request, Requests, Served};
use super::registers::QueueSetup;
use super::test_driver::{DATA, Driver, GET_ID, IN, SETUP, WRITE};
use super::{Bus, Device, Disk, FIRST_VECTOR, slots};
use crate::layout::MemoryLayout;
use crate::lock::lock;
use crate::memory::GuestMemory;
use aerostat_link::disk::{DiskFaults, DiskMode, DiskRole, OpenDisk};

const BASE: u64 = 0xd000_0000;

struct Bench {
    bus: Bus,
    memory: DeviceMemory,
    interrupts: Vec<EventFd>,
}

impl Bench {
    fn new(roles: &[DiskRole]) -> Self {
        let disks = roles.iter().map(|&role| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[role.id().len().to_le_bytes()[0]; 4096], 0).unwrap();
            let disk = OpenDisk { role, mode: DiskMode::ReadWrite, faults: DiskFaults::default(), file };
            Arc::new(Disk::new(disk, None, crate::transfers::Transfers::default()).unwrap()) as Arc<dyn Device>
        });
        Self::with_devices(disks.collect())
    }

    fn with_devices(devices: Vec<Arc<dyn Device>>) -> Self {
        let owner = Arc::new(GuestMemory::new(MemoryLayout::new(FrameCount::from_mib(4)).unwrap()).unwrap());
        let mut interrupts = Vec::new();
        let bus = Bus::new(devices, &owner, |wires| {
            interrupts.push(wires.interrupt.try_clone()?);
            Ok::<_, std::io::Error>(())
        });
        Self { bus: bus.unwrap(), memory: DeviceMemory::new(owner).unwrap(), interrupts }
    }

    fn read(&self, device: u64, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.bus.read(BASE + device * 0x1000 + offset, &mut word).unwrap();
        u32::from_le_bytes(word)
    }

    fn write(&self, device: u64, offset: u64, value: u32) {
        self.bus.write(BASE + device * 0x1000 + offset, &value.to_le_bytes()).unwrap();
    }

    /// Does what a driver does to a device before its first request.
    fn initialise(&self, device: u64) {
        self.initialise_queues(device, 1 << 9, &[SETUP]);
    }

    /// Does the same for a device of these queues, and negotiates `features`.
    fn initialise_queues(&self, device: u64, features: u32, queues: &[QueueSetup]) {
        for (offset, value) in
            [(0x70, 0), (0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x24, 0), (0x20, features), (0x70, 11)]
        {
            self.write(device, offset, value);
        }
        for (number, queue) in (0..).zip(queues) {
            self.write(device, 0x30, number);
            self.write(device, 0x38, queue.size);
            for (offset, address) in [(0x80, queue.descriptors), (0x90, queue.driver_ring), (0xa0, queue.device_ring)] {
                self.write(device, offset, u32::try_from(address).unwrap());
            }
            self.write(device, 0x44, 1);
        }
        self.write(device, 0x70, 15);
        assert_eq!(self.read(device, 0x70), 15);
    }

    /// Waits for a device's interrupt.
    fn await_interrupt(&self, device: usize) {
        let interrupt = &self.interrupts[device];
        // SAFETY: the descriptor is open as long as `self`.
        let descriptor = unsafe { BorrowedFd::borrow_raw(interrupt.as_raw_fd()) };
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        let mut source = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
        assert_eq!(poll(&mut source, Some(&patience)).unwrap(), 1, "the interrupt comes");
        interrupt.read().unwrap();
    }
}

#[test]
fn each_disk_serves_its_own_queue() {
    let bench = Bench::new(&[DiskRole::Data, DiskRole::Swap]);
    for (device, id) in [(0, b"data"), (1, b"swap")] {
        assert_eq!((bench.read(device, 0), bench.read(device, 8)), (0x7472_6976, 2));
        assert_eq!((bench.read(device, 0x100), bench.read(device, 0x104)), (8, 0), "8 sectors");
        bench.initialise(device);
        let memory = (*bench.memory).clone();
        let mut driver = Driver::new(&memory);
        driver.request(GET_ID, 0, &[(DATA, 20, WRITE)]);
        bench.write(device, 0x50, 0);
        bench.await_interrupt(usize::try_from(device).unwrap());
        assert_eq!((driver.finished(), driver.get(DATA, 4)), (Some((0, 21)), id.to_vec()));
        assert_eq!(bench.read(device, 0x60), 1);
        bench.write(device, 0x64, 1);
        assert_eq!(bench.read(device, 0x60), 0);
    }
    assert_eq!(bench.bus.complaints().count(), 0);
}

/// A device that is no disk: it inverts bits of a request's four bytes, by a mask for each queue
/// that the driver sets in the configuration space.
#[derive(Debug, Default)]
struct Inverter {
    masks: Mutex<[u8; 2]>,
}

impl Device for Inverter {
    fn name(&self) -> &str {
        "inverter"
    }

    fn identity(&self) -> Identity {
        Identity { device_id: 42, features: 1 << 5, queue_sizes: &[256, 16] }
    }

    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> Option<()> {
        read_bytes(&*lock(&self.masks), offset, bytes)
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        lock(&self.masks).get_mut(offset..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(())
    }

    fn serve(&self, requests: &mut Requests<'_>) -> Result<(), Broken> {
        assert_eq!(requests.features(), 1 << 32 | 1 << 5);
        while let Some(Request { head, chain }) = requests.next(2)? {
            let mut bytes = [0; 4];
            Buffers::new(requests.memory(), &chain.readable)?.copy_to(&mut bytes);
            let mask = lock(&self.masks)[requests.index().0];
            let inverted = bytes.map(|byte| byte ^ mask);
            Buffers::new(requests.memory(), &chain.writable)?.copy_from(&inverted);
            requests.finish(head, Served { written: 4, moved: 4 })?;
        }
        Ok(())
    }
}

/// Bus and transport know nothing of disks: another kind of device has its own identity, several
/// queues that work at the same time, and a configuration space that the driver writes.
#[test]
fn a_device_of_another_kind_has_its_own_queues_and_configuration() {
    let bench = Bench::with_devices(vec![Arc::new(Inverter::default())]);
    assert_eq!(bench.read(0, 8), 42);
    for (queue, most) in [(0, 256), (1, 16), (2, 0)] {
        bench.write(0, 0x30, queue);
        assert_eq!(bench.read(0, 0x34), most);
    }
    // The second queue's parts lie behind the first one's.
    let second = QueueSetup { descriptors: 0x1_0000, driver_ring: 0x1_0200, device_ring: 0x1_0300, ..SETUP };
    bench.initialise_queues(0, 1 << 5, &[SETUP, second]);
    assert_eq!(bench.bus.write(BASE + 0x100, &[0xff, 0x0f]), Some(()));
    assert_eq!(bench.bus.write(BASE + 0x101, &[0, 0]), None, "there are two bytes");
    let mut masks = [0; 2];
    assert_eq!(bench.bus.read(BASE + 0x100, &mut masks), Some(()));
    assert_eq!(masks, [0xff, 0x0f]);

    let memory = (*bench.memory).clone();
    for (number, setup, mask) in [(1, second, 0x0f_u8), (0, SETUP, 0xff)] {
        let mut driver = Driver::of_queue(&memory, setup);
        driver.put(DATA, &[1, 2, 3, 4]);
        driver.offer_parts(&[(DATA, 4, 0), (DATA + 8, 4, WRITE)]);
        bench.write(0, 0x50, number);
        bench.await_interrupt(0);
        assert_eq!(driver.finished(), Some((0, 4)));
        assert_eq!(driver.get(DATA + 8, 4), [1, 2, 3, 4].map(|byte| byte ^ mask));
        assert_eq!(driver.finished(), None);
    }
    // A queue that breaks the rules stops the device, not only itself.
    Driver::of_queue(&memory, second).set_available(100);
    bench.write(0, 0x50, 1);
    bench.await_interrupt(0);
    assert_eq!(bench.read(0, 0x70), 15 | 0x40);
    let complaints: Vec<_> = bench.bus.complaints().collect();
    assert!(complaints[0].starts_with("inverter stopped: the queue is broken"), "{complaints:?}");
}

#[test]
fn unanswered_accesses_are_reported() {
    let bench = Bench::new(&[DiskRole::Data]);
    let mut word = [7; 4];
    for address in [0, BASE - 4, BASE + 0x50, BASE + 0x1000, BASE + 0x12c, BASE + 0x12e, BASE + 0xffc, u64::MAX] {
        assert_eq!(bench.bus.read(address, &mut word), (address == BASE + 0x12c).then_some(()), "{address:#x}");
    }
    assert_eq!(bench.bus.read(BASE, &mut [0; 2]), None, "registers are words");
    assert_eq!(bench.bus.read(BASE + 0x100, &mut [0; 8]), Some(()));
    assert_eq!(bench.bus.read(BASE + 0x101, &mut [0; 1]), Some(()));
    for (address, bytes) in [(BASE + 0x70, 1), (BASE + 0x70, 8), (BASE + 0x100, 4), (BASE + 0x1000, 4), (BASE, 4)] {
        assert_eq!(bench.bus.write(address, &[0; 8][..bytes]), None, "{address:#x}");
    }
    assert_eq!(bench.bus.write(BASE + 0x50, &1_u32.to_le_bytes()), None, "there is one queue");
    assert!(Bus::default().read(BASE, &mut word).is_none());
}

#[test]
fn resets_during_work_lose_nothing() {
    let bench = Bench::new(&[DiskRole::Data]);
    let memory = (*bench.memory).clone();
    for _ in 0..200 {
        let mut driver = Driver::new(&memory);
        bench.initialise(0);
        driver.request(IN, 0, &[(DATA, 4096, WRITE)]);
        bench.write(0, 0x50, 0);
        bench.write(0, 0x70, 0);
        // The device is idle from here on: what it has not done by now it never does.
        driver.put(DATA, &[0; 4096]);
        assert_eq!((bench.read(0, 0x70), bench.read(0, 0x60)), (0, 0));
        assert_eq!(driver.get(DATA, 4096), [0; 4096]);
    }
    let mut driver = Driver::new(&memory);
    bench.initialise(0);
    driver.request(IN, 0, &[(DATA, 4096, WRITE)]);
    bench.write(0, 0x50, 0);
    while driver.finished().is_none() {
        bench.await_interrupt(0);
    }
    assert_eq!(driver.get(DATA, 4096), [4; 4096]);
}

#[test]
fn a_broken_queue_is_reported() {
    let bench = Bench::new(&[DiskRole::Swap]);
    bench.initialise(0);
    let memory = (*bench.memory).clone();
    Driver::new(&memory).set_available(100);
    bench.write(0, 0x50, 0);
    bench.await_interrupt(0);
    assert_eq!((bench.read(0, 0x70), bench.read(0, 0x60)), (15 | 0x40, 2));
    let complaints: Vec<_> = bench.bus.complaints().collect();
    assert!(complaints[0].starts_with("disk swap stopped: the queue is broken"), "{complaints:?}");
}

#[test]
fn slots_follow_each_other() {
    let all: Vec<_> = slots(100).map(|slot| (slot.address.0, slot.bytes, slot.vector)).collect();
    assert_eq!(all.len(), 16);
    assert_eq!((all[0], all[15]), ((BASE, 0x1000, FIRST_VECTOR), (BASE + 0xf000, 0x1000, 0x5f)));
}
