//! The monitor, through the balloon port.
#![allow(unsafe_code, reason = "the batch page is shared with the monitor")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::batch::{CAPACITY, Entry};
use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION, Welcome};
use aerostat_abi::statistics::{self, Statistics};
use aerostat_abi::units::{FrameCount, to_usize};
use aerostat_balloon_driver::{Monitor, Reply};

use crate::drivers::machine_ports::balloon_call;
use crate::nub::BALLOON_VECTOR;

/// The page that batches and reports travel in: part of the image, so the monitor would refuse it as a gift.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; CAPACITY]>);

// SAFETY: reached through the one `Port` only.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; CAPACITY]));
static PAGE_TAKEN: AtomicBool = AtomicBool::new(false);

/// A greeted balloon port, and the page that batches and reports travel in.
#[derive(Debug)]
pub(super) struct Port {
    page: &'static mut [u64; CAPACITY],
}

impl Port {
    /// Says HELLO; `None` when nobody answers or the versions don't fit.
    pub(super) fn open(floor: FrameCount) -> Option<(Self, Welcome)> {
        let hello = Hello { version: VERSION, features: Features::SUPPORTED, floor, vector: BALLOON_VECTOR };
        let reply = balloon_call(hello.encode());
        if Status::decode(reply.rax) != Some(Status::Ok) {
            return None;
        }
        let welcome = Welcome::decode(&reply);
        if welcome.version != VERSION || PAGE_TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: the flag above makes this the only reference to the page there ever is.
        Some((Self { page: unsafe { &mut *PAGE.0.get() } }, welcome))
    }

    /// Calls `each` with every block that counts as given, in order; says whether the monitor listed them to the end.
    pub(super) fn list(&mut self, mut each: impl FnMut(Entry)) -> bool {
        let mut from = 0;
        loop {
            let reply = self.exchange(Command::List, from);
            if Status::decode(reply.rax) != Some(Status::Ok) {
                return false;
            }
            for index in 0..to_usize(reply.rdi).min(CAPACITY) {
                each(Entry::decode(self.word(index)));
            }
            if reply.r8 <= from {
                return reply.r8 == 0; // otherwise it would never end
            }
            from = reply.r8;
        }
    }

    /// Leaves statistics.
    pub(super) fn report(&mut self, statistics: &Statistics) {
        for (word, value) in self.page[..statistics::WORDS].iter_mut().zip(statistics.encode()) {
            *word = value;
        }
        self.call(Command::Report, 0);
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
        let reply = self.exchange(command, argument);
        Some(Reply { status: Status::decode(reply.rax)?, target: FrameCount(reply.rsi) })
    }

    fn exchange(&mut self, command: Command, argument: u64) -> Registers {
        let page = self.page.as_mut_ptr().expose_provenance() as u64;
        balloon_call(Registers { rax: command.encode(), rdi: page, rsi: argument, r8: 0 })
    }

    /// A word of the page as the monitor has left it.
    fn word(&self, index: usize) -> u64 {
        // SAFETY: the word is ours; the monitor may have written it in the last call, so it is read anew.
        unsafe { core::ptr::from_ref(&self.page[index]).read_volatile() }
    }
}

impl Monitor for Port {
    fn target(&mut self) -> Option<Reply> {
        self.call(Command::GetTarget, 0)
    }

    fn give(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.batch(Command::Give, entries)
    }

    fn take(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.batch(Command::Take, entries)
    }
}
