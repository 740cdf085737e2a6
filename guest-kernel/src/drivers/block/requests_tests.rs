//! The driver's side of the queue, against a device that does what each test tells it, in any
//! order, and that breaks the protocol if the test wants it to.

use std::boxed::Box;
use std::vec::Vec;

use aerostat_abi::units::{FRAME_SIZE, FrameNumber, to_usize};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::super::queue::{LARGE, SMALL};
use super::super::shared::HEADER_BYTES;
use super::{
    BlockError, Broken, Direction, Interrupts, MAX_FRAMES, MAX_REQUESTS, Request, Requests, SECTOR_BYTES, Sectors,
};

/// A device: where the driver has put its queue, by addresses in the test's own memory.
#[derive(Default)]
struct FakeDevice {
    descriptors: u64,
    available: u64,
    used: u64,
    seen: u16,
    done: u16,
    /// The size of its queue.
    size: u64,
}

/// A request as the device finds it: the first descriptor, and all buffers, each with whether it is
/// to be written.
struct Found {
    head: u32,
    buffers: Vec<(u64, u32, bool)>,
}

fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the tests read what the driver under test has said is there.
    unsafe { core::ptr::with_exposed_provenance::<T>(to_usize(address)).read_volatile() }
}

fn write<T: Copy>(address: u64, value: T) {
    // SAFETY: as in `read`; the driver shares this memory with its device.
    unsafe { core::ptr::with_exposed_provenance_mut::<T>(to_usize(address)).write_volatile(value) };
}

impl FakeDevice {
    /// Returns the next request that was not taken yet.
    fn next(&mut self) -> Option<Found> {
        if read::<u16>(self.available + 2) == self.seen {
            return None;
        }
        let slot = u64::from(self.seen) % self.size;
        self.seen += 1;
        let head: u16 = read(self.available + 4 + 2 * slot);
        let mut found = Found { head: head.into(), buffers: Vec::new() };
        let mut descriptor = head;
        loop {
            let at = self.descriptors + 16 * u64::from(descriptor);
            let flags: u16 = read(at + 12);
            found.buffers.push((read(at), read(at + 8), flags & 2 != 0));
            if flags & 1 == 0 {
                return Some(found);
            }
            descriptor = read(at + 14);
        }
    }

    /// Reports the chain that begins with `head` as done, with this many bytes written.
    fn finish(&mut self, head: u32, length: u32) {
        let at = self.used + 4 + 8 * (u64::from(self.done) % self.size);
        write(at, head);
        write(at + 4, length);
        self.done += 1;
        write(self.used + 2, self.done);
    }

    /// Serves a request as the standard says: all data that are read are `fill`.
    fn serve(&mut self, found: &Found, status: u8, fill: u8) {
        let written: Vec<_> = found.buffers.iter().filter(|(.., is_written)| *is_written).collect();
        let (status_at, data) = written.split_last().unwrap();
        for (address, bytes, _) in data {
            (0..u64::from(*bytes)).for_each(|place| write(address + place, fill));
        }
        write(status_at.0, status);
        self.finish(found.head, written.iter().map(|(_, bytes, _)| bytes).sum());
    }
}

impl Found {
    fn kind_and_sector(&self) -> (u32, u64) {
        assert_eq!((self.buffers[0].1 as usize, self.buffers[0].2), (HEADER_BYTES, false));
        (read(self.buffers[0].0), read(self.buffers[0].0 + 8))
    }
}

impl Transport for FakeDevice {
    fn queue_set(&mut self, _: u16, _: u32, descriptors: PhysAddr, available: PhysAddr, used: PhysAddr) {
        (self.descriptors, self.available, self.used) = (descriptors, available, used);
    }

    fn max_queue_size(&mut self, _: u16) -> u32 {
        u32::try_from(self.size).unwrap()
    }

    fn queue_used(&mut self, _: u16) -> bool {
        false
    }

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn read_device_features(&mut self) -> u64 {
        unreachable!("the queue does not read features")
    }

    fn write_driver_features(&mut self, _: u64) {}
    fn notify(&mut self, _: u16) {}
    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::empty()
    }
    fn set_status(&mut self, _: DeviceStatus) {}
    fn set_guest_page_size(&mut self, _: u32) {}
    fn queue_unset(&mut self, _: u16) {}
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, _: usize) -> Result<T, Error> {
        Err(Error::ConfigSpaceMissing)
    }
    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> Result<(), Error> {
        Err(Error::ConfigSpaceMissing)
    }
}

/// Memory for a test, in frames of the test's process.
#[repr(C, align(4096))]
struct Memory([[u8; FRAME_SIZE]; MAX_FRAMES]);

