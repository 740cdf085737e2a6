//! All that an application may use.
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
//! `alloc` works: small objects come from a heap, large ones get a region each; either fails by
//! returning null when memory is out. Threads, time, what there is to say and hear about memory
//! ([`memory`](mod@memory)) and the disk with the guest's data are here, and the balloon for
//! whoever drives it himself ([`balloon_port`]); logging is the `log` crate.

pub mod balloon_port;
mod disk;
mod heap;
mod main_thread;
pub mod memory;
mod progress;
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
        /// What the kernel calls once everything is up.
        #[unsafe(no_mangle)]
        extern "Rust" fn aerostat_app_main() -> $crate::app::Outcome {
            $main()
        }
    };
}
