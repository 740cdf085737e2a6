//! The driver's side of a balloon device, against a device that does what each test tells it, also
//! what no device should do.
#![allow(unsafe_code, reason = "accesses queues as a device does")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::{FrameNumber, HUGE_FRAMES, to_usize};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    BalloonDevice, CONFIG_ACTUAL, CONFIG_HINT_COMMAND, CONFIG_NUM_PAGES, Connection, Direction, Lost, SetUpError,
    Waiter,
};
use crate::drivers::balloon::features::Features;
use crate::drivers::virtio::negotiation::NegotiationError;

const VERSION_1: u64 = 1 << 32;
const OFFERED: u64 = VERSION_1 | Features::STATS_VQ.0 | Features::PAGE_REPORTING.0;
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATISTICS: u16 = 2;
const REPORTING: u16 = 3;
/// Its number where there are no statistics.
const HINTING: u16 = 2;

/// What comes through the queue of hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    Number(u32),
    Memory(u64, u32),
}

/// When and how a device does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    /// Within the notification, as an emulated device.
    AtOnce,
    /// When the driver waits for the third time, in the opposite order, with an absurd length.
    Late,
    /// It names a buffer that it does not have.
    WrongToken(u32),
    /// It says that it is done with more buffers than there are.
    TooMany,
    /// It does nothing and asks for a reset.
    NeedsReset,
}

#[derive(Clone, Copy, Debug, Default)]
struct FakeQueue {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    seen: u16,
    done: u16,
}

struct FakeDevice {
    offered: u64,
    accepted: u64,
    agrees: bool,
    status: DeviceStatus,
    statuses: Vec<DeviceStatus>,
    config: BTreeMap<usize, u32>,
    queues: [FakeQueue; 5],
    max_queue_size: u32,
    behaviour: Behaviour,
    waits: u32,
    /// The device's view of the balloon, as numbers of frames in their order.
    moved: Vec<(u16, Vec<u32>)>,
    reported: Vec<(u64, u32)>,
    hints: Vec<Hint>,
    /// What the statistics were, and the token of their buffer.
    statistics: Option<(Vec<u8>, u32)>,
    resets: u32,
    listened_queues: u16,
    generation: u32,
}

fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the tests read what the driver under test has said is there.
    unsafe { core::ptr::with_exposed_provenance::<T>(to_usize(address)).read_volatile() }
}

fn write<T: Copy>(address: u64, value: T) {
    // SAFETY: as in `read`; the driver shares this memory with its device.
    unsafe { core::ptr::with_exposed_provenance_mut::<T>(to_usize(address)).write_volatile(value) };
}

impl FakeQueue {
    /// Returns the next buffer that was not taken yet: token, address, length, whether it is to be
    /// written.
    fn next(&mut self) -> Option<(u32, u64, u32, bool)> {
        if self.size == 0 || read::<u16>(self.available + 2) == self.seen {
            return None;
        }
        let head: u16 = read(self.available + 4 + 2 * u64::from(self.seen % self.size));
        self.seen = self.seen.wrapping_add(1);
        let at = self.descriptors + 16 * u64::from(head);
        let flags: u16 = read(at + 12);
        assert_eq!(flags & 1, 0, "a chain has one buffer");
        Some((head.into(), read(at), read(at + 8), flags & 2 != 0))
    }

    fn finish(&mut self, token: u32, length: u32) {
        let at = self.used + 4 + 8 * u64::from(self.done % self.size);
        write(at, token);
        write(at + 4, length);
        self.done = self.done.wrapping_add(1);
        write(self.used + 2, self.done);
    }
}

impl FakeDevice {
    fn take_all(&mut self, number: u16) -> Vec<u32> {
        let mut tokens = Vec::new();
        while let Some((token, address, length, is_written)) = self.queues[usize::from(number)].next() {
            match number {
                INFLATE | DEFLATE => {
                    assert!(!is_written && length <= 1024, "as long as the arrays of Linux");
                    let frames = (0..u64::from(length / 4)).map(|index| read(address + 4 * index)).collect();
                    self.moved.push((number, frames));
                }
                STATISTICS if self.offered & Features::STATS_VQ.0 != 0 => {
                    assert!(self.statistics.is_none(), "there is one buffer");
                    let bytes = (0..u64::from(length)).map(|index| read(address + index)).collect();
                    self.statistics = Some((bytes, token));
                    continue; // until the host asks
                }
                HINTING if self.offered & Features::FREE_PAGE_HINT.0 != 0 => {
                    let hint = if is_written { Hint::Memory(address, length) } else { Hint::Number(read(address)) };
                    self.hints.push(hint);
                }
                _ => {
                    assert!(is_written);
                    self.reported.push((address, length));
                }
            }
            tokens.push(token);
        }
        tokens
    }

