//! Everything that an application may use.
//!
//! An application is a crate with a `main`, linked with the kernel into one image:
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! aerostat_guest::app!(main);
//!
//! fn main() -> aerostat_guest::app::Outcome {
//!     log::info!("called with {:?}", aerostat_guest::app::arguments());
//!     aerostat_guest::app::Outcome::Success
//! }
//! ```
//!
//! `alloc` works: small objects come from a heap, large ones get a region each; either returns null
//! when there is no memory. This module also has threads, time, memory ([`memory`](mod@memory)),
//! requests for memory that is going to be needed ([`requests`]), the disk with the guest's data,
//! and the balloon port for an application that drives the balloon itself ([`balloon_port`]).
//! Logging is the `log` crate.

pub mod balloon_port;
mod disk;
mod heap;
mod main_thread;
pub mod memory;
mod progress;
pub mod requests;
mod threads;

pub use disk::{Disk, DiskError, MapError, disk, map_disk};
pub(crate) use main_thread::start;
pub use main_thread::{Outcome, arguments, parse_size, words};
pub use memory::{MemoryInfo, memory, reclaim, validate};
pub use progress::report;
pub use threads::{JoinHandle, sleep, spawn};

pub use crate::config::FAULT_STACK_BYTES;
pub use crate::thread::{Event, Mutex, MutexGuard, SpawnError, yield_now};
pub use crate::time::Instant;

/// Names the application's `main`: a function that takes nothing and returns an [`Outcome`].
#[macro_export]
macro_rules! app {
    ($main:path) => {
        /// The function that the kernel calls when everything has started.
        #[unsafe(no_mangle)]
        extern "Rust" fn aerostat_app_main() -> $crate::app::Outcome {
            $main()
        }
    };
}
