//! The pool: its zspages, and what it holds.
#![allow(unsafe_code, reason = "a handle names a zspage by its first frame")]

use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, to_usize};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use super::class::{CLASSES, class_for, packed_class};
use super::list::ZspageList;
use super::zspage::{HEAD_BYTES, Handle, MAX_FRAMES, Zspage, ZspageFrames, head, head_of};
use crate::mm::block::{Block, BlockSize, Contents};
use crate::mm::{FRAMES, Purpose};

/// The most bytes that LZ4 makes of a page.
const OUTPUT_BYTES: usize = get_maximum_output_size(FRAME_SIZE);

/// What the compressed pool holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CompressedPoolStatistics {
    /// Pages.
    pub(crate) pages: u64,
    /// Frames that they occupy.
    pub(crate) frames: FrameCount,
}

/// Why a page was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// It does not compress to three quarters of its size.
    Incompressible,
    /// There is no frame for it.
    NoFrame,
}

/// A zspage that is being written to disk. It is in no list. Its pages can still be loaded and
/// dropped, which does not pack it: the disk reads its frames.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the pool waits for the end of the write"]
pub(crate) struct Writeback(Zspage);

impl Writeback {
    /// Returns the zspage's frames.
    pub(crate) fn frames(&self) -> ZspageFrames {
        self.0.header().frames()
    }

    /// Returns the indexes of the zspage's pages, a bit each.
    pub(crate) fn pages(&self) -> u16 {
        self.0.header().used
    }

    /// Returns the handle and the address of each page.
    pub(crate) fn handles(&self) -> impl Iterator<Item = (Handle, u64)> + '_ {
        self.0.pages()
    }
}

/// The compressed pool.
#[derive(Debug)]
pub(crate) struct CompressedPool {
    /// Zspages with room, by class.
    with_room: [ZspageList; CLASSES.len()],
    /// All zspages but those under writeback, the oldest first.
    by_age: ZspageList,
    statistics: CompressedPoolStatistics,
    workspace: Workspace,
}

/// Buffers for compression, made once: eviction allocates nothing.
struct Workspace {
    table: CompressTable,
    /// An object, as it is stored.
    object: [u8; HEAD_BYTES + OUTPUT_BYTES],
}

impl core::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Workspace")
    }
}

impl CompressedPool {
    /// Creates an empty pool.
    pub(crate) const fn new() -> Self {
        Self {
            with_room: [ZspageList::with_room(); CLASSES.len()],
            by_age: ZspageList::by_age(),
            statistics: CompressedPoolStatistics { pages: 0, frames: FrameCount::ZERO },
            workspace: Workspace { table: CompressTable::small(), object: [0; HEAD_BYTES + OUTPUT_BYTES] },
        }
    }

    pub(crate) fn statistics(&self) -> CompressedPoolStatistics {
        self.statistics
    }

