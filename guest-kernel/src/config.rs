//! Limits and sizes of the kernel; units are in the names.

use aerostat_abi::units::FrameCount;

/// The most threads, the idle thread included. Sets of threads are bits of one word.
pub(crate) const MAX_THREADS: usize = 64;

/// The most virtio devices. Each has an interrupt vector of its own.
pub(crate) const MAX_VIRTIO_DEVICES: usize = 16;

/// The first of the devices' vectors.
pub(crate) const FIRST_DEVICE_VECTOR: u8 = 0x50;

/// The most CPUs.
pub(crate) const MAX_CPUS: usize = 8;

/// Stack of a kernel thread.
pub(crate) const KERNEL_STACK_BYTES: u64 = 64 << 10;

/// Stack of an application thread.
pub(crate) const APP_STACK_BYTES: u64 = 256 << 10;

/// Stack that an exception needs below the interrupted stack pointer, the handler's own frames
/// included: a fault may have to evict pages and read others from disk, and an interrupt may arrive
/// meanwhile. A test guest measures it.
pub const FAULT_STACK_BYTES: u64 = 16 << 10;

/// How long a thread may run while others wait.
pub(crate) const TIME_SLICE_NS: u64 = 5_000_000;

/// Size of the kernel heap.
pub(crate) const KERNEL_HEAP_BYTES: usize = 1 << 20;

/// Free frames that neither applications nor the balloon may use: for page tables and stacks.
pub(crate) const KERNEL_FLOOR: FrameCount = FrameCount::from_mib(2);

/// Frames of the floor that only eviction may use: to split a huge page or to compress pages takes
/// a few frames before it frees many.
pub(crate) const EVICTION_RESERVE: FrameCount = FrameCount(64);

/// Pages mapped around a lone 4 KiB fault, aligned.
pub(crate) const FAULT_AROUND_PAGES: u64 = 16;

/// Allocations of at least this size get a region of their own.
pub(crate) const REGION_ALLOCATION_BYTES: usize = 512 << 10;

/// The application heap grows and shrinks in steps of this size.
pub(crate) const HEAP_STEP_BYTES: u64 = 2 << 20;

/// How long a page fault waits for the host to deflate the balloon before pages are evicted for it.
pub(crate) const SHORT_DEFLATE_WAIT_NS: u64 = 50_000_000;

/// How long an allocation waits for memory without progress before it fails.
pub(crate) const DEFLATE_WAIT_NS: u64 = 2_000_000_000;

/// The least time between two logged failures of allocations that had nothing to wait for.
pub(crate) const FAILURE_LOG_SPACING_NS: u64 = 10_000_000_000;

/// How long a host that gave nothing is not asked again: pages are evicted at once.
pub(crate) const HOST_REFUSAL_NS: u64 = 5_000_000_000;

/// The guest's current size is divided by this for the size of the compressed pool from which on
/// its oldest frames are written to disk.
pub(crate) const COMPRESSED_POOL_SHARE: u64 = 4;

/// Pages, or frames of the compressed pool, that are read at once at first.
pub(crate) const READ_AHEAD: usize = 8;
/// The most of them that are read at once, when one read follows another.
pub(crate) const MAX_READ_AHEAD: usize = 64;

/// Frames that are committed to a file region, so that some of its pages can always be in memory.
pub(crate) const FILE_WORKING_SET: FrameCount = FrameCount(128);

/// How long a thread sleeps for a disk before it checks the disk again by itself.
pub(crate) const DISK_PATIENCE_NS: u64 = 10_000_000;

/// How long the background reclaimer rests when it has found nothing to evict.
pub(crate) const VAIN_RECLAIM_PAUSE_NS: u64 = 100_000_000;

/// The least time between two warnings of memory pressure to the application.
pub(crate) const PRESSURE_SPACING_NS: u64 = 100_000_000;

/// How long eviction waits for the application to act on a warning.
pub(crate) const PRESSURE_GRACE_NS: u64 = 20_000_000;

/// Thousandths of the time in which threads wait for memory; from here on, pressure is high.
pub(crate) const PRESSURE_STALL_PER_MILLE: u64 = 100;

/// Time between two checks of which tables of pages can become huge pages.
pub(crate) const COLLAPSE_PERIOD_NS: u64 = 1_000_000_000;

/// The time in which the activity of memory is sampled, and the longest such time while nothing is
/// in use.
pub(crate) const ACTIVITY_PERIOD_NS: u64 = 2_000_000_000;
pub(crate) const LONGEST_ACTIVITY_PERIOD_NS: u64 = 8_000_000_000;

/// How long after pages of files were read the background visits them for the first time: the
/// thread that reads on has touched them by then.
pub(crate) const FIRST_VISIT_DELAY_NS: u64 = 1_000_000_000;

/// Frames that are evicted together when one is missing.
pub(crate) const RECLAIM_STEP: FrameCount = FrameCount(64);

/// The longest time between two reports to the monitor after one that said something new, and after
/// one that did not. A guest without a call for five seconds counts as silent.
pub(crate) const REPORT_PERIOD_NS: u64 = 1_000_000_000;
pub(crate) const IDLE_REPORT_PERIOD_NS: u64 = 2_000_000_000;

/// How long a kernel thread works in the background before it lets other threads run. The largest
/// piece of work that is not divided, the copy of a huge page, takes about as long.
pub(crate) const WORK_SLICE_NS: u64 = 500_000;

/// How long other threads run between two slices of background work, or two bursts of the balloon
/// driver, if any of them is ready.
pub(crate) const REST_NS: u64 = 500_000;

/// How long a guest that ends waits for its last report.
pub(crate) const REPORT_PATIENCE_NS: u64 = 100_000_000;

/// The least time between two reports of changed statistics, unless a thread waits for memory.
pub(crate) const REPORT_SPACING_NS: u64 = 50_000_000;
