//! How much memory the host has for a fleet, and what the fleet uses besides its pool.
//!
//! The pool is committed to the guests. Where the host can't provide it, the kernel kills one of
//! the processes in the middle of a run, so it is checked before the first one is started: against
//! what the kernel calls available, and against the limit of every control group from this
//! process's own up to the root. File pages count as free there, because the kernel drops them
//! first.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aerostat_abi::units::{FRAMES_PER_MIB, FrameCount, HUGE_FRAMES};
use thiserror::Error;

use super::cgroup::{Location, Version};
use crate::vmm;

/// What a guest costs beyond its own memory: its VMM process's memory, the kernel's objects for
/// process and machine. A guest of 128 MiB was charged 1.7 MiB for all of it, page tables included.
pub const VMM_PROCESS: FrameCount = FrameCount::from_mib(3);
/// The same under a QEMU that emulates: 15 to 25 MiB were measured.
pub const QEMU_PROCESS: FrameCount = FrameCount::from_mib(25);
/// Page tables, as a part of the memory that they map: the VMM process's, KVM's, and what KVM keeps
/// for each page (8 bytes each for 4 KiB).
const PAGE_TABLES_DIVISOR: u64 = 128;
/// What KVM keeps for each frame of a memory slot, ballooned or not, where it shadows page tables:
/// one frame for so many. Measured are 2.1 to 4.2 MiB a GiB (decisions 0054 and 0065).
const SLOT_DIVISOR: u64 = 256;
/// The supervisor with its logs and samples.
const SUPERVISOR: FrameCount = FrameCount::from_mib(8);

/// Available memory, and what limits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// The amount.
    pub memory: FrameCount,
    /// The limit that is reached first.
    pub limit: Limit,
}

/// What limits memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The host has no more.
    Host,
    /// The limit of this control group.
    Group(PathBuf),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("the host has"),
            Self::Group(folder) => write!(f, "the limit of the control group {} leaves", folder.display()),
        }
    }
}

/// What a fleet needs from the host.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The guests' memory.
    pub pool: FrameCount,
    /// Σ of the guests' minima: a smaller pool would be refused.
    pub minima: FrameCount,
    /// Σ of the memory for which KVM has slots from the start ([`slots_at_start`]).
    pub slots: FrameCount,
    /// Σ of what the guests cost beyond their own memory ([`VMM_PROCESS`], [`QEMU_PROCESS`]).
    pub processes: FrameCount,
    /// Pages of swap files that the host may have to keep in its page cache.
    pub cached_swap: FrameCount,
}

/// A fleet does not fit.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "a pool of {pool} and {overhead} for the processes of the guests{} are more than the {} that {limit} available; {}",
    swap_part(*cached_swap), available.memory, advice(*largest_pool), limit = available.limit
)]
pub struct TooLarge {
    pool: FrameCount,
    overhead: FrameCount,
    cached_swap: FrameCount,
    available: Available,
    /// The largest pool that would fit, if any would.
    largest_pool: Option<FrameCount>,
}

impl Need {
    /// Checks whether the fleet fits `available`.
    ///
    /// # Errors
    ///
    /// [`TooLarge`], with the largest pool that fits.
    pub fn check(&self, available: Available) -> Result<(), TooLarge> {
        let Self { pool, minima, cached_swap, .. } = *self;
        let fixed = self.fixed_overhead();
        let overhead = fixed.saturating_add(page_tables(pool));
        if pool.saturating_add(overhead).saturating_add(cached_swap) <= available.memory {
            return Ok(());
        }
        let left = available.memory.saturating_sub(fixed).saturating_sub(cached_swap).0;
        let largest = (left - left.div_ceil(PAGE_TABLES_DIVISOR + 1)) / HUGE_FRAMES * HUGE_FRAMES;
        let largest_pool = Some(FrameCount(largest)).filter(|&largest| largest >= minima && largest > FrameCount::ZERO);
        Err(TooLarge { pool, overhead, cached_swap, available, largest_pool })
    }

    fn fixed_overhead(&self) -> FrameCount {
        let slots = FrameCount(self.slots.0.div_ceil(SLOT_DIVISOR));
        self.processes.saturating_add(slots).saturating_add(SUPERVISOR)
    }
}

/// What a process may use beyond all that is foreseen, and beyond that one frame for so many of its
/// guest's: charges are batched, and a guest that uses more than its size is to be noticed before
/// the kernel kills it.
const LIMIT_MARGIN: FrameCount = FrameCount::from_mib(12);
const LIMIT_MARGIN_DIVISOR: u64 = 32;
/// What a QEMU that emulates may use for code that it has translated.
const TRANSLATED_CODE: FrameCount = FrameCount::from_mib(256);

