//! What the guest kernel, the VMM process and the supervisor agree on, and nothing else.
//!
//! One module per subject: [`units`] (frames and how to count them), [`port`] (the balloon port's
//! calls), [`batch`] (the page of entries that INFLATE and DEFLATE carry), [`statistics`] (what a
//! guest reports), [`text`] (words in it), [`boot`] (marks and names used while booting), [`exit`]
//! (how a guest ends), [`metadata`] (what the kernel takes for itself), [`frame_state`] (the
//! allocator's word per huge frame) and [`registers`] (the page that the supervisor and a VMM
//! process share).
//!
//! No dependencies, no unsafe code, no I/O: encoding and decoding are pure functions with tests
//! beside them. The protocol in prose is `docs/balloon-port.md`.

#![no_std]
#![forbid(unsafe_code)]

pub mod batch;
pub mod boot;
pub mod exit;
pub mod frame_state;
pub mod metadata;
pub mod port;
pub mod registers;
pub mod statistics;
pub mod text;
pub mod units;

#[cfg(test)]
extern crate std;