    /// Compresses and stores a page, whose address is `address`.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub(crate) fn store(&mut self, address: u64, page: &[u8; FRAME_SIZE]) -> Result<Handle, StoreError> {
        let (object_head, body) = self.workspace.object.split_at_mut(HEAD_BYTES);
        let length =
            compress_into_with_table(page, body, &mut self.workspace.table).map_err(|_| StoreError::Incompressible)?;
        object_head.copy_from_slice(&head(length, address));
        let class = class_for(HEAD_BYTES + length).ok_or(StoreError::Incompressible)?;
        let mut zspage = match self.with_room[usize::from(class)].first() {
            Some(zspage) => zspage,
            None => self.add_zspage(class)?,
        };
        let index = to_usize(u64::from(zspage.header().used.trailing_ones()));
        let handle = Handle::new(zspage.first(), index).ok_or(StoreError::NoFrame)?;
        zspage.header_mut().used |= 1 << index;
        if zspage.header().is_full() {
            self.with_room[usize::from(class)].remove(&mut zspage);
        }
        zspage.write_object(zspage.header().layout(), index, &self.workspace.object[..HEAD_BYTES + length]);
        self.statistics.pages += 1;
        Ok(handle)
    }

    /// Writes a stored page into `page`. Returns `false` if the object can't be what was stored.
    ///
    /// # Safety
    /// `handle` names a page that the pool holds.
    #[must_use]
    pub(crate) unsafe fn load(&mut self, handle: Handle, page: &mut [u8; FRAME_SIZE]) -> bool {
        // SAFETY: the pool holds the page, so its zspage is alive; no other value for it is in use.
        let zspage = unsafe { Zspage::at(handle.first_frame()) };
        let (first, second) = zspage.object(zspage.header().layout(), handle.index());
        let object = if second.is_empty() {
            first
        } else {
            let buffer = &mut self.workspace.object[..first.len() + second.len()];
            let (start, end) = buffer.split_at_mut(first.len());
            start.copy_from_slice(first);
            end.copy_from_slice(second);
            &*buffer
        };
        let (length, _) = head_of(object);
        object
            .get(HEAD_BYTES..HEAD_BYTES + length)
            .is_some_and(|bytes| matches!(decompress_into(bytes, page), Ok(FRAME_SIZE)))
    }

    /// Drops a stored page. Frees the frames that its zspage does not need any more.
    ///
    /// # Safety
    /// `handle` names a page that the pool holds. It does not hold it afterwards.
    pub(crate) unsafe fn drop_page(&mut self, handle: Handle) {
        // SAFETY: as in `load`.
        let mut zspage = unsafe { Zspage::at(handle.first_frame()) };
        let was_full = zspage.header().is_full();
        debug_assert!(zspage.header().used & 1 << handle.index() != 0, "{handle:?} holds no page");
        zspage.header_mut().used &= !(1 << handle.index());
        self.statistics.pages -= 1;
        let header = zspage.header();
        if header.under_writeback != 0 {
            return;
        }
        let with_room = &mut self.with_room[usize::from(header.class)];
        let (is_empty, is_sparse) = (header.used == 0, header.is_sparse());
        if !was_full && (is_empty || is_sparse) {
            with_room.remove(&mut zspage);
        }
        if is_empty {
            self.by_age.remove(&mut zspage);
            self.free_all(&zspage);
        } else if is_sparse {
            self.pack(&mut zspage);
        } else if was_full {
            with_room.append(&mut zspage);
        }
    }

    /// Packs the pages of a sparse zspage, which is in no list of zspages with room, into its first
    /// frames, one in each, and frees the others. Nothing is allocated, and handles stay valid. The
    /// objects are moved in ascending order, so none is overwritten before it has been moved.
    fn pack(&mut self, zspage: &mut Zspage) {
        let (old, frames, pages) = (zspage.header().layout(), zspage.header().frames(), zspage.header().pages());
        let header = zspage.header_mut();
        (header.laid_out, header.class) = (header.used, packed_class(pages));
        let new = zspage.header().layout();
        for index in zspage.header().indexes() {
            let object = &mut self.workspace.object[..old.object_bytes];
            zspage.read_object(old, index, object);
            // The bytes that are cut off are unused: a packed zspage has larger objects than any
            // page was stored in.
            let length = old.object_bytes.min(new.object_bytes);
            zspage.write_object(new, index, &object[..length]);
        }
        // SAFETY: the packed zspage does not reach these frames any more.
        unsafe { self.free_frames(&frames.as_slice()[pages..]) };
    }

    /// Begins to write the oldest zspage to disk.
    pub(crate) fn begin_writeback(&mut self) -> Option<Writeback> {
        let mut zspage = self.by_age.first()?;
        if !zspage.header().is_full() {
            self.with_room[usize::from(zspage.header().class)].remove(&mut zspage);
        }
        self.by_age.remove(&mut zspage);
        if zspage.header().is_sparse() {
            self.pack(&mut zspage); // a class was being filled from it
        }
        zspage.header_mut().under_writeback = 1;
        Some(Writeback(zspage))
    }

    /// Frees a zspage that has been written to disk: its pages are not in the pool any more.
    pub(crate) fn end_writeback(&mut self, writeback: Writeback) {
        let Writeback(zspage) = writeback;
        self.statistics.pages -= zspage.header().pages() as u64;
        self.free_all(&zspage);
    }

    /// Keeps a zspage that could not be written, unless all of its pages were dropped meanwhile.
    pub(crate) fn cancel_writeback(&mut self, writeback: Writeback) {
        let Writeback(mut zspage) = writeback;
        zspage.header_mut().under_writeback = 0;
        if zspage.header().used == 0 {
            return self.free_all(&zspage);
        }
        if zspage.header().is_sparse() {
            self.pack(&mut zspage);
        }
        self.link(&mut zspage);
    }

    /// Adopts a zspage that was written to disk and has been read into `blocks`. It keeps the pages
    /// in `wanted`, a bit for each index, and all of these must be there: `is_due` checks the index
    /// and the address of each. Returns their handles and addresses.
    ///
    /// Returns `None` when the blocks hold something else than such a zspage. The pool is unchanged
    /// then, and the blocks are still the caller's.
    pub(crate) fn adopt<'pool>(
        &'pool mut self,
        blocks: &mut [Option<Block>],
        wanted: u16,
        is_due: &dyn Fn(usize, u64) -> bool,
    ) -> Option<impl Iterator<Item = (Handle, u64)> + use<'pool>> {
        let first = blocks.first()?.as_ref()?.first();
        // SAFETY: the block is the caller's, and nothing else uses it. What its header says is
        // checked below, before an object is read, and the frames that it names are replaced.
        let mut zspage = unsafe { Zspage::at(first) };
        let header = zspage.header_mut();
        let class = CLASSES.get(usize::from(header.class))?;
        let is_there = wanted != 0 && header.used & header.laid_out & wanted == wanted;
        if class.frames != blocks.len() || !is_there {
            return None;
        }
        let last = to_usize(u64::from(wanted.ilog2()));
        if header.layout().rank(last) >= class.objects {
            return None;
        }
        for (frame, block) in header.frames.iter_mut().zip(&*blocks) {
            *frame = u32::try_from(block.as_ref()?.first().0).ok()?;
        }
        (header.used, header.under_writeback) = (wanted, 0);
        if !zspage.pages().all(|(handle, page)| is_due(handle.index(), page)) {
            return None;
        }
        self.statistics.pages += u64::from(wanted.count_ones());
        self.statistics.frames = self.statistics.frames.saturating_add(FrameCount(blocks.len() as u64));
        for block in blocks.iter_mut().filter_map(Option::take) {
            let _ = block.into_number(); // the header has it
        }
        if zspage.header().is_sparse() {
            self.pack(&mut zspage);
        }
        self.link(&mut zspage);
        Some(zspage.into_pages())
    }

    /// Adds an empty zspage, with all frames that its class needs.
    fn add_zspage(&mut self, class: u8) -> Result<Zspage, StoreError> {
        let mut frames = [0; MAX_FRAMES];
        let count = CLASSES[usize::from(class)].frames;
        for place in 0..count {
            let block = FRAMES.allocate(BlockSize::Frame, Purpose::CompressedPool);
            let Some(number) = block.and_then(|block| u32::try_from(block.into_number().0).ok()) else {
                let unused = frames.map(|frame| FrameNumber(u64::from(frame)));
                // SAFETY: these were allocated above.
                unused[..place].iter().for_each(|frame| unsafe { free_frame(*frame) });
                return Err(StoreError::NoFrame);
            };
            frames[place] = number;
        }
        // SAFETY: the frames have just been allocated, as many as the class needs.
        let mut zspage = unsafe { Zspage::create(class, frames) };
        self.link(&mut zspage);
        self.statistics.frames = self.statistics.frames.saturating_add(FrameCount(count as u64));
        Ok(zspage)
    }

    /// Puts a zspage into the lists where it belongs, as the youngest.
    fn link(&mut self, zspage: &mut Zspage) {
        if !zspage.header().is_full() {
            self.with_room[usize::from(zspage.header().class)].append(zspage);
        }
        self.by_age.append(zspage);
    }

    /// Frees all frames of a zspage that is in no list and is not used again.
    fn free_all(&mut self, zspage: &Zspage) {
        let frames = zspage.header().frames();
        // SAFETY: the zspage owned them, and is not used again.
        unsafe { self.free_frames(frames.as_slice()) };
    }

    /// Frees frames of the pool.
    ///
    /// # Safety
    /// The pool owns them, and no zspage uses them any more.
    unsafe fn free_frames(&mut self, frames: &[FrameNumber]) {
        self.statistics.frames = self.statistics.frames.saturating_sub(FrameCount(frames.len() as u64));
        // SAFETY: as the caller vouches.
        frames.iter().for_each(|frame| unsafe { free_frame(*frame) });
    }

    /// Checks that the lists and the statistics agree, and that no zspage is sparse but those that
    /// a class is being filled from.
    ///
    /// # Errors
    /// Returns the first disagreement, as a sentence.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        let mut pages = 0;
        let mut frames = 0;
        let mut next = self.by_age.first();
        while let Some(mut zspage) = next {
            let header = zspage.header();
            (pages, frames) = (pages + header.pages() as u64, frames + header.class().frames as u64);
            let filled_from = self.with_room[usize::from(header.class)].first();
            if header.is_sparse() && filled_from.is_none_or(|filled| filled != zspage) {
                return Err("a zspage has fewer pages than frames");
            }
            next = self.by_age.next(&mut zspage);
        }
        if pages > self.statistics.pages || frames > self.statistics.frames.0 {
            return Err("the compressed pool holds more than it counts");
        }
        Ok(())
    }
}

/// Frees a frame of the pool.
///
/// # Safety
/// As for [`CompressedPool::free_frames`].
unsafe fn free_frame(frame: FrameNumber) {
    // SAFETY: as the caller vouches.
    FRAMES.free_in_headroom(unsafe { Block::from_raw(frame, BlockSize::Frame, Contents::Unknown) });
}
