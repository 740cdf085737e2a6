//! The device without a guest, for code that drives it directly: a fuzzer ([`script`]), and a test
//! that runs it together with the guest kernel's driver. Behind the feature `harness`; not part of
//! the `aerostat` command.

pub mod script;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use aerostat_abi::frame_state::HugeFrameWord;
use aerostat_abi::port::Registers;
use aerostat_abi::registers::Facts;
use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use rustix::mm::{mlock, munlock};

use super::{Balloon, BalloonHost};
use crate::frame_map::{FrameMap, Frames};
use crate::layout::{GuestAddress, LOW_END, MemoryLayout};
use crate::memory::GuestMemory;
use crate::page_sizes::HugeIndex;
use crate::shared_registers::SharedRegisters;
use crate::virtio::{Quiescent, Workers};
use aerostat_link::SharedPage;

/// The value of the image's last word.
const CANARY: u64 = 0x1bad_ca11_ab1e_b0a7;

/// The size of a machine's memory and of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// All frames, including those in the balloon.
    pub total: FrameCount,
    /// The frames that the guest starts with, from 0 on.
    pub initial: FrameCount,
    /// The image's frames, at least one.
    pub image: Range<FrameNumber>,
}

/// A balloon device, its guest's memory and its register page.
#[derive(Debug)]
pub struct Harness {
    balloon: Balloon<SilentHost>,
    memory: Arc<GuestMemory>,
    registers: Arc<SharedRegisters>,
    image: Range<FrameNumber>,
    calls: u64,
}

/// A host that ignores what it is told.
#[derive(Debug, Default)]
struct SilentHost {
    workers: Workers,
}

impl BalloonHost for SilentHost {
    fn connect_doorbell(&mut self, _vector: u8) {}
    fn disconnect_doorbell(&mut self) {}
    fn attached(&self) -> FrameCount {
        FrameCount(u64::MAX)
    }
    fn pressure(&mut self, _now_ns: u64) {}
    fn use_changed(&mut self, _now_ns: u64) {}
    fn requested(&mut self, _now_ns: u64) {}
    fn attach(&mut self, _frames: &Range<usize>) -> bool {
        true
    }
    fn memory_released(&mut self) {}
    fn work_left(&mut self) {}
    fn quiesce(&self) -> Option<Quiescent<'_>> {
        self.workers.hold()
    }
}

impl Harness {
    /// Creates the device of a new machine, whose target is its initial size.
    ///
    /// # Errors
    /// Fails where such a machine is impossible.
    pub fn new(extent: Extent) -> io::Result<Self> {
        let layout = MemoryLayout::new(extent.total).map_err(io::Error::other)?;
        let memory = Arc::new(GuestMemory::new(layout)?);
        let (registers, _) = SharedPage::create(extent.initial)?;
        let registers = Arc::new(SharedRegisters::new(registers));
        let map = FrameMap::new(layout, extent.initial, extent.image.clone());
        let balloon = Balloon::new(Arc::clone(&memory), Arc::clone(&registers), SilentHost::default(), map);
        let mut harness = Self { balloon, memory, registers, image: extent.image, calls: 0 };
        harness.write(harness.canary(), &[CANARY]);
        Ok(harness)
    }

    /// Carries out a guest's call.
    pub fn call(&mut self, registers: Registers) -> Registers {
        self.calls += 1;
        let reply = self.balloon.call(registers, self.calls);
        // The main thread does this as soon as it can.
        while self.balloon.split_left() {}
        reply
    }

    /// Does what the supervisor and the VMM process's main thread do.
    pub fn set_target(&mut self, target: FrameCount) {
        self.registers.page().set_target(target);
        while self.balloon.host_reclaim() {}
    }

    /// Starts what the supervisor asks for when a guest uses what is ballooned.
    pub fn reclaim_ballooned(&mut self) {
        let mut at = Some(0);
        while let Some(from) = at {
            at = self.balloon.reclaim_ballooned(from);
        }
    }

    /// Answers the next call with `ResetOrdered`, if the guest has negotiated.
    pub fn order_reset(&mut self) {
        self.balloon.is_reset_ordered = true;
    }

