//! Memory control groups: how much host memory the kernel itself counts as used, and where a group
//! of our own can be made.
//!
//! Resident memory is what page tables map. It falls as soon as part of a huge page is unmapped,
//! while the huge page is still allocated. A control group is charged for a page until the page is
//! free, so its charge is physical memory. `Usage::anonymous` leaves out the page cache and the
//! kernel's own memory; both are charged to the same group. Version 1's `rss` and version 2's
//! `anon` count mapped pages and are therefore no substitute.
//!
//! Charges are batched by processor: a value is exact to about 256 KiB for each processor.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

mod location;

pub use self::location::{Location, Version};

/// The beginning of the name of every group made here.
const PREFIX: &str = "aerostat-";

/// Bytes that are charged to a group and to the groups below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Everything.
    pub charged: u64,
    /// Pages of files, `tmpfs` included.
    pub cache: u64,
    /// The kernel's own memory: page tables, those of KVM included, and what it allocates for
    /// processes.
    pub kernel: u64,
}

impl Usage {
    /// Physical memory behind anonymous mappings. Version 1 charges the kernel's memory too, so all
    /// three are from one group.
    #[must_use]
    pub const fn anonymous(&self) -> u64 {
        self.charged.saturating_sub(self.cache).saturating_sub(self.kernel)
    }
}

/// A memory control group of our own. When dropped it is removed, once this process has left it.
#[derive(Debug)]
pub struct MemoryGroup {
    version: Version,
    folder: PathBuf,
    /// The group that this process was in before.
    home: PathBuf,
}

impl MemoryGroup {
    /// Makes a group that is limited by the same groups as this process, and removes those that
    /// killed processes left behind.
    ///
    /// # Errors
    ///
    /// Fails where the host has no memory controller, or this process may not make groups.
    pub fn create() -> io::Result<Self> {
        let Location { version, folder: home } = Location::of_this_process()?;
        let parent = match version {
            Version::V1 => home.clone(),
            Version::V2 => parent_v2(&home)?,
        };
        remove_leftovers(&parent);
        let folder = (0..)
            .map(|number| parent.join(format!("{PREFIX}{}-{number}", process::id())))
            .find(|folder| !folder.exists())
            .ok_or(io::ErrorKind::AlreadyExists)?;
        fs::create_dir(&folder)?;
        let group = Self { version, folder, home };
        // Without the memory controller a group of version 2 has no such file, and is dropped here.
        group.usage()?;
        Ok(group)
    }

    /// Returns a group that a killed process has made, with the processes that are still in it;
    /// `None` where no process like this one has made it. Removed when dropped, once it is empty.
    #[must_use]
    pub fn left_behind(group: &Location) -> Option<Self> {
        maker(group.folder.file_name()?.to_str()?)?;
        let home = group.folder.parent()?.to_owned();
        Some(Self { version: group.version, folder: group.folder.clone(), home })
    }

    /// Moves a process here. What it has already been charged for stays where it was.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error.
    pub fn add(&self, process: u32) -> io::Result<()> {
        fs::write(self.folder.join(PROCESSES), process.to_string())
    }

    /// Moves this process here; its children start here.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error.
    pub fn enter(&self) -> io::Result<()> {
        self.add(process::id())
    }

    /// Moves this process back to where it was before. What it was charged for here stays here.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error.
    pub fn leave(&self) -> io::Result<()> {
        fs::write(self.home.join(PROCESSES), process::id().to_string())
    }

    /// Returns its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Limits what may be charged to the group.
    ///
    /// # Errors
    ///
    /// Returns the kernel's error, under version 1 also where more is charged already.
    pub fn set_limit(&self, bytes: u64) -> io::Result<()> {
        let file = match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        fs::write(self.folder.join(file), bytes.to_string())
    }

    /// Returns what is charged to the group now.
    ///
    /// # Errors
    ///
    /// Fails where a file can't be read or is not understood.
    pub fn usage(&self) -> io::Result<Usage> {
        usage(self.version, |name| fs::read_to_string(self.folder.join(name)))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let is_member = fs::read_to_string(self.folder.join(PROCESSES))
            .is_ok_and(|list| list.lines().any(|line| line == process::id().to_string()));
        if is_member {
            let _ = self.leave();
        }
        // Fails only while a process is left in it; the process that makes the next group removes
        // it then.
        let _ = fs::remove_dir(&self.folder);
    }
}

const PROCESSES: &str = "cgroup.procs";

