//! A guest that follows a script of bytes: each input is a machine and a sequence of steps, and
//! after each step all invariants are checked. Designed so that a fuzzer gets far by changing
//! single bytes: every input is a script, most numbers are near limits, and every number is
//! possible.

use aerostat_abi::batch::Entry;
use aerostat_abi::frame_state::HugeFrameState;
use aerostat_abi::port::{Command, Features, Hello, Registers, VERSION};
use aerostat_abi::units::{FRAME_BYTES, FrameCount, FrameNumber, HUGE_BYTES, HUGE_FRAMES, HUGE_ORDER, to_usize};

use super::{Extent, Harness};
use crate::layout::HOLE_START;

/// Where the image lies: at 1 MiB.
const IMAGE: std::ops::Range<FrameNumber> = FrameNumber(256)..FrameNumber(264);
/// The pages that the guest writes to: behind the image.
const PAGES: std::ops::Range<u64> = 264..272;
/// Frames that the host is told not to release.
const MOST_PINNED: usize = 4;

/// Runs a script to its end.
///
/// # Panics
/// Panics when an invariant does not hold.
pub fn play(script: &[u8]) {
    let mut script = Script { rest: script };
    let mut guest = Guest::new(&mut script);
    while !script.rest.is_empty() {
        let step = guest.step(&mut script);
        if let Err(what) = guest.check() {
            panic!("after {step}: {what}");
        }
    }
}

/// Unread bytes; zeros follow the last one.
struct Script<'a> {
    rest: &'a [u8],
}

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        byte
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn below(&mut self, end: u64) -> u64 {
        u64::from(self.byte()) % end
    }
}

/// A machine and what its guest remembers.
struct Guest {
    harness: Harness,
    total: u64,
    end: u64,
    pinned: Vec<FrameNumber>,
}

impl Guest {
    fn new(script: &mut Script<'_>) -> Self {
        let shape = script.byte();
        // Some machines have a hole in their memory, and memory behind it.
        let total = FrameCount::from_mib(if shape & 1 == 0 { 16 } else { 5 << 10 });
        let initial = FrameCount((1 + u64::from(shape >> 1) % (total.0 / HUGE_FRAMES)) * HUGE_FRAMES);
        let end = if total.bytes() > HOLE_START { total.bytes() + (1 << 30) } else { total.bytes() };
        let harness =
            Harness::new(Extent { total, initial, image: IMAGE }).expect("the host has memory for a small machine");
        Self { harness, total: total.0, end: end / FRAME_BYTES, pinned: Vec::new() }
    }