/// Returns the host memory that a VMM process may use while its guest may have `guest`, in a
/// machine of `machine` frames.
#[must_use]
pub fn vmm_limit(guest: FrameCount, machine: FrameCount) -> FrameCount {
    // Slots are made ahead of the guest's growth, and stay.
    let slots = FrameCount(machine.0.div_ceil(SLOT_DIVISOR));
    let margin = LIMIT_MARGIN.saturating_add(FrameCount(guest.0 / LIMIT_MARGIN_DIVISOR));
    [guest, page_tables(guest), VMM_PROCESS, slots, margin]
        .into_iter()
        .fold(FrameCount::ZERO, FrameCount::saturating_add)
}

/// Returns the host memory that a QEMU may use while its guest may have `guest`.
#[must_use]
pub fn qemu_limit(guest: FrameCount) -> FrameCount {
    vmm_limit(guest, guest).saturating_add(QEMU_PROCESS).saturating_add(TRANSLATED_CODE)
}

/// Returns the memory of a guest's machine for which KVM has slots before the guest runs. Other
/// slots are made as the guest grows, so the pool bounds them: they are counted as page tables.
#[must_use]
pub fn slots_at_start(max: FrameCount) -> FrameCount {
    max.min(vmm::ALWAYS_ATTACHED)
}

fn page_tables(memory: FrameCount) -> FrameCount {
    FrameCount(memory.0.div_ceil(PAGE_TABLES_DIVISOR))
}

fn swap_part(cached: FrameCount) -> String {
    if cached == FrameCount::ZERO {
        return String::new();
    }
    format!(" and {cached} for the page cache of their swap files (this file system has no direct input and output)")
}

fn advice(largest_pool: Option<FrameCount>) -> String {
    match largest_pool {
        Some(largest) => format!("set pool to at most \"{}M\"", largest.0 / FRAMES_PER_MIB),
        None => "run fewer guests, or lower their min".into(),
    }
}

/// Returns what this process and its children can get; `None` where the host does not say.
#[must_use]
pub fn available() -> Option<Available> {
    available_at(Location::of_this_process().ok().as_ref())
}

/// Returns what a process in the group at `location`, or in none, can get.
pub(super) fn available_at(location: Option<&Location>) -> Option<Available> {
    let host = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_on_host(&text));
    let host = host.map(|memory| Available { memory, limit: Limit::Host });
    let groups = location.map(in_groups).unwrap_or_default();
    host.into_iter().chain(groups).min_by_key(|available| available.memory)
}

/// Returns what the group and those around it leave.
fn in_groups(location: &Location) -> Vec<Available> {
    let is_group = |folder: &&Path| folder.join("cgroup.procs").exists();
    let left = |folder: &Path| {
        let memory = left_in_group(location.version, |name| fs::read_to_string(folder.join(name)))?;
        Some(Available { memory, limit: Limit::Group(folder.to_owned()) })
    };
    location.folder.ancestors().take_while(is_group).filter_map(left).collect()
}

fn available_on_host(meminfo: &str) -> Option<FrameCount> {
    let kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok())?;
    Some(FrameCount::from_bytes_floor(kib.saturating_mul(1024)))
}

/// Returns what a group's limit leaves; `None` where it has no limit.
fn left_in_group(version: Version, read: impl Fn(&str) -> io::Result<String>) -> Option<FrameCount> {
    let number = |name: &str| read(name).ok()?.trim().parse::<u64>().ok();
    let (limit, used, file_lists) = match version {
        Version::V1 => {
            // The largest number of pages that fits means no limit.
            let limit = number("memory.limit_in_bytes").filter(|&limit| limit < 1 << 62)?;
            (limit, number("memory.usage_in_bytes")?, ["total_active_file ", "total_inactive_file "])
        }
        Version::V2 => {
            // "max" means no limit. Above memory.high a group is slowed down until it stands still.
            let limit = ["memory.max", "memory.high"].into_iter().filter_map(number).min()?;
            (limit, number("memory.current")?, ["active_file ", "inactive_file "])
        }
    };
    let stat = read("memory.stat").unwrap_or_default();
    let in_list = |line: &str| file_lists.iter().find_map(|list| line.strip_prefix(list)?.parse::<u64>().ok());
    let file_pages = stat.lines().filter_map(in_list).fold(0, u64::saturating_add);
    Some(FrameCount::from_bytes_floor(limit.saturating_sub(used.saturating_sub(file_pages))))
}

#[cfg(test)]
mod tests {
    use super::{Available, Limit, Need, QEMU_PROCESS, VMM_PROCESS, Version};
    use super::{available, available_on_host, left_in_group, qemu_limit, vmm_limit};
    use aerostat_abi::units::FrameCount;
    use proptest::{prop_assert, proptest};
    use std::io;

