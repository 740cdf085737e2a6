//! Reclaim: evicts pages that are not in use, and restores them when they are touched.
//!
//! * [`scan`]: what is evicted. A hand goes over the pages of all anonymous regions, another over
//!   those of files. The policy ([`aerostat_reclaim_policy`]) decides about each page that it
//!   keeps, or gives it up.
//! * [`swap`]: where evicted pages are stored. Pages that repeat one word are stored nowhere. Pages
//!   that compress go to the compressed pool. The others, and the oldest zspages of the pool, go to
//!   the swap disk, if the guest has one. Pages of files are dropped.
//! * [`swap_in`]: how evicted pages come back. A touch faults and restores the page, with its
//!   neighbours where memory allows.
//! * [`first_visits`]: pages of files that are visited before memory is short.
//!
//! The [`Reclaimer`] composes these parts. An [`attempt`] runs batches of it until enough frames
//! are free; [`start`] switches it on, and the background reclaimer makes most attempts before a
//! thread has to.
//!
//! Anonymous pages are not evicted until the guest has swap ([`start::start`]). Then commit charges
//! may exceed memory by what swap can hold, and no further: a page that was committed can always be
//! had by evicting others.
//!
//! Work is done in small batches, each under the locks of reclaim and of the address space: at most
//! 32 evictions behind one TLB flush, or 512 pages of files, which are only dropped. Eviction
//! allocates nothing but single frames for the compressed pool, out of a reserve. No lock is held
//! while a thread waits for the disk. Lock order: reclaim before the address space before the frame
//! allocator.

mod attempt;
pub(crate) mod first_visits;
mod reclaimer;
pub(crate) mod scan;
pub(crate) mod start;
mod statistics;
pub(crate) mod swap;
pub(crate) mod swap_in;

pub(crate) use attempt::reclaim;
pub(crate) use reclaimer::{RECLAIMER, Reclaimer};
pub(crate) use statistics::{ReclaimStatistics, evicted_and_written, is_on, leaving, statistics, validate};
pub(crate) use swap_in::wait_for_reads;
#[cfg_attr(not(target_os = "none"), allow(unused_imports, reason = "the users are compiled for the guest only"))]
pub(crate) use {
    attempt::{reclaim_for_huge_frame, reclaim_in_background},
    statistics::is_thrashing,
};

#[cfg(test)]
pub(in crate::mm) mod tests;