struct Bench {
    device: FakeDevice,
    requests: Requests,
    memory: Box<Memory>,
}

impl Bench {
    fn new() -> Self {
        Self::with_queue(LARGE)
    }

    fn with_queue(size: usize) -> Self {
        let mut device = FakeDevice { size: size as u64, ..FakeDevice::default() };
        let requests = Requests::new(&mut device).unwrap();
        Self { device, requests, memory: Box::new(Memory([[0; FRAME_SIZE]; MAX_FRAMES])) }
    }

    fn frame(&mut self, number: usize) -> FrameNumber {
        FrameNumber::containing((&raw mut self.memory.0[number]).expose_provenance() as u64)
    }

    fn submit(&mut self, direction: Direction, first: u64, frames: &[usize]) -> Option<usize> {
        let frames: Vec<_> = frames.iter().map(|&number| self.frame(number)).collect();
        let count = u32::try_from(frames.len() * 8).unwrap();
        self.requests.submit(Request::Transfer { direction, sectors: Sectors { first, count }, frames: &frames })
    }

    /// Submits a read of one frame, and lets the device find it.
    fn read_one(&mut self, number: usize) -> (usize, Found) {
        let slot = self.submit(Direction::Read, 8 * number as u64, &[number]).unwrap();
        (slot, self.device.next().unwrap())
    }
}

#[test]
fn requests_are_done_in_any_order() {
    let mut bench = Bench::new();
    let requests: Vec<_> = (0..5).map(|number| bench.read_one(number)).collect();
    assert_eq!(bench.requests.reap(), Ok(0));
    for &number in &[3, 0, 4, 1, 2] {
        let (slot, found) = &requests[number];
        assert_eq!(found.kind_and_sector(), (0, 8 * number as u64));
        assert_eq!(bench.requests.take(*slot), None);
        bench.device.serve(found, 0, u8::try_from(number).unwrap() + 1);
        assert_eq!(bench.requests.reap(), Ok(1 << slot));
        assert_eq!(bench.requests.take(*slot), Some(Ok(())));
        assert_eq!(bench.requests.take(*slot), None, "a result is taken once");
    }
    assert!((0..5).all(|number| bench.memory.0[number] == [u8::try_from(number).unwrap() + 1; FRAME_SIZE]));
}

#[test]
fn neighbouring_frames_share_a_buffer_and_the_last_may_be_used_in_part() {
    let mut bench = Bench::new();
    bench.submit(Direction::Write, 5, &[0, 1, 2, 7, 6]).unwrap();
    let found = bench.device.next().unwrap();
    let (first, seventh, sixth) = (bench.frame(0).address(), bench.frame(7).address(), bench.frame(6).address());
    assert_eq!(found.kind_and_sector(), (1, 5));
    assert_eq!(found.buffers[1..4], [(first, 3 * 4096, false), (seventh, 4096, false), (sixth, 4096, false)]);
    assert_eq!((found.buffers[4].1, found.buffers[4].2), (1, true));
    let sectors = Sectors { first: 0, count: 9 };
    let frames = [bench.frame(0), bench.frame(1)];
    bench.requests.submit(Request::Transfer { direction: Direction::Read, sectors, frames: &frames }).unwrap();
    let found = bench.device.next().unwrap();
    assert_eq!(u64::from(found.buffers[1].1), 9 * SECTOR_BYTES);
}

#[test]
fn other_requests_are_as_the_standard_has_them() {
    let mut bench = Bench::new();
    bench.requests.submit(Request::Flush).unwrap();
    let flush = bench.device.next().unwrap();
    assert_eq!((flush.kind_and_sector(), flush.buffers.len()), ((4, 0), 2));
    bench.requests.submit(Request::Discard(Sectors { first: 77, count: 9 })).unwrap();
    let discard = bench.device.next().unwrap();
    let (range, bytes, is_written) = discard.buffers[1];
    assert_eq!((discard.kind_and_sector().0, bytes, is_written), (11, 16, false));
    assert_eq!((read::<u64>(range), read::<u32>(range + 8), read::<u32>(range + 12)), (77, 9, 0));
    let slot = bench.requests.submit(Request::Identify).unwrap();
    let identify = bench.device.next().unwrap();
    assert_eq!((identify.kind_and_sector().0, identify.buffers[1].1), (8, 20));
    bench.device.serve(&identify, 0, b'x');
    bench.requests.reap().unwrap();
    assert_eq!((bench.requests.take(slot), bench.requests.identity(slot)), (Some(Ok(())), [b'x'; 20]));
}