    fn left(version: Version, files: &[(&str, &str)]) -> Option<u64> {
        let read = |wanted: &str| {
            let found = files.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        left_in_group(version, read).map(FrameCount::mib)
    }

    #[test]
    fn the_limit_of_a_process_leaves_room_for_its_own_memory() {
        let mib = FrameCount::from_mib;
        let over = |guest: u64, machine: u64| vmm_limit(mib(guest), mib(machine)).saturating_sub(mib(guest)).mib();
        assert_eq!([over(16, 16), over(128, 1024), over(1024, 1024)], [15, 24, 59]);
        assert!(over(128, 256 << 10) > 1024, "the slots of a large machine count");
        assert!(qemu_limit(mib(128)) > vmm_limit(mib(128), mib(128)).saturating_add(QEMU_PROCESS));
        assert_eq!(vmm_limit(FrameCount(u64::MAX), mib(16)), FrameCount(u64::MAX));
    }

    #[test]
    fn available_memory_is_parsed() {
        let meminfo = "MemTotal:       24684492 kB\nMemFree: 10 kB\nMemAvailable:   23068672 kB\nBuffers: 5 kB\n";
        assert_eq!(available_on_host(meminfo), Some(FrameCount::from_mib(22528)));
        assert_eq!(available_on_host("MemTotal: 5 kB\n"), None);
        assert!(available().is_some(), "this host tells");
    }

    #[test]
    fn version_1_has_a_limit_or_an_enormous_number() {
        let stat = ("memory.stat", "active_file 7\ntotal_inactive_file 10485760\ntotal_active_file 10485760\n");
        let used = ("memory.usage_in_bytes", "104857600\n");
        assert_eq!(left(Version::V1, &[("memory.limit_in_bytes", "536870912\n"), used, stat]), Some(512 - 100 + 20));
        assert_eq!(left(Version::V1, &[("memory.limit_in_bytes", "9223372036854771712\n"), used, stat]), None);
        assert_eq!(left(Version::V1, &[("memory.limit_in_bytes", "1048576\n"), used]), Some(0));
    }

    #[test]
    fn version_2_has_two_limits_or_none() {
        let stat = ("memory.stat", "anon 5\nfile 99\ninactive_file 10485760\nactive_file 0\n");
        let used = ("memory.current", "104857600\n");
        let max = |text| ("memory.max", text);
        let high = |text| ("memory.high", text);
        assert_eq!(left(Version::V2, &[max("536870912\n"), high("max\n"), used, stat]), Some(512 - 100 + 10));
        assert_eq!(left(Version::V2, &[max("max\n"), high("268435456\n"), used, stat]), Some(256 - 100 + 10));
        assert_eq!(left(Version::V2, &[max("max\n"), high("max\n"), used, stat]), None);
        assert_eq!(left(Version::V2, &[used, stat]), None, "the root has no limits");
    }

    const NEED: Need = Need {
        pool: FrameCount::from_mib(1024),
        minima: FrameCount::from_mib(128),
        slots: FrameCount::ZERO,
        processes: FrameCount(2 * VMM_PROCESS.0),
        cached_swap: FrameCount::ZERO,
    };

    fn host(mib: u64) -> Available {
        Available { memory: FrameCount::from_mib(mib), limit: Limit::Host }
    }

    #[test]
    fn a_fleet_that_does_not_fit_gets_the_largest_pool() {
        assert_eq!(NEED.check(host(1024 + 22)), Ok(()));
        let line = NEED.check(host(512)).unwrap_err().to_string();
        assert_eq!(
            line,
            "a pool of 1024.0 MiB and 22.0 MiB for the processes of the guests are more than the 512.0 MiB that the host has \
             available; set pool to at most \"494M\""
        );
        let group = Available { limit: Limit::Group("/cgroup/small".into()), ..host(100) };
        let line = Need { cached_swap: FrameCount::from_mib(64), ..NEED }.check(group).unwrap_err().to_string();
        assert!(
            line.contains("that the limit of the control group /cgroup/small leaves available; run fewer guests"),
            "{line}"
        );
        assert!(line.contains("and 64.0 MiB for the page cache of their swap files"), "{line}");
    }

    #[test]
    fn large_machines_cost_memory_however_small_the_pool_is() {
        let large = Need { slots: FrameCount::from_mib(512 << 10), ..NEED };
        let line = large.check(host(2048)).unwrap_err().to_string();
        assert!(line.contains("a pool of 1024.0 MiB and 2070.0 MiB for the processes of the guests"), "{line}");
        assert_eq!(large.check(host(1024 + 2070)), Ok(()));
    }

    proptest! {
        #[test]
        fn the_pool_that_is_named_fits_and_is_the_largest(
            pool in 1_u64..1 << 40,
            processes in 0_u64..1 << 20,
            mib in 0_u64..1 << 20
        ) {
            let (pool, processes) = (FrameCount(pool), FrameCount(processes));
            let need = Need { pool, processes, minima: FrameCount::ZERO, ..NEED };
            if let Err(too_large) = need.check(host(mib))
                && let Some(largest) = too_large.largest_pool
            {
                let fits = |pool| Need { pool, ..need }.check(host(mib)).is_ok();
                prop_assert!(fits(largest));
                prop_assert!(!fits(largest.saturating_add(FrameCount::from_mib(2))));
            }
        }
    }
}
