//! The image's part of the identity map: writable memory can't be executed, and code and constants
//! can't be written.
//!
//! The image is mapped nowhere else, so no other mapping allows more. The page tables themselves
//! are writable, as the kernel runs in ring 3 like the application: this stops stray writes and
//! jumps, not a malicious application.
#![allow(unsafe_code, reason = "reaches tables by their addresses")]

use aerostat_abi::units::{FRAME_BYTES, FrameNumber, HUGE_BYTES};
use x86_64::structures::paging::PageTableFlags;

use super::{DATA, MAPPED, PageTables, fill_table, set, table_below_mut};
use crate::layout;
use crate::mm::block::Block;

/// Where the parts of the image end. It begins with its code, which constants follow, and data
/// follows these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    /// The address behind the code.
    pub(crate) code_end: u64,
    /// The address behind the constants.
    pub(crate) constants_end: u64,
    /// The address behind all of it.
    pub(crate) end: u64,
}

impl Image {
    /// Returns the flags of the page at `address` of the slots of low memory and the image. Between
    /// low memory and the image, and behind it, they hold memory that may be read and written.
    fn flags_at(&self, address: u64) -> PageTableFlags {
        let constants = DATA - PageTableFlags::WRITABLE - PageTableFlags::DIRTY;
        if address < layout::LOW_MEMORY_END {
            PageTableFlags::empty()
        } else if address < layout::IMAGE_BASE {
            DATA
        } else if address < self.code_end {
            constants - PageTableFlags::NO_EXECUTE
        } else if address < self.constants_end {
            constants
        } else {
            DATA
        }
    }
}

impl PageTables {
    /// Identity-maps the first gibibyte anew, up to `end`, with frames from `take` as tables: low
    /// memory and the image page by page, as its parts require, the rest in huge pages that can't
    /// be executed. The caller must flush the TLB.
    ///
    /// The tables in force are changed by one write. A host that shadows page tables traps each.
    pub(crate) fn map_first_gib(&mut self, image: &Image, end: FrameNumber, take: &mut dyn FnMut() -> Block) {
        let number = fill_table(take(), |slot| {
            let address = slot * HUGE_BYTES;
            if address < image.constants_end {
                (fill_table(take(), |place| page_of(address + place * FRAME_BYTES, image)), MAPPED)
            } else if address < end.address() {
                (FrameNumber::containing(address), DATA | PageTableFlags::HUGE_PAGE)
            } else {
                (FrameNumber(0), PageTableFlags::empty())
            }
        });
        let entry = &mut self.root_mut()[0];
        // SAFETY: the entry is one of these tables, which are borrowed exclusively.
        if let Some(upper) = unsafe { table_below_mut(entry) } {
            set(&mut upper[0], number, MAPPED);
        }
    }
}

/// Returns what the entry of the page at `address` refers to.
fn page_of(address: u64, image: &Image) -> (FrameNumber, PageTableFlags) {
    (FrameNumber::containing(address), image.flags_at(address))
}
