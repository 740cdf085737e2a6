//! What the guest kernel, the VMM process and the supervisor agree on, and nothing else.
//!
//! One module per subject: [`units`] (frames and how to count them), [`port`] (the balloon port's
//! calls), [`batch`] (the page of entries that INFLATE and DEFLATE carry), [`statistics`] (what a
//! guest reports), [`requests`] (what a guest is told about its host's resources, and how it asks
//! for more), [`text`] (texts in a report), [`threads`] (what the guest's threads are doing),
//! [`boot`] (marks and names used while booting), [`exit`] (how a guest ends), [`metadata`] (memory
//! for the kernel's metadata), [`frame_state`] (the allocator's word for each huge frame) and
//! [`registers`] (the page that the supervisor and a VMM process share).
//!
//! The crate has no dependencies, no unsafe code and no I/O. Encoding and decoding are pure
//! functions with tests beside them. `docs/balloon-port.md` describes the protocol.

#![no_std]
#![forbid(unsafe_code)]

pub mod batch;
pub mod boot;
pub mod exit;
pub mod frame_state;
pub mod metadata;
pub mod port;
pub mod registers;
pub mod requests;
pub mod statistics;
pub mod text;
pub mod threads;
pub mod units;

#[cfg(test)]
extern crate std;
