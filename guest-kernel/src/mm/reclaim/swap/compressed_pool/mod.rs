//! The compressed pool: evicted pages, LZ4-compressed, packed into zspages.
//!
//! A [`Zspage`](zspage::Zspage) is one to three frames, wherever they lie, that hold objects of one
//! [`class`] as if the frames followed each other: 15 small objects in a frame, or four of three
//! quarters of a page in three frames. An object is a compressed page, found by its [`Handle`].
//! Storing a page and dropping one are O(1). The idea is zsmalloc's (Linux). Text compresses to 50
//! to 70 % of a page: without zspages of several frames, most of it could not be stored. A page
//! that does not compress to three quarters is not worth storing here.
//!
//! The [`CompressedPool`] keeps the zspages of each class that have room, and all zspages by age.
//! The oldest is the next to be written to a swap disk, as it is
//! ([`CompressedPool::begin_writeback`]), and comes back as it is ([`CompressedPool::adopt`]). An
//! object names its page, so the page table entries of all pages in a zspage can be found from the
//! zspage.
//!
//! Every frame of the pool counts as swap headroom, so no zspage may keep more frames than it has
//! pages. A zspage that loses pages is packed in place into as many frames as it has pages left.
//! Only the zspage from which a class is being filled may be sparse.
//!
//! Storing a page allocates nothing but the frames of a zspage, when its class has no room.
//! Dropping a page allocates nothing.

mod class;
mod list;
mod pool;
#[cfg(test)]
mod tests;
mod zspage;

pub(crate) use pool::{CompressedPool, CompressedPoolStatistics, StoreError, Writeback};
pub(crate) use zspage::{Handle, MAX_FRAMES};
