//! The real parts on both sides of the port: this kernel's driver, page list and frame allocator,
//! and the monitor's device, with shared words and memory of the host between them. Events come in
//! any order.
#![allow(unsafe_code, reason = "the allocator's metadata lie in memory that the monitor sees")]

use std::slice;
use std::vec::Vec;

use aerostat_abi::batch::{CAPACITY, Entry};
use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION, Welcome};
use aerostat_abi::units::{FRAME_BYTES, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use aerostat_balloon_driver::{Driver, Extent, Listed, Monitor, Next, RateLimits, Reply};
use aerostat_vmm::harness::{self, Harness};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{FLOOR, GuestMemory, HUGE, KERNEL_FLOOR, SECOND_NS, TOTAL};
use crate::balloon::page_list::PageList;
use crate::mm::bump::BumpAllocator;
use crate::mm::testing::block;
use crate::mm::{Block, BlockSize, FrameAllocator, Purpose};

/// The first huge frame holds the image, the batch page and the allocator's metadata.
const IMAGE: core::ops::Range<FrameNumber> = FrameNumber(256)..FrameNumber(264);
const PAGE: FrameNumber = FrameNumber(264);
const METADATA: FrameNumber = FrameNumber(265);
/// Steps of the driver between two events, at most.
const STEPS: usize = 20;

/// An event on either side.
#[derive(Clone, Debug)]
enum Event {
    /// The supervisor sets a target, and the host reclaims what is offered.
    Target(FrameCount),
    /// The guest allocates so many blocks.
    Use(BlockSize, usize),
    /// The guest frees so many of the blocks it uses.
    Free(usize),
    /// The driver makes up to so many steps.
    Steps(usize),
    /// The monitor ends the session.
    Reset,
    /// The host can, or can't, put pages of other sizes behind memory.
    PageSizes(bool),
    /// The host can't release this frame; the one before it can be released again.
    Pin(FrameNumber),
}

fn events() -> impl Strategy<Value = Event> {
    let size = prop_oneof![Just(BlockSize::Frame), Just(BlockSize::Huge)];
    prop_oneof![
        4 => (0..=TOTAL.0).prop_map(|frames| Event::Target(FrameCount(frames))),
        2 => (0..=HUGE).prop_map(|huge| Event::Target(FrameCount(huge * HUGE_FRAMES))),
        2 => (size, 0_usize..600).prop_map(|(size, count)| {
            Event::Use(size, if size == BlockSize::Huge { count % 4 } else { count })
        }),
        2 => (0_usize..600).prop_map(Event::Free),
        6 => (1..=STEPS).prop_map(Event::Steps),
        1 => Just(Event::Reset),
        1 => any::<bool>().prop_map(Event::PageSizes),
        1 => (HUGE_FRAMES..TOTAL.0).prop_map(|frame| Event::Pin(FrameNumber(frame))),
    ]
}

/// A port through which the monitor is called as a function.
struct Port {
    monitor: &'static mut Harness,
    /// The features that the driver requests.
    requested: Features,
    /// The features in force.
    agreed: Features,
    /// The address and the number of the allocator's words.
    words: (u64, u64),
    /// Whether the words were shared, and the allocator does not know yet.
    is_shared: bool,
}

impl Port {
    fn call(&mut self, command: Command, rdi: u64, rsi: u64) -> (Option<Reply>, Registers) {
        let answer = self.monitor.call(Registers { rax: command.encode(), rdi, rsi, r8: 0 });
        (reply(&answer), answer)
    }

    fn batch(&mut self, command: Command, entries: &mut [Entry]) -> Option<Reply> {
        let words: Vec<_> = entries.iter().map(|entry| entry.encode()).collect();
        self.monitor.write(PAGE.address(), &words);
        let (reply, _) = self.call(command, PAGE.address(), words.len() as u64);
        self.read(entries);
        reply
    }

    fn read(&self, entries: &mut [Entry]) {
        for (index, entry) in (0..).zip(entries) {
            *entry = Entry::decode(self.monitor.read(PAGE.address() + 8 * index).expect("the page is memory"));
        }
    }
}

fn reply(answer: &Registers) -> Option<Reply> {
    Some(Reply { status: Status::decode(answer.rax)?, target: FrameCount(answer.rsi) })
}

impl Monitor for Port {
    fn negotiate(&mut self) -> Option<Reply> {
        let hello = Hello { version: VERSION, features: self.requested, floor: FLOOR, vector: 0 };
        let answer = self.monitor.call(hello.encode());
        self.agreed = Welcome::decode(&answer).features;
        reply(&answer)
    }

    fn enable_features(&mut self) {
        if self.agreed.contains(Features::OFFERS) {
            let (address, count) = self.words;
            let (reply, _) = self.call(Command::Share, address, count);
            assert_eq!(reply.map(|reply| reply.status), Some(Status::Ok), "SHARE was refused");
            self.is_shared = true;
        }
    }

    fn reset(&mut self) -> Option<Reply> {
        self.call(Command::Reset, 0, 0).0
    }

    fn list(&mut self, from: FrameNumber, entries: &mut [Entry; CAPACITY]) -> Option<Listed> {
        let (reply, answer) = self.call(Command::List, PAGE.address(), from.0);
        self.read(entries);
        let next = (answer.r8 != 0).then_some(FrameNumber(answer.r8));
        Some(Listed { reply: reply?, count: to_usize(answer.rdi), next })
    }

    fn target(&mut self) -> Option<Reply> {
        self.call(Command::GetTarget, 0, 0).0
    }

    fn inflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.batch(Command::Inflate, entries)
    }

    fn deflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.batch(Command::Deflate, entries)
    }
}

