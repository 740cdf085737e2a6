//! A machine for tests of all of memory management, faults included. The arena is ordinary memory
//! of the test at a low fixed address, so that frame numbers stay small and the identity map holds
//! as it is.
//!
//! The kernel's globals are shared by all tests of the process, so a [`TestMachine`] holds a lock:
//! one machine at a time.
#![allow(unsafe_code, reason = "places memory and reads it by its address")]

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use aerostat_abi::units::{FRAME_BYTES, FrameCount, FrameNumber, HUGE_BYTES, HUGE_FRAMES, to_usize};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use super::address_space::{Fault, Region, RegionKind};
use super::block::Contents;
use super::compaction::collapse::Collapser;
use super::fault::{self, FaultError};
use super::frame_allocator::FrameStatistics;
use super::page_table::{Access, PageState, PageTables, Slot};
use super::{Block, BlockSize, FRAMES, FrameAllocator, Purpose, SPACE, reclaim};
use crate::config::KERNEL_FLOOR;
use crate::layout::STACKS;

/// The address of the arena: above what the kernel's image would occupy, and below anything that
/// the host places by itself.
const ARENA: u64 = 1 << 30;
const ARENA_BYTES: u64 = 48 << 20;

static TURN: Mutex<()> = Mutex::new(());

/// A started machine. Dropping it empties the globals again.
pub(super) struct TestMachine {
    _turn: MutexGuard<'static, ()>,
}

impl TestMachine {
    /// Starts a machine of `huge_frames` huge frames. The first holds the root of the page tables;
    /// nothing else is in use.
    pub(super) fn start(huge_frames: u64) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(huge_frames * HUGE_BYTES <= ARENA_BYTES);
        clear_arena();
        reclaim::tests::restart();
        core::mem::forget(core::mem::replace(&mut SPACE.lock().collapser, Collapser::new()));
        super::file::restart();
        let root = FrameNumber::containing(ARENA);
        let end = FrameCount((ARENA + huge_frames * HUGE_BYTES) / FRAME_BYTES);
        let reserved = FrameNumber(0)..FrameNumber(root.0 + 1);
        let allocator = FrameAllocator::leaked(end, &[reserved], KERNEL_FLOOR);
        FRAMES.stop();
        FRAMES.start(allocator, FrameCount(huge_frames * HUGE_FRAMES));
        // SAFETY: the root is zeroed memory at its own address, as are all frames that the
        // allocator has; tables change under the lock of `SPACE` only.
        SPACE.lock().tables = Some(unsafe { PageTables::new(root) });
        place_stacks();
        Self { _turn: turn }
    }

    /// Does what a read of `address` does; afterwards the page is mapped.
    pub(super) fn touch(&self, address: u64) -> Result<(), FaultError> {
        if self.frame_at(address).is_none() {
            read_fault(address)?;
            assert!(
                self.frame_at(address).is_some(),
                "a fault at {address:#x} was resolved, and the page is not mapped"
            );
        }
        Ok(())
    }

    /// Does what a write of `value` to a page's first word does, and sets the dirty bit as the CPU
    /// does.
    pub(super) fn write(&self, page: u64, value: u64) -> Result<(), FaultError> {
        let can_write = || SPACE.lock().tables().is_some_and(|tables| tables.is_writable(page));
        if !can_write() {
            fault::handle(Fault { address: page, access: Access::ReadWrite })?;
            assert!(can_write(), "a fault at {page:#x} was resolved, and the page can't be written to");
        }
        SPACE.lock().tables_mut().expect("the machine has started").mark_written(page);
        self.set_word(page, value);
        Ok(())
    }

    /// Touches a page as the CPU does: marks its entries as accessed.
    pub(super) fn access(&self, address: u64) {
        self.touch(address).expect("the address lies in a region");
        if let Some(tables) = SPACE.lock().tables_mut() {
            tables.mark_accessed(address);
        }
    }

    /// Makes pages single frames: keeps the first frame of every wholly free huge frame and frees
    /// the others one by one.
    pub(super) fn break_huge_frames(&self) -> Vec<FrameNumber> {
        let huge = || FRAMES.allocate(BlockSize::Huge, Purpose::Kernel);
        let firsts: Vec<_> = core::iter::from_fn(huge).map(Block::into_number).collect();
        for first in &firsts {
            for frame in (1..HUGE_FRAMES).map(|offset| FrameNumber(first.0 + offset)) {
                FRAMES.free(block(frame, BlockSize::Frame));
            }
        }
        firsts
    }

    /// Frees what [`Self::break_huge_frames`] has kept.
    pub(super) fn mend_huge_frames(&self, firsts: Vec<FrameNumber>) {
        for first in firsts {
            FRAMES.free(block(first, BlockSize::Frame));
        }
    }

    pub(super) fn frame_at(&self, address: u64) -> Option<FrameNumber> {
        frame_at(address)
    }

    /// Returns the first word of a mapped page.
    pub(super) fn word(&self, page: u64) -> u64 {
        // SAFETY: the page is mapped, so the frame belongs to the test's region and no other code
        // touches it.
        unsafe { pointer(page).read() }
    }

    pub(super) fn set_word(&self, page: u64, value: u64) {
        // SAFETY: as in `word`.
        unsafe { pointer(page).write(value) };
    }

    /// Writes every word of a mapped page.
    pub(super) fn fill(&self, page: u64, word: impl Fn(usize) -> u64) {
        fill(page, word);
    }

    pub(super) fn statistics(&self) -> FrameStatistics {
        FRAMES.statistics()
    }

    pub(super) fn region(&self, start: u64) -> Region {
        SPACE.lock().regions.find(start).expect("a region of the test").clone()
    }

    /// Counts the frames that the page tables hold for the region at `start`: its pages and its
    /// tables of pages.
    pub(super) fn drawn(&self, start: u64) -> u64 {
        let range = self.region(start).range;
        let space = SPACE.lock();
        let tables = space.tables().expect("the machine has started");
        let pages = |slot: u64| (slot..slot + HUGE_BYTES).step_by(to_usize(FRAME_BYTES));
        let has_frame = |state| matches!(state, PageState::Mapped | PageState::Leaving);
        let drawn_in = |slot| match tables.slot(slot) {
            Slot::Empty => 0,
            Slot::Huge => 512,
            Slot::Table => 1 + pages(slot).filter(|&page| has_frame(tables.page_state(page))).count() as u64,
        };
        range.step_by(to_usize(HUGE_BYTES)).map(drawn_in).sum()
    }
}