    fn work(&mut self, number: u16) {
        let tokens = self.take_all(number);
        let queue = &mut self.queues[usize::from(number)];
        match self.behaviour {
            Behaviour::AtOnce => tokens.into_iter().for_each(|token| queue.finish(token, 0)),
            Behaviour::Late => tokens.into_iter().rev().for_each(|token| queue.finish(token, u32::MAX)),
            Behaviour::WrongToken(token) => queue.finish(token, 0),
            Behaviour::TooMany => {
                tokens.into_iter().for_each(|token| queue.finish(token, 0));
                write(queue.used + 2, queue.done.wrapping_add(7));
            }
            Behaviour::NeedsReset => self.status |= DeviceStatus::DEVICE_NEEDS_RESET,
        }
    }

    /// The host asks for statistics.
    fn ask(&mut self) {
        let (_, token) = self.statistics.take().expect("the driver has given them");
        self.queues[usize::from(STATISTICS)].finish(token, 0);
    }
}

#[derive(Clone)]
struct Fake(Rc<RefCell<FakeDevice>>);

impl Transport for Fake {
    fn device_type(&self) -> DeviceType {
        DeviceType::MemoryBalloon
    }

    fn read_device_features(&mut self) -> u64 {
        self.0.borrow().offered
    }

    fn write_driver_features(&mut self, features: u64) {
        self.0.borrow_mut().accepted = features;
    }

    fn max_queue_size(&mut self, _: u16) -> u32 {
        self.0.borrow().max_queue_size
    }

    fn notify(&mut self, queue: u16) {
        let mut device = self.0.borrow_mut();
        assert!(device.status.contains(DeviceStatus::DRIVER_OK), "a device is notified when it is set up");
        if queue == STATISTICS && device.offered & Features::STATS_VQ.0 != 0 {
            device.take_all(queue);
        } else if device.behaviour != Behaviour::Late {
            device.work(queue);
        }
    }

    fn get_status(&self) -> DeviceStatus {
        self.0.borrow().status
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let mut device = self.0.borrow_mut();
        if status.is_empty() {
            device.resets += 1;
            device.queues = [FakeQueue::default(); 5];
            device.statistics = None;
            device.statuses.clear();
        }
        device.status = status;
        if !device.agrees {
            device.status.remove(DeviceStatus::FEATURES_OK);
        }
        device.statuses.push(status);
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, available: PhysAddr, used: PhysAddr) {
        let size = u16::try_from(size).unwrap();
        self.0.borrow_mut().queues[usize::from(queue)] =
            FakeQueue { size, descriptors, available, used, ..FakeQueue::default() };
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.borrow().queues[usize::from(queue)].size > 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::QUEUE_INTERRUPT // for ever: a driver that waits for the end of it hangs
    }

