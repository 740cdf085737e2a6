//! Aerostat's guest kernel: a unikernel that runs in ring 3, hosts one application, and lives with
//! the memory its host leaves it.
//!
//! 1. Ring 0 holds a *ring-0 stub* of a few instructions (`arch::x86_64::ring0`); the kernel is
//!    ordinary ring-3 code in the application's address space.
//! 2. Every frame has one owner, and values say who (`mm`). Memory is committed when it is
//!    allocated, so a page fault finds a frame, though it may have to wait for one. A fault fails
//!    only where swap breaks its word: a disk that reports errors, or a compressed pool without a
//!    disk that meets data which don't compress. Then the guest ends with a report.
//! 3. The balloon driver (`balloon`) is a thread like any other, with no rights in the allocator
//!    beyond asking for a block.
//! 4. Decisions are pure and tested on the host; mechanism is thin. Everything that doesn't touch
//!    the machine compiles there.
//!
//! From the bottom: `arch` (all that only this processor needs), `sync`, `time`, `report`, `mm`,
//! `thread`, `drivers`, `balloon`, `background`, and on top `app`, which is all that an application
//! sees. No module uses one above it; what it needs from there, it calls through a trait or a
//! function that is registered with it. `start` starts them all, from the bottom up.
#![cfg_attr(target_os = "none", no_std)]
#![deny(unsafe_code)]
// On the host the logic is compiled for its tests, without the machine and the applications that
// use it.
#![cfg_attr(
    not(target_os = "none"),
    expect(dead_code, unreachable_pub, reason = "the users are compiled for the guest only")
)]

#[cfg(target_os = "none")]
pub mod app;
mod arch;
#[cfg(target_os = "none")]
mod background;
mod balloon;
mod command_line;
mod config;
mod drivers;
#[cfg(all(feature = "host-bench", not(target_os = "none")))]
pub mod host_bench;
mod layout;
#[cfg(target_os = "none")]
mod logger;
mod mm;
mod patience;
#[cfg(target_os = "none")]
mod progress;
#[cfg(target_os = "none")]
mod report;
mod requests;
#[cfg(target_os = "none")]
mod start;
mod sync;
mod thread;
mod time;
