//! A disk without a guest, for a fuzzer: a script writes its registers, the queue in guest memory
//! and the data, and the queue is served between two steps as its worker would. Behind the feature
//! `harness`; not part of the program.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use aerostat_abi::units::FrameCount;
use aerostat_link::disk::{DiskFaults, DiskMode, DiskRole, OpenDisk};
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::adaptive_poll::AdaptivePoll;
use super::block::Disk;
use super::device::{Device, QueueIndex};
use super::memory::DeviceMemory;
use super::mmio::MmioDevice;
use super::registers::{CONFIG, QUEUE_NOTIFY};
use super::state::State;
use super::worker::serve;
use crate::layout::MemoryLayout;
use crate::memory::GuestMemory;
use crate::transfers::Transfers;

/// The disk's size, which its contents begin with: whole sectors.
const DISK_BYTES: usize = 16 << 10;
const MEMORY: FrameCount = FrameCount::from_mib(4);
const QUEUE: QueueIndex = QueueIndex(0);
/// Where scripts have the parts of a queue if they are to be valid: all within reach of 16 bits.
const DESCRIPTORS: u32 = 0x1000;
const DRIVER_RING: u32 = 0x2000;
const DEVICE_RING: u32 = 0x3000;
/// What a driver writes before its first request, and the size of its queue.
const START: [(u64, u32); 16] = [
    (0x70, 0),
    (0x70, 1),
    (0x70, 3),
    (0x24, 1),
    (0x20, 1),
    (0x24, 0),
    (0x20, 1 << 9),
    (0x70, 11),
    (0x30, 0),
    (0x38, 16),
    (0x80, DESCRIPTORS),
    (0x90, DRIVER_RING),
    (0xa0, DEVICE_RING),
    (0x44, 1),
    (0x70, 15),
    (QUEUE_NOTIFY, 0),
];

/// Plays a script of any bytes.
///
/// # Panics
/// When the device harms what is not the guest's: the disk's size, or a disk that may only be read.
pub fn play(script: &[u8]) {
    let mut script = Script(script);
    let mode = if script.byte() & 1 == 0 { DiskMode::ReadOnly } else { DiskMode::ReadWrite };
    let mut machine = Machine::new(mode);
    while !script.0.is_empty() {
        machine.step(&mut script);
    }
    machine.check(mode);
}

/// A script that is being played; its end reads as zeros.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn word(&mut self) -> u32 {
        u32::from(self.half()) | u32::from(self.half()) << 16
    }
}

struct Machine {
    file: File,
    disk: Arc<Disk>,
    state: Arc<State>,
    memory: Arc<DeviceMemory>,
    device: MmioDevice,
    /// The worker's eventfd.
    kick: EventFd,
}

