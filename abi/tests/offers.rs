//! Tests all interleavings of a guest that withdraws an offer and a monitor that reclaims the huge
//! frame, with the accesses of both to its memory. Loom runs the word's own code with an atomic of
//! loom's, and tries every order of events.

#![allow(unsafe_code, reason = "loom's cells are entered by pointer")]

use std::sync::Arc;

use aerostat_abi::frame_state::HugeFrameState;
use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::sync::atomic::AtomicU32;
use loom::thread::{self, JoinHandle};

#[path = "../src/frame_state/word.rs"]
#[expect(unreachable_pub, reason = "it is the library's, and public there")]
mod word;

use word::{AlreadyReclaimed, HugeFrameWord};

/// Contents of the huge frame.
const OLD: u8 = 1;
const RELEASED: u8 = 0;
const NEW: u8 = 2;

/// A machine with one huge frame.
struct Machine {
    word: HugeFrameWord,
    /// Loom reports two unordered accesses of which one is a write.
    memory: UnsafeCell<u8>,
    /// The monitor's device, which one thread at a time uses: whether the huge frame is ballooned.
    device: Mutex<bool>,
}

// SAFETY: loom checks what the compiler can't see.
unsafe impl Sync for Machine {}
// SAFETY: as above.
unsafe impl Send for Machine {}

impl Machine {
    fn new() -> Arc<Self> {
        Arc::new(Self { word: HugeFrameWord::default(), memory: UnsafeCell::new(0), device: Mutex::new(false) })
    }

    fn write(&self, value: u8) {
        // SAFETY: loom's own check.
        self.memory.with_mut(|memory| unsafe { *memory = value });
    }

    fn read(&self) -> u8 {
        // SAFETY: loom's own check.
        self.memory.with(|memory| unsafe { *memory })
    }

    /// Uses the frame, frees it and offers it, as the guest does.
    fn offer(&self) {
        self.write(OLD);
        self.word.store(HugeFrameState::default().with_backing().with_offer());
    }

    /// Reclaims an offered frame and releases it, inside the device, as the monitor does.
    fn host_reclaim(&self) -> bool {
        let mut is_ballooned = self.device.lock().expect("a test that panics has failed");
        if self.word.reclaim().is_none() {
            return false;
        }
        *is_ballooned = true;
        self.write(RELEASED);
        true
    }

    /// Allocates the frame, as the guest does: by withdrawing the offer, else by deflating.
    fn allocate(&self) -> Result<(), AlreadyReclaimed> {
        let withdrawn = self.word.withdraw();
        if withdrawn.is_err() {
            let mut is_ballooned = self.device.lock().expect("a test that panics has failed");
            assert!(*is_ballooned, "a frame that its word calls reclaimed is ballooned once the device is free");
            *is_ballooned = false;
            assert_eq!(self.read(), RELEASED);
        }
        self.word.store(HugeFrameState::default().with_backing().with_whole());
        self.write(NEW);
        withdrawn
    }
}

/// Starts a monitor; its thread returns whether it has reclaimed the frame.
fn host_reclaiming(machine: &Arc<Machine>) -> JoinHandle<bool> {
    let machine = Arc::clone(machine);
    thread::spawn(move || machine.host_reclaim())
}

#[test]
fn only_one_side_gets_the_frame_and_only_that_side_accesses_it() {
    loom::model(|| {
        let machine = Machine::new();
        machine.offer();
        let monitor = host_reclaiming(&machine);
        let withdrawn = machine.allocate();
        assert_eq!(machine.read(), NEW, "an allocated frame stays the guest's");
        let reclaimed = monitor.join().unwrap();
        assert_eq!(reclaimed, withdrawn.is_err());
    });
}

#[test]
fn a_repeated_offer_is_a_new_offer() {
    loom::model(|| {
        let machine = Machine::new();
        machine.offer();
        let monitor = host_reclaiming(&machine);
        let withdrawn = machine.allocate();
        machine.offer();
        let reclaimed = monitor.join().unwrap();
        let state = machine.word.load();
        // The monitor reclaims the frame by the first offer or by the second, never by both.
        assert_eq!(reclaimed, withdrawn.is_err() || state.is_reclaimed());
        assert!(!(withdrawn.is_err() && state.is_reclaimed()));
        assert_ne!(state.is_reclaimed(), state.is_offered());
    });
}

#[test]
fn only_one_of_two_monitors_reclaims_the_frame() {
    loom::model(|| {
        let machine = Machine::new();
        machine.offer();
        let other = host_reclaiming(&machine);
        let reclaimed = machine.host_reclaim();
        assert_ne!(reclaimed, other.join().unwrap());
    });
}
