//! Where the memory control group of a process is in the file system.
//!
//! `/proc/PID/cgroup` names the group from the root of its hierarchy, `mountinfo` says which part
//! of the hierarchy is mounted where. Version 1 wins where both are mounted: a controller belongs
//! to one of the two, and version 2 is often mounted without any.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The two interfaces of the kernel (Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

impl Version {
    /// Returns the file that holds the limit of a group, in bytes.
    pub(super) const fn limit_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.limit_in_bytes",
            Self::V2 => "memory.max",
        }
    }

    /// Returns the file that says how many bytes are charged to a group.
    pub(super) const fn charge_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.usage_in_bytes",
            Self::V2 => "memory.current",
        }
    }
}

/// A memory control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The version of the interface in its folder.
    pub version: Version,
    /// Its folder.
    pub folder: PathBuf,
}

impl Location {
    /// Finds the group of this process.
    ///
    /// # Errors
    ///
    /// Fails where there is none, or its hierarchy is not mounted.
    pub fn of_this_process() -> io::Result<Self> {
        Self::of("self")
    }

    /// Finds the group of another process.
    ///
    /// # Errors
    ///
    /// Fails where there is none, or its hierarchy is not mounted.
    pub fn of_process(process: u32) -> io::Result<Self> {
        Self::of(&process.to_string())
    }

    fn of(process: &str) -> io::Result<Self> {
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let found = locate(&groups, &mounts).filter(|location| location.folder.is_dir());
        Ok(found.ok_or(io::ErrorKind::Unsupported)?)
    }
}

fn locate(groups: &str, mounts: &str) -> Option<Location> {
    [Version::V1, Version::V2].into_iter().find_map(|version| {
        let group = groups.lines().find_map(|line| group(version, line))?;
        let folder = mounts.lines().find_map(|line| folder(version, line, group))?;
        Some(Location { version, folder })
    })
}

/// Returns the path in a line of `/proc/PID/cgroup` (cgroups(7)): hierarchy, controllers, path.
fn group(version: Version, line: &str) -> Option<&Path> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let is_it = match version {
        Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
        Version::V2 => controllers.is_empty(),
    };
    is_it.then(|| Path::new(path))
}

/// Returns the folder of `group` by a line of `mountinfo` (proc_pid_mountinfo(5)), if that line is
/// the hierarchy's.
fn folder(version: Version, line: &str, group: &Path) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, mount_point) = (mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let (kind, options) = (file_system.next()?, file_system.nth(1)?);
    let is_it = match version {
        Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        Version::V2 => kind == "cgroup2",
    };
    if !is_it {
        return None;
    }
    Some(Path::new(mount_point).join(group.strip_prefix(root).ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Location, Version, locate};

    const MOUNTS: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    fn at(version: Version, folder: &str) -> Option<Location> {
        Some(Location { version, folder: folder.into() })
    }

    #[test]
    fn the_memory_controller_of_version_1_comes_first() {
        let groups = "5:devices:/\n4:memory:/api/one\n1:cpu:/\n0::/\n";
        assert_eq!(locate(groups, MOUNTS), at(Version::V1, "/sys/fs/cgroup/memory/api/one"));
    }

    #[test]
    fn version_2_is_the_line_without_controllers() {
        let mounts = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(locate("0::/user.slice/a:b\n", mounts), at(Version::V2, "/sys/fs/cgroup/user.slice/a:b"));
    }

    #[test]
    fn a_container_sees_part_of_a_hierarchy() {
        let mounts = "35 31 0:32 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(locate("4:memory:/docker/x/y\n", mounts), at(Version::V1, "/sys/fs/cgroup/memory/y"));
        assert_eq!(locate("4:memory:/docker/z\n", mounts), None);
    }

    #[test]
    fn an_unmounted_hierarchy_has_no_group() {
        assert_eq!(locate("4:memory:/\n0::/\n", "\nnonsense\n32 31 0:29 / /x rw - tmpfs tmpfs rw\n"), None);
    }
}