/// A guest and its monitor.
struct World {
    port: Port,
    memory: GuestMemory,
    driver: Driver<PageList>,
    in_use: Vec<(FrameNumber, BlockSize)>,
    pinned: Option<FrameNumber>,
}

impl World {
    /// A guest that starts with so many huge frames, and its first session.
    fn new(initial: u64, requested: Features) -> Self {
        let extent = harness::Extent { total: TOTAL, initial: FrameCount(initial * HUGE_FRAMES), image: IMAGE };
        let monitor = Box::leak(Box::new(Harness::new(extent).expect("the host has memory for a small machine")));
        let start = monitor.page(FrameNumber(0)).expect("it is memory");
        let metadata = monitor.page(METADATA).expect("it is memory").cast::<u64>();
        let words = FrameAllocator::words(TOTAL);
        assert!(words as u64 * 8 <= (HUGE_FRAMES - METADATA.0) * FRAME_BYTES, "the metadata fit the first huge frame");
        // SAFETY: the memory is zeroed and belongs to a machine that is never dropped. The monitor
        // accesses only the shared words in it, with atomic operations.
        let metadata = unsafe { slice::from_raw_parts_mut(metadata, words) };
        let reserved = [FrameNumber(0)..FrameNumber(HUGE_FRAMES)];
        let bump = &mut BumpAllocator::new(metadata);
        // SAFETY: memory of a machine that this test alone uses.
        let allocator = unsafe { FrameAllocator::new(TOTAL, reserved, KERNEL_FLOOR, bump) };
        let states = allocator.states();
        let address = (states.as_ptr().addr() - start.addr()) as u64;
        let port =
            Port { monitor, requested, agreed: Features(0), words: (address, states.len() as u64), is_shared: false };
        let extent = Extent { total: TOTAL, floor: FLOOR, end: FrameNumber(TOTAL.0) };
        let driver = Driver::new(PageList::leaked(to_usize(HUGE)), RateLimits::DEFAULT, extent, 0);
        let mut world = Self { port, memory: GuestMemory(allocator, 0), driver, in_use: Vec::new(), pinned: None };
        assert!(world.driver.begin(&mut world.port, &mut world.memory), "the monitor answers");
        world.note_sharing();
        world
    }

    /// Applies an event.
    fn apply(&mut self, event: &Event) {
        match *event {
            // A host that reclaims offers sets no target below the guest's floor.
            Event::Target(target) if self.port.requested.contains(Features::OFFERS) => {
                self.port.monitor.set_target(target.max(FLOOR));
            }
            Event::Target(target) => self.port.monitor.set_target(target),
            Event::Use(size, count) => {
                let block = || self.memory.0.allocate(size, Purpose::Kernel).map(Block::into_number);
                self.in_use.extend(core::iter::from_fn(block).take(count).map(|first| (first, size)));
            }
            Event::Free(count) => {
                for (first, size) in self.in_use.drain(self.in_use.len().saturating_sub(count)..) {
                    self.memory.0.free(block(first, size));
                }
            }
            Event::Steps(count) => self.step(count),
            Event::Reset => self.port.monitor.order_reset(),
            Event::PageSizes(can_change) => self.port.monitor.let_page_sizes_change(can_change),
            Event::Pin(frame) => {
                if let Some(frame) = self.pinned.take() {
                    self.port.monitor.unpin(frame);
                }
                self.pinned = self.port.monitor.pin(frame).then_some(frame);
            }
        }
    }