impl Machine {
    fn new(mode: DiskMode) -> Self {
        let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC).expect("a host has memory files"));
        file.write_all_at(&contents(), 0).expect("a memory file can be written");
        let open = OpenDisk {
            role: DiskRole::Data,
            mode,
            faults: DiskFaults::default(),
            file: file.try_clone().expect("a descriptor can be copied"),
        };
        let disk = Arc::new(Disk::new(open, None, Transfers::default()).expect("the disk is a file"));
        let event = || EventFd::new(EFD_NONBLOCK).expect("a host has eventfds");
        let state = Arc::new(State::new(1, event()));
        let layout = MemoryLayout::new(MEMORY).expect("a machine may have this size");
        let owner = Arc::new(GuestMemory::new(layout).expect("a host has memory"));
        let memory = Arc::new(DeviceMemory::new(owner).expect("devices can see it"));
        let kick = event();
        let kicks = vec![kick.try_clone().expect("a descriptor can be copied")];
        let shared = (Arc::clone(&disk) as Arc<dyn Device>, Arc::clone(&state), Arc::clone(&memory));
        let device = MmioDevice::new(shared.0, shared.1, shared.2, kicks);
        Self { file, disk, state, memory, device, kick }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 10 {
            0 => self.access(script),
            1 => START.iter().for_each(|&(offset, value)| self.write(offset, value)),
            2 => {
                let (offset, value) = (u64::from(script.byte()) * 4, script.word());
                self.write(offset, value);
            }
            3 | 4 => self.put_descriptor(script),
            5 => self.offer(script),
            6 => self.put(u64::from(script.half()), &script.word().to_le_bytes()),
            7 => {
                // A header: type and sector.
                let (at, kind, sector) = (script.half(), script.byte(), script.byte());
                self.put(u64::from(at), &u32::from(kind % 16).to_le_bytes());
                self.put(u64::from(at) + 8, &u64::from(sector).to_le_bytes());
            }
            8 => self.write(QUEUE_NOTIFY, u32::from(script.byte() % 3)),
            _ => serve(&*self.disk, QUEUE, (&self.state, &self.memory), &mut AdaptivePoll::default()),
        }
        if self.kick.read().is_ok() {
            serve(&*self.disk, QUEUE, (&self.state, &self.memory), &mut AdaptivePoll::default());
        }
    }

    /// Accesses a register, or the configuration, with any width.
    fn access(&self, script: &mut Script<'_>) {
        let (offset, how) = (u64::from(script.half()) % (2 * CONFIG), script.byte());
        let mut bytes = [0; 8];
        bytes.iter_mut().for_each(|byte| *byte = script.byte());
        let width = usize::from(how >> 1) % 9;
        let _ = match how & 1 {
            0 => self.device.read(offset, &mut bytes[..width]),
            _ => self.device.write(offset, &bytes[..width]),
        };
    }

    /// Writes a register; what there is none for is ignored, as by the bus.
    fn write(&self, offset: u64, value: u32) {
        let _ = self.device.write(offset, &value.to_le_bytes());
    }

    fn put_descriptor(&self, script: &mut Script<'_>) {
        let (index, how) = (script.byte() % 20, script.byte());
        let address = if how & 0x80 == 0 { u64::from(script.half()) } else { u64::from(script.word()) << 24 };
        let bytes = if how & 0x40 == 0 { u32::from(script.half()) } else { script.word() };
        let (flags, next) = (u16::from(how & 7), u16::from(script.byte() % 18));
        let rest = u64::from(bytes) | u64::from(flags) << 32 | u64::from(next) << 48;
        let at = u64::from(DESCRIPTORS) + u64::from(index) * 16;
        self.put(at, &address.to_le_bytes());
        self.put(at + 8, &rest.to_le_bytes());
    }

    /// Makes a chain available, or claims that many are.
    fn offer(&self, script: &mut Script<'_>) {
        let (head, how) = (script.byte(), script.byte());
        let index = self.memory.read_obj::<u16>(GuestAddress(u64::from(DRIVER_RING) + 2)).unwrap_or_default();
        self.put(u64::from(DRIVER_RING) + 4 + u64::from(index % 16) * 2, &u16::from(head % 20).to_le_bytes());
        let step = if how < 0xf0 { 1 } else { script.half() };
        self.put(u64::from(DRIVER_RING) + 2, &index.wrapping_add(step).to_le_bytes());
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let _ = self.memory.write_slice(bytes, GuestAddress(at));
    }

    fn check(&self, mode: DiskMode) {
        assert_eq!(self.file.metadata().map(|metadata| metadata.len()).ok(), Some(DISK_BYTES as u64));
        if mode == DiskMode::ReadOnly {
            let mut now = vec![0; DISK_BYTES];
            self.file.read_exact_at(&mut now, 0).expect("the disk can be read");
            assert!(now == contents(), "a disk that may only be read was written");
        }
    }
}

fn contents() -> Vec<u8> {
    (0..DISK_BYTES).map(|at| (at / 512).to_le_bytes()[0] | 1).collect()
}

#[cfg(test)]
mod tests {
    use super::{DISK_BYTES, Machine, Script, play};
    use aerostat_link::disk::DiskMode;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};
    use std::fs;
    use std::os::unix::fs::FileExt;

    /// Writes a sector: starts the device, a header, three descriptors, a chain, a notification.
    const WRITE: [u8; 34] = [
        1, // starts the device
        7, 0, 0x40, 1, 2, // a write of sector 2
        3, 0, 1, 0, 0x40, 16, 0, 1, // the header
        3, 1, 1, 0, 0x50, 0, 2, 2, // 512 bytes of data
        3, 2, 2, 0, 0x60, 1, 0, 0, // the status
        5, 0, 0, // offers the chain
        8,
    ];

    #[test]
    fn a_script_can_write_a_sector_and_not_on_a_disk_that_may_only_be_read() {
        for (mode, is_written) in [(DiskMode::ReadWrite, true), (DiskMode::ReadOnly, false)] {
            let mut machine = Machine::new(mode);
            let mut script = Script(&WRITE);
            while !script.0.is_empty() {
                machine.step(&mut script);
            }
            let mut sector = [0xff; 512];
            machine.file.read_exact_at(&mut sector, 1024).unwrap();
            assert_eq!(sector == [0; 512], is_written, "{mode:?}: {:?}", machine.device.complaint());
            assert_eq!(machine.file.metadata().unwrap().len(), DISK_BYTES as u64);
        }
    }

    #[test]
    fn the_fuzzers_seeds_are_run() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/virtio_disk");
        let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
        assert!(!seeds.is_empty());
        seeds.iter().for_each(|seed| play(&fs::read(seed).unwrap()));
    }

    proptest! {
        #[test]
        fn any_script_can_be_played(script in vec(any::<u8>(), 0..300)) {
            play(&script);
        }
    }
}
