//! The VMM process: one virtual machine, started and controlled by the supervisor.
//!
//! The program `aerostat-vmm` is this crate's [`process_main`]. The supervisor uses the crate for
//! what only a VMM knows: which images it boots, which sizes of memory, and whether there is KVM.
//!
//! The modules by layer:
//!
//! * process: `process` (from start to end), `host_files` (what is opened by name), `jail`, `guest`
//!   (assembles the parts), `main_loop` and what it calls: `target_watch` and `reclamation` (what
//!   the main thread does to the balloon), `sampler` (what it does at intervals), `vcpu_thread`;
//!   `process_host` (what the balloon uses of it all), `problems` (reports to the supervisor),
//!   `shared_registers` and `supervisor_link` (what is shared with the supervisor), `succession`
//!   (what happens when it is gone)
//! * devices: `vcpu` (the loop and its exits), `balloon`, `console`, `console_log`, `serial_ring`,
//!   `virtio` (disks), `fault` (the report of a bad end), `inspection` (where the vCPU is),
//!   `thread_table` (the guest's threads)
//! * machine: `machine` (KVM's objects), `balloon_interrupt`, `interrupts` (of devices), `cpu`
//!   (features, first registers), `cpuid` (what is shown of the host), `boot` and `boot_info` (what
//!   it finds in memory), `device_tree`
//! * host paging: `paging`
//! * memory: `layout` (addresses), `memory` (the mapping), `transfers` (of devices to it),
//!   `memory_slots` (what KVM knows of it),
//!   `release` (to the host), `resident` (measuring)
//! * decision, pure or nearly so: `frame_map` (which frames are ballooned), `page_sizes` (what may
//!   be behind them), `throttle` (how fast the guest may call), `image` and `image_notes` (is this
//!   a guest image)
//!
//! The process holds no policy: it sets no targets and knows of no other guest. It trusts the
//! supervisor and nothing that the guest writes.

mod balloon;
mod balloon_interrupt;
mod boot;
mod boot_info;
mod console;
mod console_log;
mod cpu;
mod cpuid;
mod device_tree;
mod fault;
mod frame_map;
mod guest;
mod host_files;
mod huge_pages;
mod image;
mod image_notes;
mod inspection;
mod interrupts;
pub mod jail;
mod layout;
mod lock;
mod machine;
mod main_loop;
mod memory;
mod memory_slots;
mod page_sizes;
mod paging;
mod pause;
mod problems;
mod process;
mod process_host;
mod reclamation;
mod release;
mod resident;
mod sampler;
mod serial_ring;
mod shared_registers;
mod succession;
mod supervisor_link;
mod target_watch;
mod thread_table;
mod throttle;
mod transfers;
mod vcpu;
mod vcpu_thread;
mod virtio;

pub use balloon::DISAGREEING_REPORTS;
#[cfg(any(test, feature = "harness"))]
#[doc(hidden)]
pub use balloon::harness;
pub use cpu::features;
pub use image::{ImageError, ImageInfo, check_file, check_image};
pub use image_notes::NoteError;
pub use layout::{LayoutError, check_size, smallest_size};
pub use machine::{KvmError, check_kvm};
pub use memory_slots::ALWAYS_ATTACHED;
pub use process::process_main;
pub use resident::read_anonymous;
#[cfg(any(test, feature = "harness"))]
#[doc(hidden)]
pub use virtio::harness as disk_harness;

/// Names the sources that this library was built from, and those of the link. The supervisor passes
/// it to the program, which refuses another one's.
pub const BUILD_ID: &str = env!("AEROSTAT_BUILD_ID");
/// The argument with which the program prints [`BUILD_ID`] and ends.
pub const ASK_BUILD: &str = "--build-id";
/// The argument with which the program makes the namespaces that guests share
/// ([`jail::make_namespaces`]).
pub const MAKE_NAMESPACES: &str = "--make-namespaces";
/// The argument with which the program enters its jail without a guest, and prints which mechanisms
/// the host lacks.
pub const CHECK_JAIL: &str = "--check-jail";