    /// Sets whether the host changes the page sizes behind guest memory when it is asked to.
    pub fn let_page_sizes_change(&mut self, can_change: bool) {
        self.balloon.allow =
            if can_change { GuestMemory::allow } else { |_, _, _| Err(io::ErrorKind::OutOfMemory.into()) };
    }

    /// Makes the host unable to release this frame, like a page that is locked in memory. Returns
    /// whether it did: not for what is no frame, nor beyond what this process may lock.
    pub fn pin(&mut self, frame: FrameNumber) -> bool {
        // SAFETY: locking pages changes no contents.
        self.page(frame).is_some_and(|page| unsafe { mlock(page.cast(), FRAME_SIZE) }.is_ok())
    }

    /// Lets the host release the frame again.
    pub fn unpin(&mut self, frame: FrameNumber) {
        if let Some(page) = self.page(frame) {
            // SAFETY: as in `pin`.
            let _ = unsafe { munlock(page.cast(), FRAME_SIZE) };
        }
    }

    /// Copies words into guest memory, as the guest does; does nothing where there is no memory.
    pub fn write(&mut self, address: u64, words: &[u64]) {
        let _ = self.memory.write_words(GuestAddress(address), words);
    }

    /// Returns a word of guest memory.
    #[must_use]
    pub fn read(&self, address: u64) -> Option<u64> {
        let mut word = [0];
        self.memory.read_words(GuestAddress(address), &mut word).ok()?;
        Some(word[0])
    }

    /// Returns a word that guest and monitor share.
    #[must_use]
    pub fn shared_word(&self, address: u64) -> Option<&HugeFrameWord> {
        self.memory.shared_word(GuestAddress(address)).ok()
    }

    /// Returns where a frame lies in this process, mapped as long as `self` lives.
    #[must_use]
    pub fn page(&self, frame: FrameNumber) -> Option<*mut u8> {
        let index = self.memory.layout().indexes(frame, FrameCount(1))?.start;
        Some(self.memory.host_address(index * FRAME_SIZE))
    }

    /// Returns what the register page says.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.registers.page().facts()
    }

    /// Returns whether a frame is memory and the guest's.
    #[must_use]
    pub fn is_guests(&self, frame: FrameNumber) -> bool {
        self.balloon.map.is_guests(frame)
    }

    /// Checks what must hold after every call.
    ///
    /// # Errors
    /// Returns what does not hold, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        let map = &self.balloon.map;
        let total = self.memory.layout().total();
        let facts = self.facts();
        if (facts.size, facts.balloon) != (map.size(), map.balloon()) {
            return Err(format!("the register page does not say what the map does: {facts:?}"));
        }
        if facts.size.saturating_add(facts.balloon) != total {
            return Err(format!("size and balloon are not {total}: {facts:?}"));
        }
        let kept = map.recount();
        if kept != map.size() {
            return Err(format!("{kept} are the guest's, and {} are counted", map.size()));
        }
        let low = FrameNumber(0)..FrameNumber::containing(LOW_END);
        let shared = self.balloon.offers.as_ref().map_or(low.clone(), |offers| offers.frames());
        for protected in [low, self.image.clone(), shared] {
            let count = FrameCount(protected.end.0 - protected.start.0);
            let frames = self.memory.layout().indexes(protected.start, count);
            if frames.is_none_or(|frames| map.state(&frames) != Some(Frames::Guest)) {
                return Err(format!("some of the protected frames {protected:?} are ballooned"));
            }
        }
        // The guest may have had the monitor write to it, but no call turns a word into zeros.
        if self.read(self.canary()) == Some(0) {
            return Err("the image was released".to_owned());
        }
        let huge_frames = to_usize(total.0 / HUGE_FRAMES);
        match (0..huge_frames).find(|&huge| !self.balloon.page_sizes.is_right(map, HugeIndex(huge))) {
            Some(huge) => Err(format!("huge frame {huge} is ballooned in part, and may have a huge page")),
            None => Ok(()),
        }
    }

    /// Returns where the canary lies: the image's last word.
    fn canary(&self) -> u64 {
        self.image.end.address() - size_of_val(&CANARY) as u64
    }
}