    fn read_config_generation(&self) -> u32 {
        self.0.borrow().generation
    }

    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> Result<V, Error> {
        let word = *self.0.borrow().config.get(&offset).ok_or(Error::ConfigSpaceTooSmall)?;
        V::read_from_bytes(word.as_bytes()).map_err(|_| Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<V: IntoBytes + Immutable>(&mut self, offset: usize, value: V) -> Result<(), Error> {
        let word = u32::read_from_bytes(value.as_bytes()).map_err(|_| Error::ConfigSpaceTooSmall)?;
        self.0.borrow_mut().config.insert(offset, word);
        Ok(())
    }
}

impl Connection for Fake {
    fn listen(&mut self, queues: u16) -> Result<(), SetUpError> {
        let mut device = self.0.borrow_mut();
        assert!(!device.status.contains(DeviceStatus::DRIVER_OK), "a device that is ready may interrupt");
        device.listened_queues = queues;
        Ok(())
    }

    fn is_sure_to_interrupt(&self) -> bool {
        true
    }
}

/// A thread that waits: time passes for the device.
impl Waiter for Fake {
    fn wait(&mut self) {
        let mut device = self.0.borrow_mut();
        device.waits += 1;
        assert!(device.waits < 100, "the driver waits without end");
        if device.behaviour == Behaviour::Late && device.waits == 3 {
            let has_hints = device.offered & Features::FREE_PAGE_HINT.0 != 0;
            let queues = [INFLATE, DEFLATE, if has_hints { HINTING } else { REPORTING }];
            queues.into_iter().for_each(|queue| device.work(queue));
        }
    }
}

fn device(behaviour: Behaviour) -> (BalloonDevice<Fake>, Fake) {
    let fake = Fake(Rc::new(RefCell::new(FakeDevice {
        offered: OFFERED,
        accepted: 0,
        agrees: true,
        status: DeviceStatus::empty(),
        statuses: Vec::new(),
        config: [(CONFIG_NUM_PAGES, 0), (CONFIG_ACTUAL, 0)].into(),
        queues: [FakeQueue::default(); 5],
        max_queue_size: 128,
        behaviour,
        waits: 0,
        moved: Vec::new(),
        reported: Vec::new(),
        hints: Vec::new(),
        statistics: None,
        resets: 0,
        listened_queues: 0,
        generation: 0,
    })));
    (BalloonDevice::new(fake.clone()).unwrap(), fake)
}

fn frames(count: u64) -> impl Iterator<Item = FrameNumber> {
    (1000..1000 + count).map(FrameNumber)
}

fn names(fake: &Fake, queue: u16) -> Vec<u32> {
    fake.0.borrow().moved.iter().filter(|(number, _)| *number == queue).flat_map(|(_, frames)| frames.clone()).collect()
}

#[test]
fn a_device_is_set_up_step_by_step() {
    let (mut device, fake) = device(Behaviour::AtOnce);
    let features = device.set_up().unwrap();
    assert!(features.contains(Features::STATS_VQ) && features.contains(Features::PAGE_REPORTING));
    let steps = [1, 3, 11, 15].map(DeviceStatus::from_bits_retain);
    assert_eq!(fake.0.borrow().statuses[1..], steps, "after the reset, one bit at a time");
    assert_eq!(fake.0.borrow().listened_queues, 4);
    assert!(fake.0.borrow().queues[..4].iter().all(|queue| queue.size > 0));
    assert_eq!(fake.0.borrow().queues[4].size, 0);
}

#[test]
fn devices_that_cannot_be_used_are_refused() {
    let refusal = |change: fn(&mut FakeDevice)| {
        let (mut device, fake) = device(Behaviour::AtOnce);
        change(&mut fake.0.borrow_mut());
        device.set_up().unwrap_err()
    };
    assert_eq!(refusal(|device| device.offered &= !VERSION_1), SetUpError::Negotiation(NegotiationError::Legacy));
    assert_eq!(refusal(|device| device.agrees = false), SetUpError::Negotiation(NegotiationError::Refused));
    assert_eq!(refusal(|device| device.max_queue_size = 0), SetUpError::Queue(Error::InvalidParam));
}

#[test]
fn frames_move_in_their_order_whenever_the_device_works() {
    for behaviour in [Behaviour::AtOnce, Behaviour::Late] {
        for count in [1, 255, 256, 257, 2 * HUGE_FRAMES] {
            let (mut device, fake) = device(behaviour);
            device.set_up().unwrap();
            for (direction, queue) in [(Direction::Inflate, INFLATE), (Direction::Deflate, DEFLATE)] {
                fake.0.borrow_mut().waits = 0;
                assert_eq!(device.move_frames(direction, frames(count), &mut fake.clone()), Ok(()));
                let expected: Vec<u32> = frames(count).map(|frame| u32::try_from(frame.0).unwrap()).collect();
                assert_eq!(names(&fake, queue), expected, "{behaviour:?}");
            }
        }
    }
}

#[test]
fn more_frames_than_fit_the_arrays_move_in_several_rounds() {
    let (mut device, fake) = device(Behaviour::AtOnce);
    device.set_up().unwrap();
    let count = 3 * super::super::pfn_pages::CAPACITY as u64 + 5;
    assert_eq!(device.move_frames(Direction::Inflate, frames(count), &mut fake.clone()), Ok(()));
    assert_eq!(names(&fake, INFLATE).len() as u64, count);
    assert_eq!(fake.0.borrow().waits, 0, "such a device is not waited for");
}

#[test]
fn a_device_that_breaks_the_protocol_is_reset() {
    let wrong = [0, 1, 31, 32, 0xffff, u32::MAX].map(Behaviour::WrongToken);
    for behaviour in wrong.into_iter().chain([Behaviour::TooMany, Behaviour::NeedsReset]) {
        let (mut device, fake) = device(behaviour);
        device.set_up().unwrap();
        // The token 0 is that of the first of two buffers: the other never comes back.
        fake.0.borrow_mut().waits = 0;
        let expected = match behaviour {
            Behaviour::NeedsReset => Lost::NeedsReset,
            Behaviour::WrongToken(0 | 1) => continue,
            _ => Lost::Broken,
        };
        let moved = device.move_frames(Direction::Inflate, frames(300), &mut fake.clone());
        assert_eq!(moved, Err(expected), "{behaviour:?}");
        assert!(fake.0.borrow().status.is_empty(), "it gives up all memory");
        assert_eq!(device.move_frames(Direction::Inflate, frames(1), &mut fake.clone()), Err(Lost::NotSetUp));
        fake.0.borrow_mut().behaviour = Behaviour::AtOnce;
        device.set_up().unwrap();
        assert_eq!(device.move_frames(Direction::Inflate, frames(300), &mut fake.clone()), Ok(()), "anew");
    }
}

#[test]
fn the_host_asks_for_statistics_by_returning_them() {
    let (mut device, fake) = device(Behaviour::AtOnce);
    device.set_up().unwrap();
    let answer = |device: &mut BalloonDevice<Fake>, major_faults| {
        assert_eq!(device.wants_statistics(), Ok(true));
        assert_eq!(device.answer(&Statistics { major_faults, ..Statistics::default() }), Ok(()));
        assert_eq!(device.wants_statistics(), Ok(false));
    };
    for round in 1..=5 {
        answer(&mut device, round);
        let bytes = fake.0.borrow().statistics.as_ref().unwrap().0.clone();
        assert_eq!((bytes.len() % 10, bytes[20]), (0, 2), "the third entry is that of major faults");
        assert_eq!(u64::from(bytes[22]), round);
        // The memory is the host's: nothing is written to it.
        assert_eq!(device.answer(&Statistics { major_faults: 99, ..Statistics::default() }), Ok(()));
        fake.0.borrow_mut().ask();
    }
}

#[test]
fn free_memory_is_reported_in_ranges() {
    for behaviour in [Behaviour::AtOnce, Behaviour::Late] {
        let (mut device, fake) = device(behaviour);
        device.set_up().unwrap();
        assert!(device.takes_reports());
        let ranges =
            || (1..=16).map(|huge| FrameNumber(huge * 2 * HUGE_FRAMES)..FrameNumber((huge * 2 + 1) * HUGE_FRAMES));
        assert_eq!(device.report(ranges(), &mut fake.clone()), Ok(()));
        let expected: Vec<_> = ranges().map(|range| (range.start.address(), 2 << 20)).collect();
        assert_eq!(fake.0.borrow().reported, expected);
    }
}

#[test]
fn hints_are_sent_between_two_numbers() {
    for behaviour in [Behaviour::AtOnce, Behaviour::Late] {
        let (mut device, fake) = device(behaviour);
        fake.0.borrow_mut().offered = VERSION_1 | Features::FREE_PAGE_HINT.0;
        fake.0.borrow_mut().config.insert(CONFIG_HINT_COMMAND, 7);
        device.set_up().unwrap();
        assert_eq!(device.hint_command(), Some(7));
        fake.0.borrow_mut().config.insert(CONFIG_HINT_COMMAND, 0);
        assert_eq!(device.hint_command(), Some(7), "the configuration has not changed");
        let range = FrameNumber(HUGE_FRAMES)..FrameNumber(2 * HUGE_FRAMES);
        let noted = |device: &mut BalloonDevice<Fake>| {
            assert_eq!(device.has_noted_hints(), Ok(behaviour == Behaviour::AtOnce));
            fake.0.borrow_mut().work(if behaviour == Behaviour::AtOnce { DEFLATE } else { HINTING });
            assert_eq!(device.has_noted_hints(), Ok(true));
        };
        assert_eq!(device.send_hint_number(7), Ok(()));
        noted(&mut device);
        assert_eq!(device.hint(core::iter::once(range)), Ok(()));
        noted(&mut device);
        assert_eq!(device.send_hint_number(0), Ok(()));
        noted(&mut device);
        fake.0.borrow_mut().generation += 1;
        assert_eq!(device.hint_command(), Some(0));
        let hints = fake.0.borrow().hints.clone();
        assert_eq!(hints, [Hint::Number(7), Hint::Memory(HUGE_FRAMES * 4096, 2 << 20), Hint::Number(0)]);
    }
    let (mut device, _) = device(Behaviour::AtOnce);
    device.set_up().unwrap();
    assert_eq!(device.hint_command(), None, "the device offers none");
}

#[test]
fn a_device_without_a_queue_is_not_asked_for_it() {
    let (mut device, fake) = device(Behaviour::AtOnce);
    fake.0.borrow_mut().offered = VERSION_1;
    device.set_up().unwrap();
    assert!(!device.takes_reports());
    assert_eq!(device.wants_statistics(), Ok(false));
    assert_eq!(device.report(core::iter::empty(), &mut fake.clone()), Err(Lost::NotSetUp));
}

#[test]
fn the_configuration_is_read_and_written() {
    let (mut device, fake) = device(Behaviour::AtOnce);
    for wanted in [0, 77, u32::MAX] {
        fake.0.borrow_mut().config.insert(CONFIG_NUM_PAGES, wanted);
        assert_eq!(device.wanted_pages(), wanted);
    }
    device.set_actual(12);
    assert_eq!(fake.0.borrow().config[&CONFIG_ACTUAL], 12);
    fake.0.borrow_mut().config.clear();
    assert_eq!(device.wanted_pages(), 0, "a device without it wants nothing");
}