/// Does what a read of `address` does when it is not mapped.
pub(super) fn read_fault(address: u64) -> Result<(), FaultError> {
    fault::handle(Fault { address, access: Access::ReadOnly })
}

/// Writes every word of a mapped page: for code that has no machine at hand, while a test has one.
pub(super) fn fill(page: u64, word: impl Fn(usize) -> u64) {
    for place in 0..512 {
        // SAFETY: as in `TestMachine::word`; a page has 512 words.
        unsafe { pointer(page).wrapping_add(place).write(word(place)) };
    }
}

fn pointer(page: u64) -> *mut u64 {
    let frame = frame_at(page).expect("the test has touched the page");
    core::ptr::with_exposed_provenance_mut(to_usize(frame.address()))
}

fn frame_at(address: u64) -> Option<FrameNumber> {
    SPACE.lock().tables()?.translate(address)
}

impl Drop for TestMachine {
    fn drop(&mut self) {
        let mut space = SPACE.lock();
        space.regions.clear(|frame| _ = frame.into_number()); // its machine goes, too
        space.tables = None;
        FRAMES.stop();
    }
}

/// Places the region of the stacks, as a start does. The first regions are stored in a frame of the
/// host, not in one of the machine.
fn place_stacks() {
    static FRAME: OnceLock<FrameNumber> = OnceLock::new();
    let number = *FRAME.get_or_init(|| host_frame().into_number());
    let mut frame = Some(block(number, BlockSize::Frame));
    let placed = SPACE.lock().regions.place(RegionKind::Stack, STACKS, &mut frame);
    assert_eq!((placed, frame.is_none()), (Ok(()), true));
}

/// Makes a block of a number. The test knows that no other owner exists.
pub(crate) fn block(first: FrameNumber, size: BlockSize) -> Block {
    // SAFETY: the test knows.
    unsafe { Block::from_raw(first, size, Contents::Unknown) }
}

/// Leaks a frame of ordinary memory, which the identity map reaches.
pub(super) fn host_frame() -> Block {
    #[repr(align(4096))]
    struct Frame([u8; 4096]);
    let frame: *mut Frame = Box::leak(Box::new(Frame([0; 4096])));
    block(FrameNumber::containing(frame.expose_provenance() as u64), BlockSize::Frame)
}

/// Makes the arena read as zero, like memory that the host has just supplied.
fn clear_arena() {
    static PLACED: OnceLock<()> = OnceLock::new();
    let pointer = core::ptr::with_exposed_provenance_mut(to_usize(ARENA));
    PLACED.get_or_init(|| {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: the flag makes this fail rather than replace a mapping.
        let placed =
            unsafe { mmap_anonymous(pointer, to_usize(ARENA_BYTES), ProtFlags::READ | ProtFlags::WRITE, flags) };
        assert_eq!(placed.expect("nothing of the test lies so low"), pointer);
        let _ = pointer.expose_provenance();
    });
    // SAFETY: the arena is ours, and no machine is running.
    unsafe { madvise(pointer, to_usize(ARENA_BYTES), Advice::LinuxDontNeed) }.expect("the arena is mapped");
}
