//! The monitor, through the balloon port.
#![allow(unsafe_code, reason = "the batch page is shared with the monitor")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::batch::{CAPACITY, Entry};
use aerostat_abi::frame_state::HugeFrameWord;
use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION, Welcome};
use aerostat_abi::statistics::WORDS;
use aerostat_abi::units::{FrameCount, FrameNumber, to_usize};
use aerostat_balloon_driver::{Driver, Listed, Monitor, PageList, Reply};

use super::statistics;
use crate::arch::x86_64::machine_ports::balloon_call;
use crate::arch::x86_64::ring0::BALLOON_VECTOR;
use crate::mm::FRAMES;

/// The page that batches and reports travel in: part of the image, so the monitor would refuse it
/// as a gift.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; CAPACITY]>);

// SAFETY: reached through the one `Port` only.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; CAPACITY]));
static PAGE_TAKEN: AtomicBool = AtomicBool::new(false);

/// What a driver asks for in HELLO.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    features: Features,
    /// To be interrupted by when the target changes; 0 for a driver that looks by itself.
    vector: u8,
}

impl Wishes {
    /// Those of the kernel's driver.
    pub(super) const KERNEL: Self = Self { features: Features::SUPPORTED, vector: BALLOON_VECTOR };
    /// Those of an application: interrupts and offers are the kernel's.
    pub(super) const APPLICATION: Self = Self { features: Features(0), vector: 0 };
}

/// The balloon port, and the page that batches and reports travel in. Whoever has it is the guest's
/// one driver.
#[derive(Debug)]
pub struct Port {
    page: &'static mut [u64; CAPACITY],
    wishes: Wishes,
    /// What was agreed on in HELLO.
    features: Features,
}

impl Port {
    /// The port, to be opened once; nobody has been negotiated yet.
    pub(super) fn open(wishes: Wishes) -> Option<Self> {
        if PAGE_TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: the flag above makes this the only reference to the page there ever is.
        let page = unsafe { &mut *PAGE.0.get() };
        Some(Self { page, wishes, features: Features::default() })
    }

    /// Lets the monitor see the words of all huge frames; says whether it looks.
    fn share(&mut self, words: &'static [HugeFrameWord]) -> bool {
        let address = words.as_ptr().expose_provenance() as u64;
        let call = Registers { rax: Command::Share.encode(), rdi: address, rsi: words.len() as u64, r8: 0 };
        Status::decode(balloon_call(call).rax) == Some(Status::Ok)
    }

    /// Leaves the guest's statistics (REPORT), and hears the target; somebody in the guest waits
    /// for `wanted` frames.
    pub fn report(&mut self, driver: &Driver<impl PageList>, wanted: FrameCount) -> Option<Reply> {
        let record = statistics::record(driver, wanted);
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
            // An answer about another block is no answer.
            if (answered.frame, answered.order) == (entry.frame, entry.order) {
                entry.status = answered.status;
            }
        }
        Some(reply)
    }

    fn call(&mut self, command: Command, argument: u64) -> Option<Reply> {
        read(&self.exchange(command, argument))
    }

    fn exchange(&mut self, command: Command, argument: u64) -> Registers {
        let page = self.page.as_mut_ptr().expose_provenance() as u64;
        balloon_call(Registers { rax: command.encode(), rdi: page, rsi: argument, r8: 0 })
    }

    /// A word of the page as the monitor has left it.
    fn word(&self, index: usize) -> u64 {
        // SAFETY: the word is ours; the monitor may have written it in the last call, so it is read
        // anew.
        unsafe { core::ptr::from_ref(&self.page[index]).read_volatile() }
    }
}

/// What every reply carries, where there is one.
fn read(reply: &Registers) -> Option<Reply> {
    Some(Reply { status: Status::decode(reply.rax)?, target: FrameCount(reply.rsi) })
}

impl Monitor for Port {
    fn negotiate(&mut self) -> Option<Reply> {
        let (version, Wishes { features, vector }) = (VERSION, self.wishes);
        let answer = balloon_call(Hello { version, features, floor: super::extent().floor, vector }.encode());
        let reply = read(&answer)?;
        let welcome = Welcome::decode(&answer);
        self.features = welcome.features;
        let is_other_version = reply.status == Status::Ok && welcome.version != version;
        let status = if is_other_version { Status::UnsupportedVersion } else { reply.status };
        Some(Reply { status, ..reply })
    }

    fn begin_options(&mut self) {
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
