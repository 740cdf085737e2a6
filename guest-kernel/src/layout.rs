//! Every fixed address of a guest.
//!
//! ```text
//! 0x0000_0000_0000   identity map of guest-physical memory, 2 MiB pages, up to 512 GiB
//! 0x3000_0000_0000   thread stacks, a slot each, guard page below
//! 0x3800_0000_0000   metadata of the kernel whose size is known only after the boot
//! 0x4000_0000_0000   the application's small-object heap
//! 0x4100_0000_0000   regions of the application, up to 0x5000_0000_0000
//! ```
//!
//! Everything lies in the lower half: a KVM without hardware virtualization runs guest ring 3
//! natively there, and only there.

use core::ops::Range;

/// Where the image is linked and loaded; `link.ld` says the same.
pub(crate) const IMAGE_BASE: u64 = 0x20_0000;

/// Memory below is never used: a null pointer is an error there, and firmware may have tables.
/// Loaders leave boot information here or up to the image; the kernel copies what it needs first.
pub(crate) const LOW_MEMORY_END: u64 = 1 << 20;

/// The end of the identity map. Memory beyond it is not used.
pub(crate) const IDENTITY_END: u64 = 1 << 39;

/// The page tables in the image let code run up to here; `link.ld` says the same.
pub(crate) const BOOT_CODE_END: u64 = 16 << 20;

/// The end of the memory that the page tables in the image map.
pub(crate) const BOOT_IDENTITY_END: u64 = 1 << 30;

/// The device hole: the fourth gibibyte has registers of devices, and never memory. The page tables
/// in the image have a table for it.
pub(crate) const DEVICE_HOLE: Range<u64> = 3 << 30..4 << 30;

/// The part of it in which registers of PCI devices get addresses that firmware has not chosen, or
/// has chosen where they can't be mapped. All machines that are known pass it on to their bus.
pub(crate) const BAR_WINDOW: Range<u64> = 0xc000_0000..0xe000_0000;

/// Registers of the I/O APIC, where a machine has one (82093AA data sheet, 3.0).
pub(crate) const IO_APIC: u64 = 0xfec0_0000;

/// Registers of the local APIC (Intel SDM vol. 3, 10.4.1).
pub(crate) const LOCAL_APIC: u64 = 0xfee0_0000;

/// Thread stacks.
pub(crate) const STACKS: Range<u64> = 0x3000_0000_0000..0x3000_0400_0000;

/// Virtual space of one thread's stack, guard page included.
pub(crate) const STACK_SLOT_BYTES: u64 = 1 << 20;

/// Metadata of the kernel whose size is known only after the boot: the swap disk's.
pub(crate) const METADATA: u64 = 0x3800_0000_0000;

/// The application's small-object heap.
pub(crate) const APP_HEAP: Range<u64> = 0x4000_0000_0000..0x4100_0000_0000;

/// Regions that applications map.
pub(crate) const APP_REGIONS: Range<u64> = 0x4100_0000_0000..0x5000_0000_0000;
