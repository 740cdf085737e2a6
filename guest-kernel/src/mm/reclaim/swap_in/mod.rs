//! How evicted pages come back.
//!
//! A fault [restores](restore) its page, which [`install`] maps with neighbours that were evicted
//! at the same time. From disk, a [`plan`] says what is read with it, straight into the frames
//! where it will be ([`read_frames`]). Where reads follow each other ([`window`]), the next one is
//! begun before a thread asks for it ([`read_ahead`]).
//!
//! A reclaim attempt that finds no free slot reads zspages that hold more slots than pages, and
//! [packs](pack) them.
//!
//! No lock is held while the disk reads. Afterwards each page is looked up again, and what is not
//! wanted any more is dropped.

pub(crate) mod caller;
mod install;
mod pack;
mod plan;
mod read_ahead;
pub(crate) mod read_frames;
mod reads_under_way;
pub(crate) mod restore;
pub(crate) mod window;

pub(super) use pack::pack_zspage_on_disk;
pub(super) use read_ahead::SwapIn;
pub(super) use reads_under_way::ReadsUnderWay;
pub(crate) use reads_under_way::{ReadUnderWay, wait_for_reads};
