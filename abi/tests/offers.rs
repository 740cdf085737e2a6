//! All interleavings of a guest that withdraws an offer and a monitor that takes it, and what
//! either does to the memory then: loom runs the word's own code with an atomic whose every order
//! of events it tries.

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

use word::{HugeFrameWord, Taken};

/// What is in the huge frame.
const OLD: u8 = 1;
const RELEASED: u8 = 0;
const NEW: u8 = 2;

/// A machine with one huge frame.
struct Machine {
    word: HugeFrameWord,
    /// Loom reports two accesses to it that nothing orders, one of them a write.
    memory: UnsafeCell<u8>,
    /// The monitor's device, which one thread at a time is in; it says whether the huge frame is
    /// given.
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

    /// The guest uses the frame, frees and offers it.
    fn offer(&self) {
        self.write(OLD);
        self.word.store(HugeFrameState::default().with_backing().with_offer());
    }

    /// The monitor takes what is offered and releases it, inside its device.
    fn host_reclaim(&self) -> bool {
        let mut is_ballooned = self.device.lock().expect("a test that panics has failed");
        if self.word.take().is_none() {
            return false;
        }
        *is_ballooned = true;
        self.write(RELEASED);
        true
    }

    /// The guest allocates the frame: by withdrawing the offer, else by asking the monitor for it.
    fn allocate(&self) -> Result<(), Taken> {
        let withdrawn = self.word.withdraw();
        if withdrawn.is_err() {
            let mut is_ballooned = self.device.lock().expect("a test that panics has failed");
            assert!(*is_ballooned, "what the word calls taken is given once the device is free");
            *is_ballooned = false;
            assert_eq!(self.read(), RELEASED);
        }
        self.word.store(HugeFrameState::default().with_backing().with_whole());
        self.write(NEW);
        withdrawn
    }
}

/// A monitor at work; it ends with whether it has taken the frame.
fn host_reclaiming(machine: &Arc<Machine>) -> JoinHandle<bool> {
    let machine = Arc::clone(machine);
    thread::spawn(move || machine.host_reclaim())
}

#[test]
fn one_of_them_has_the_frame_and_nobody_touches_it_besides() {
    loom::model(|| {
        let machine = Machine::new();
        machine.offer();
        let monitor = host_reclaiming(&machine);
        let withdrawn = machine.allocate();
        assert_eq!(machine.read(), NEW, "what the guest has allocated stays its own");
        let taken = monitor.join().unwrap();
        assert_eq!(taken, withdrawn.is_err());
    });
}

#[test]
fn an_offer_made_again_is_a_new_one() {
    loom::model(|| {
        let machine = Machine::new();
        machine.offer();
        let monitor = host_reclaiming(&machine);
        let withdrawn = machine.allocate();
        machine.offer();
        let taken = monitor.join().unwrap();
        let state = machine.word.load();
        // Taken by the first offer or by the second, never by both.
        assert_eq!(taken, withdrawn.is_err() || state.is_reclaimed());
        assert!(!(withdrawn.is_err() && state.is_reclaimed()));
        assert_ne!(state.is_reclaimed(), state.is_offered());
    });
}

#[test]
fn two_monitors_take_it_once() {
    loom::model(|| {
        let machine = Machine::new();
        machine.offer();
        let other = host_reclaiming(&machine);
        let taken = machine.host_reclaim();
        assert_ne!(taken, other.join().unwrap());
    });
}
