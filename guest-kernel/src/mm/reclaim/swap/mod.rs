//! Where evicted pages are stored.
//!
//! A page table entry holds a [`SwapEntry`](entry::SwapEntry) while its page is evicted. It names
//! an object in the [`compressed_pool`], or a slot of the [`swap_disk`], of which the [`slot_map`]
//! knows what is in use. [`SwapSpace`] is all of these: it decides what is stored where.
//!
//! Linux has the same parts: zswap with zsmalloc, `mm/swapfile.c`, `mm/page_io.c`.

pub(crate) mod compressed_pool;
pub(crate) mod disk;
pub(crate) mod entry;
pub(crate) mod slot_map;
#[cfg(test)]
pub(crate) mod slow_disk;
pub(super) mod swap_disk;
mod swap_space;
mod write;

pub(super) use swap_space::{LoadError, Room, SparseZspage, SwapSpace};