/// Where version 2 allows a group beside the processes: below a group that distributes memory,
/// never in one that has processes itself, but for the root.
fn parent_v2(home: &Path) -> io::Result<PathBuf> {
    let distributes_memory = |folder: &&Path| {
        fs::read_to_string(folder.join("cgroup.subtree_control"))
            .is_ok_and(|list| list.split_ascii_whitespace().any(|controller| controller == "memory"))
    };
    let found = [Some(home), home.parent()].into_iter().flatten().find(distributes_memory);
    Ok(found.ok_or(io::ErrorKind::Unsupported)?.to_owned())
}

/// Removes groups whose makers are gone. The kernel refuses where a process is left.
fn remove_leftovers(parent: &Path) {
    let Ok(groups) = fs::read_dir(parent) else { return };
    for group in groups.flatten() {
        let maker = group.file_name().to_str().and_then(maker);
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker.to_string()).exists()) {
            let _ = fs::remove_dir(group.path());
        }
    }
}

/// Returns the process that made a group of this name.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// Reads the files of a group.
fn usage(version: Version, read: impl Fn(&str) -> io::Result<String>) -> io::Result<Usage> {
    let number = |name: &str| {
        let text = read(name)?;
        text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    match version {
        Version::V1 => Ok(Usage {
            charged: number("memory.usage_in_bytes")?,
            cache: entry(&read("memory.stat")?, "total_cache").ok_or(io::ErrorKind::InvalidData)?,
            // Missing where the kernel was told not to account for its own memory.
            kernel: number("memory.kmem.usage_in_bytes").unwrap_or(0),
        }),
        Version::V2 => {
            let stat = read("memory.stat")?;
            let sum = |names: &[&str]| names.iter().filter_map(|name| entry(&stat, name)).sum();
            Ok(Usage {
                charged: number("memory.current")?,
                cache: entry(&stat, "file").ok_or(io::ErrorKind::InvalidData)?,
                // One number since Linux 5.18; its parts before.
                kernel: entry(&stat, "kernel")
                    .unwrap_or_else(|| sum(&["slab", "kernel_stack", "pagetables", "percpu"])),
            })
        }
    }
}

/// Returns the number in the line of `memory.stat` that begins with `name`.
fn entry(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{MemoryGroup, Usage, Version, maker, usage};
    use std::io;

    fn read<'a>(files: &'a [(&str, &str)]) -> impl Fn(&str) -> io::Result<String> + 'a {
        |wanted| {
            let found = files.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    #[test]
    fn version_1_counts_the_groups_below() {
        let files = [
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.stat", "cache 1\nrss 7\ntotal_cache 100\ntotal_cached 5\n"),
            ("memory.kmem.usage_in_bytes", "30\n"),
        ];
        let expected = Usage { charged: 1000, cache: 100, kernel: 30 };
        assert_eq!(usage(Version::V1, read(&files)).unwrap(), expected);
        assert_eq!(expected.anonymous(), 870);
        assert_eq!(usage(Version::V1, read(&files[..2])).unwrap().kernel, 0, "not every kernel counts its own");
        assert!(usage(Version::V1, read(&files[..1])).is_err());
    }

    #[test]
    fn version_2_has_one_number_for_the_kernel_or_its_parts() {
        let new = [("memory.current", "1000\n"), ("memory.stat", "anon 5\nfile 100\nkernel 40\nkernel_stack 8\n")];
        assert_eq!(usage(Version::V2, read(&new)).unwrap(), Usage { charged: 1000, cache: 100, kernel: 40 });
        let old = [("memory.current", "1000\n"), ("memory.stat", "file 100\nslab 20\nkernel_stack 8\npagetables 3\n")];
        assert_eq!(usage(Version::V2, read(&old)).unwrap().kernel, 31);
        assert!(usage(Version::V2, read(&[("memory.current", "lots"), ("memory.stat", "file 1\n")])).is_err());
    }

    #[test]
    fn inconsistent_values_do_not_panic() {
        assert_eq!(Usage { charged: 10, cache: 100, kernel: 3 }.anonymous(), 0);
    }

    #[test]
    fn a_group_names_its_maker() {
        assert_eq!([maker("aerostat-12-0"), maker("aerostat-x-0"), maker("other-12-0")], [Some(12), None, None]);
    }

    #[test]
    fn a_group_is_removed_with_its_value() {
        // Where no group can be made there is nothing to test.
        let Ok(group) = MemoryGroup::create() else { return };
        let folder = group.folder.clone();
        assert!(folder.exists() && group.usage().is_ok());
        drop(group);
        assert!(!folder.exists());
    }
}