    /// Does one step; returns its name.
    fn step(&mut self, script: &mut Script<'_>) -> &'static str {
        match script.byte() % 10 {
            0 => {
                let features = Features(script.byte().into());
                let floor = FrameCount(self.number(script));
                let hello = Hello { version: VERSION, features, floor, vector: script.byte() };
                self.harness.call(hello.encode());
                "HELLO"
            }
            1 => {
                let rax = script.word();
                let registers = [(); 3].map(|()| self.number(script));
                self.call(rax, registers);
                "a call with any registers"
            }
            2 => {
                let command = [
                    Command::Reset,
                    Command::List,
                    Command::Report,
                    Command::GetTarget,
                    Command::Resources,
                    Command::Request,
                ];
                let command = command[to_usize(script.below(6))];
                let registers = [self.address(script), self.number(script), script.byte().into()];
                self.call(command.encode(), registers);
                "a call without a batch"
            }
            3 | 4 => {
                let command = if script.byte() & 1 == 0 { Command::Inflate } else { Command::Deflate };
                let page = self.page(script);
                let entries: Vec<_> = (0..=script.below(8)).map(|_| self.entry(script)).collect();
                self.write(page, &entries);
                // Sometimes another page or count than was written.
                let (page, count) = match script.byte() {
                    0xff => (self.address(script), self.number(script)),
                    _ => (page, entries.len() as u64),
                };
                self.call(command.encode(), [page, count, 0]);
                "a batch"
            }
            5 => {
                let address = self.address(script);
                let count = if script.byte() == 0xff { self.number(script) } else { self.end.div_ceil(HUGE_FRAMES) };
                self.call(Command::Share.encode(), [address, count, 0]);
                "SHARE"
            }
            6 => {
                let at = self.page(script) + script.below(16) * 4;
                let state = HugeFrameState(u32::from(script.byte()) << 8);
                if self.harness.is_guests(FrameNumber::containing(at)) {
                    let word = self.harness.shared_word(at).expect("a page of the guest's, and aligned");
                    word.store(state);
                }
                "a write to a word"
            }
            7 => {
                let target = self.number(script);
                self.harness.set_target(FrameCount(target));
                "a new target"
            }
            8 => {
                self.disturb(script);
                "a disturbance"
            }
            _ => {
                let (page, word) = (self.page(script), script.word());
                self.write(page + script.below(512) * 8, &[word]);
                "a write"
            }
        }
    }

    /// Does something that a host rarely does.
    fn disturb(&mut self, script: &mut Script<'_>) {
        match script.byte() % 5 {
            0 => self.harness.order_reset(),
            4 => self.harness.reclaim_ballooned(),
            1 => self.harness.let_page_sizes_change(script.byte() & 1 == 0),
            2 => {
                let frame = FrameNumber(self.number(script));
                if self.pinned.len() < MOST_PINNED && self.harness.pin(frame) {
                    self.pinned.push(frame);
                }
            }
            _ => {
                if let Some(frame) = self.pinned.pop() {
                    self.harness.unpin(frame);
                }
            }
        }
    }

    fn call(&mut self, rax: u64, [rdi, rsi, r8]: [u64; 3]) {
        self.harness.call(Registers { rax, rdi, rsi, r8 });
    }

    fn write(&mut self, at: u64, words: &[u64]) {
        if self.harness.is_guests(FrameNumber::containing(at)) {
            self.harness.write(at, words);
        }
    }

    fn check(&self) -> Result<(), String> {
        self.harness.check()?;
        // The guest writes to no ballooned frame.
        for frame in PAGES.map(FrameNumber).filter(|&frame| !self.harness.is_guests(frame)) {
            let is_zero = |place: u64| self.harness.read(frame.address() + 8 * place) == Some(0);
            if !(0..512).all(is_zero) && !self.pinned.contains(&frame) {
                return Err(format!("frame {frame:?} is ballooned and does not read as zero"));
            }
        }
        Ok(())
    }

    fn page(&self, script: &mut Script<'_>) -> u64 {
        FrameNumber(PAGES.start + script.below(PAGES.end - PAGES.start)).address()
    }

    /// Returns an address, usually a meaningful one.
    fn address(&self, script: &mut Script<'_>) -> u64 {
        match script.byte() % 4 {
            0 => self.number(script).wrapping_mul(FRAME_BYTES),
            1 => self.page(script) + script.below(64) * 8,
            2 => self.number(script).wrapping_mul(FRAME_BYTES).wrapping_sub(script.below(64) * 8),
            _ => self.page(script),
        }
    }

    /// Returns an entry, usually a block of memory.
    fn entry(&self, script: &mut Script<'_>) -> u64 {
        match script.byte() {
            0xff => script.word(),
            form => {
                let frame = self.number(script);
                let order = if form & 1 == 0 { form >> 1 & 15 } else { HUGE_ORDER };
                let aligned = if form & 64 == 0 { frame >> order << order } else { frame };
                Entry::pending(FrameNumber(aligned), order).encode()
            }
        }
    }

    /// Returns a number of frames, or of one frame.
    fn number(&self, script: &mut Script<'_>) -> u64 {
        match script.byte() % 5 {
            0 => script.byte().into(),
            1 => script.word(),
            2 => {
                let landmarks =
                    [0, IMAGE.start.0, IMAGE.end.0, PAGES.end, self.total, self.end, HOLE_START / FRAME_BYTES, 1 << 48];
                let landmark = landmarks[to_usize(script.below(landmarks.len() as u64))];
                landmark.wrapping_add_signed(i64::from(script.byte().cast_signed()))
            }
            3 => script.below(HUGE_BYTES / FRAME_BYTES),
            _ => {
                let huge = u64::from(script.byte()) % (self.end / HUGE_FRAMES);
                huge * HUGE_FRAMES + 2 * u64::from(script.byte())
            }
        }
    }
}

#[cfg(test)]
mod tests;