#[test]
fn a_device_with_a_small_queue_takes_the_largest_request() {
    let mut bench = Bench::with_queue(SMALL);
    let scattered: Vec<_> = (0..MAX_FRAMES).map(|number| number / 2 + number % 2 * (MAX_FRAMES / 2)).collect();
    let slot = bench.submit(Direction::Write, 0, &scattered).unwrap();
    let found = bench.device.next().unwrap();
    assert_eq!(found.buffers.len(), MAX_FRAMES + 2);
    assert_eq!(bench.submit(Direction::Write, 0, &scattered), None);
    bench.device.serve(&found, 0, 0);
    assert_eq!(bench.requests.reap(), Ok(1 << slot));
    assert!(bench.submit(Direction::Write, 0, &scattered).is_some());
    let mut tiny = FakeDevice { size: SMALL as u64 / 2, ..FakeDevice::default() };
    assert!(Requests::new(&mut tiny).is_err(), "the largest request would never fit");
}

#[test]
fn a_full_queue_takes_no_more_until_something_is_done() {
    let mut bench = Bench::new();
    // Every other frame: a buffer each, so that descriptors are what runs out.
    let scattered: Vec<_> = (0..MAX_FRAMES).map(|number| number * 2 % MAX_FRAMES).collect();
    let large: Vec<_> = core::iter::from_fn(|| bench.submit(Direction::Write, 0, &scattered)).collect();
    assert!((3..MAX_REQUESTS).contains(&large.len()), "{}", large.len());
    let found = bench.device.next().unwrap();
    bench.device.serve(&found, 0, 0);
    bench.requests.reap().unwrap();
    assert!(bench.submit(Direction::Write, 0, &scattered).is_some());

    let mut bench = Bench::new();
    let small: Vec<_> = core::iter::from_fn(|| bench.submit(Direction::Write, 0, &[0])).collect();
    assert_eq!(small.len(), MAX_REQUESTS);
    let found = bench.device.next().unwrap();
    bench.device.serve(&found, 0, 0);
    bench.requests.reap().unwrap();
    assert_eq!(bench.submit(Direction::Write, 0, &[0]), None, "a place is taken until the result is");
    assert_eq!(bench.requests.take(small[0]), Some(Ok(())));
    assert!(bench.submit(Direction::Write, 0, &[0]).is_some());
}

#[test]
fn errors_are_reported() {
    for (status, expected) in [(1, BlockError::Failed), (2, BlockError::Unsupported), (0xff, BlockError::Failed)] {
        let mut bench = Bench::new();
        let (slot, found) = bench.read_one(0);
        bench.device.serve(&found, status, 0);
        bench.requests.reap().unwrap();
        assert_eq!(bench.requests.take(slot), Some(Err(expected)));
    }
}

#[test]
fn lengths_that_cannot_be_are_errors() {
    for length in [0, 1, 4096, 4098, u32::MAX] {
        let mut bench = Bench::new();
        let (slot, found) = bench.read_one(0);
        write(found.buffers[2].0, 0_u8);
        bench.device.finish(found.head, length);
        bench.requests.reap().unwrap();
        assert_eq!(bench.requests.take(slot), Some(Err(BlockError::Failed)), "{length}");
    }
}

#[test]
fn a_device_that_names_other_requests_is_broken() {
    for head in [1, 2, 255, 256, u32::MAX] {
        let mut bench = Bench::new();
        let (slot, _) = bench.read_one(0);
        bench.device.finish(head, 4097);
        assert_eq!(bench.requests.reap(), Err(Broken), "{head}");
        assert_eq!(bench.requests.fail_all(), 1 << slot);
        assert_eq!(bench.requests.take(slot), Some(Err(BlockError::DeviceBroken)));
    }
}

#[test]
fn a_device_that_is_done_twice_is_broken() {
    let mut bench = Bench::new();
    let (slot, found) = bench.read_one(0);
    bench.device.serve(&found, 0, 0);
    bench.device.finish(found.head, 4097);
    assert_eq!(bench.requests.reap(), Err(Broken));
    assert_eq!(bench.requests.take(slot), Some(Ok(())), "what it has done before it has done");
}

#[test]
fn interrupts_are_off_until_they_are_enabled() {
    let mut bench = Bench::new();
    let flags = bench.device.available;
    assert_eq!(read::<u16>(flags), 1);
    bench.requests.let_interrupt(Interrupts::Wanted);
    assert_eq!(read::<u16>(flags), 0);
    bench.requests.let_interrupt(Interrupts::Unwanted);
    assert_eq!(read::<u16>(flags), 1);
}

#[test]
fn the_device_says_whether_to_notify_it() {
    let bench = Bench::new();
    assert!(bench.requests.should_notify());
    write(bench.device.used, 1_u16);
    assert!(!bench.requests.should_notify());
}
