//! The monitor, through the balloon port.
#![allow(unsafe_code, reason = "the batch page is shared with the monitor")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::batch::{CAPACITY, Entry};
use aerostat_abi::frame_state::HugeFrameWord;
use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION, Welcome};
use aerostat_abi::requests::{Generation, Request, Resources};
use aerostat_abi::statistics::{Statistics, WORDS};
use aerostat_abi::units::{FrameCount, FrameNumber, to_usize};
use aerostat_balloon_driver::{Driver, Listed, Monitor, PageList, Reply};

use super::host::{Host, StatisticsMode};
use super::statistics;
use crate::arch::x86_64::interrupt::InterruptLine;
use crate::arch::x86_64::machine_ports::balloon_call;
use crate::mm::FRAMES;
use crate::requests::ResourceHost;
use crate::time::Instant;

/// The page of batches and reports. It is part of the image, so the monitor refuses to balloon it.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; CAPACITY]>);

// SAFETY: reached through the one `Port` only.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; CAPACITY]));
static PAGE_TAKEN: AtomicBool = AtomicBool::new(false);

/// What a driver requests in HELLO.
#[derive(Clone, Copy, Debug)]
pub(super) struct HelloOptions {
    features: Features,
    /// The interrupt vector for target changes; 0 for a driver that polls.
    vector: u8,
}

impl HelloOptions {
    /// The options of the kernel's driver.
    pub(super) const KERNEL: Self = Self { features: Features::SUPPORTED, vector: InterruptLine::BALLOON.vector() };
    /// The options of an application: only the kernel has interrupts and offers.
    pub(super) const APPLICATION: Self = Self { features: Features(0), vector: 0 };
}

/// The balloon port, with its page for batches and reports. There is one value: its owner is the
/// guest's driver.
#[derive(Debug)]
pub struct Port {
    page: &'static mut [u64; CAPACITY],
    options: HelloOptions,
    /// The features in force since HELLO.
    features: Features,
    /// The generation of the host's resources, by the latest reply that has it.
    generation: Generation,
}

impl Port {
    /// Returns the port the first time it is called. No call has been made through it yet.
    pub(super) fn open(options: HelloOptions) -> Option<Self> {
        if PAGE_TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: the flag above makes this the only reference to the page there ever is.
        let page = unsafe { &mut *PAGE.0.get() };
        Some(Self { page, options, features: Features::default(), generation: Generation(0) })
    }

    /// Shares the words of all huge frames with the monitor. Returns whether it accepted them.
    fn share(&mut self, words: &'static [HugeFrameWord]) -> bool {
        let address = words.as_ptr().expose_provenance() as u64;
        let call = Registers { rax: Command::Share.encode(), rdi: address, rsi: words.len() as u64, r8: 0 };
        Status::decode(balloon_call(call).rax) == Some(Status::Ok)
    }

    /// Reports the guest's statistics (REPORT), with the `wanted` frames that threads wait for.
    pub fn report(&mut self, driver: &Driver<impl PageList>, wanted: FrameCount) -> Option<Reply> {
        self.report_statistics(&statistics::record(driver, wanted))
    }

    /// Reports a record of statistics (REPORT).
    fn report_statistics(&mut self, record: &Statistics) -> Option<Reply> {
        for (word, value) in self.page[..WORDS].iter_mut().zip(record.encode()) {
            *word = value;
        }
        self.call(Command::Report, 0)
    }

    fn batch(&mut self, command: Command, entries: &mut [Entry]) -> Option<Reply> {
        let count = entries.len();
        for (word, entry) in self.page.iter_mut().zip(entries.iter()) {
            *word = entry.encode();
        }
        let reply = self.call(command, count as u64)?;
        for (index, entry) in entries.iter_mut().enumerate() {
            let answered = Entry::decode(self.word(index));
            // An entry that names another block is no answer.
            if (answered.frame, answered.order) == (entry.frame, entry.order) {
                entry.status = answered.status;
            }
        }
        Some(reply)
    }

    fn call(&mut self, command: Command, argument: u64) -> Option<Reply> {
        let answer = self.exchange(command, argument);
        self.note_generation(&answer);
        read(&answer)
    }

    /// Notes the generation in a reply that is not LIST's.
    fn note_generation(&mut self, answer: &Registers) {
        if Status::decode(answer.rax) == Some(Status::Ok) {
            self.generation = Generation(answer.r8);
        }
    }

    fn exchange(&mut self, command: Command, argument: u64) -> Registers {
        let page = self.page.as_mut_ptr().expose_provenance() as u64;
        balloon_call(Registers { rax: command.encode(), rdi: page, rsi: argument, r8: 0 })
    }

    /// Reads a word of the page as the monitor left it.
    fn word(&self, index: usize) -> u64 {
        // SAFETY: the reference is valid for reads. The read is volatile because the monitor may
        // have written the word in the last call.
        unsafe { core::ptr::from_ref(&self.page[index]).read_volatile() }
    }
}

/// Decodes the parts that every reply has, or returns `None` if there was no reply.
fn read(reply: &Registers) -> Option<Reply> {
    Some(Reply { status: Status::decode(reply.rax)?, target: FrameCount(reply.rsi) })
}

impl ResourceHost for Port {
    fn generation(&self) -> Option<Generation> {
        self.features.contains(Features::REQUESTS).then_some(self.generation)
    }

    fn resources(&mut self) -> Option<Resources> {
        let reply = self.call(Command::Resources, 0)?;
        let words = core::array::from_fn(|index| self.word(index));
        (reply.status == Status::Ok).then(|| Resources::decode(&words))
    }

    fn request(&mut self, request: &Request) {
        self.note_generation(&balloon_call(request.encode()));
    }
}

impl Host for Port {
    fn statistics_mode(&mut self) -> StatisticsMode {
        StatisticsMode::Reported
    }

    fn report(&mut self, statistics: &Statistics) -> Option<Reply> {
        self.report_statistics(statistics)
    }

    fn serve(&mut self, _: Instant) -> Option<Instant> {
        None
    }
}

impl Monitor for Port {
    fn negotiate(&mut self) -> Option<Reply> {
        let (version, HelloOptions { features, vector }) = (VERSION, self.options);
        let answer = balloon_call(Hello { version, features, floor: super::extent().floor, vector }.encode());
        let reply = read(&answer)?;
        let welcome = Welcome::decode(&answer);
        self.features = welcome.features;
        let is_other_version = reply.status == Status::Ok && welcome.version != version;
        let status = if is_other_version { Status::UnsupportedVersion } else { reply.status };
        Some(Reply { status, ..reply })
    }

    fn enable_features(&mut self) {
        if self.features.contains(Features::OFFERS) && self.share(FRAMES.states()) {
            FRAMES.begin_offers();
        }
    }

    fn reset(&mut self) -> Option<Reply> {
        self.call(Command::Reset, 0)
    }

    fn list(&mut self, from: FrameNumber, entries: &mut [Entry; CAPACITY]) -> Option<Listed> {
        let answer = self.exchange(Command::List, from.0);
        let reply = read(&answer)?;
        for (index, entry) in entries.iter_mut().enumerate() {
            *entry = Entry::decode(self.word(index));
        }
        let next = (answer.r8 != 0).then_some(FrameNumber(answer.r8));
        Some(Listed { reply, count: to_usize(answer.rdi), next })
    }

    fn target(&mut self) -> Option<Reply> {
        self.call(Command::GetTarget, 0)
    }

    fn inflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.batch(Command::Inflate, entries)
    }

    fn deflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.batch(Command::Deflate, entries)
    }
}