    fn step(&mut self, count: usize) {
        self.driver.refresh(&mut self.port, self.memory.1);
        for _ in 0..count {
            let next = self.driver.step(&mut self.port, &mut self.memory);
            self.note_sharing();
            match next {
                Next::Continue | Next::Rest => {}
                Next::Wait { until_ns } => self.memory.1 = until_ns,
                Next::Idle => break,
            }
        }
        self.memory.1 += SECOND_NS;
    }

    fn note_sharing(&mut self) {
        if core::mem::take(&mut self.port.is_shared) {
            self.memory.0.begin_offers();
        }
    }

    /// Repairs the host, sets the target to all memory and lets the driver finish. Only lost memory
    /// stays in the balloon.
    fn settle(&mut self) {
        self.apply(&Event::PageSizes(true));
        if let Some(frame) = self.pinned.take() {
            self.port.monitor.unpin(frame);
        }
        self.apply(&Event::Target(TOTAL));
        (0..STEPS).for_each(|_| self.step(STEPS));
    }

    /// Returns the places in which the guest's driver, allocator and users have a frame.
    fn places(&self, in_use: &[bool], frame: FrameNumber) -> Places {
        let huge = to_usize(frame.0 / HUGE_FRAMES);
        Places {
            is_free: self.memory.0.is_free(frame),
            is_used: in_use[to_usize(frame.0)],
            is_in_page_list: self.driver.page_list().contains_frame(frame),
            is_reclaimed: self.memory.0.states()[huge].load().is_reclaimed(),
        }
    }

    /// Returns which frames are in use.
    fn uses(&self) -> Vec<bool> {
        let mut in_use = vec![false; to_usize(TOTAL.0)];
        in_use[..to_usize(HUGE_FRAMES)].fill(true);
        for (first, size) in &self.in_use {
            in_use[to_usize(first.0)..to_usize(first.0 + size.frames())].fill(true);
        }
        in_use
    }
}

/// The places that a frame can be in.
#[derive(Clone, Copy, Debug)]
struct Places {
    is_free: bool,
    is_used: bool,
    is_in_page_list: bool,
    /// Reclaimed by the host, and not in the page list yet.
    is_reclaimed: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_sides_always_agree(initial in 3..=HUGE, offers: bool, turns in vec(events(), 1..40)) {
        let requested = if offers { Features::OFFERS } else { Features(0) };
        let mut world = World::new(initial, requested);
        for event in &turns {
            world.apply(event);
            // This call notes which huge frames the host has reclaimed.
            let _ = world.memory.0.reclaimed_by_host();
            prop_assert_eq!(world.port.monitor.check(), Ok(()));
            prop_assert_eq!((world.driver.page_list().validate(), world.memory.0.validate()), (Ok(()), Ok(())));
            let in_use = world.uses();
            for frame in (0..TOTAL.0).map(FrameNumber) {
                let places = world.places(&in_use, frame);
                let Places { is_free, is_used, is_in_page_list, is_reclaimed } = places;
                let places_of_frame = [is_free, is_used, is_in_page_list, is_reclaimed];
                let count = places_of_frame.into_iter().filter(|&is_there| is_there).count();
                prop_assert_eq!(count, 1, "{:?} after {:?}: {:?}", frame, event, places);
                prop_assert_eq!(world.port.monitor.is_guests(frame), is_free || is_used, "{:?} after {:?}: {:?}", frame, event, places);
            }
            let facts = world.port.monitor.facts();
            prop_assert_eq!(facts.size.saturating_add(facts.balloon), TOTAL);
            prop_assert!(facts.size >= FLOOR, "{:?}", facts);
            prop_assert_eq!(world.driver.disputed(), FrameCount::ZERO);
        }
        world.settle();
        prop_assert_eq!(world.port.monitor.facts().balloon, FrameCount::ZERO, "memory was lost");
        prop_assert_eq!(world.driver.balloon(), FrameCount::ZERO);
    }
}
