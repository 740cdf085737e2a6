//! A control group of our own, below or beside that of this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use super::{Location, Usage, Version, usage};

/// The beginning of the name of every group made here.
const PREFIX: &str = "aerostat-";
/// The file that lists the processes of a group; a number that is written to it moves a process.
pub(super) const PROCESSES: &str = "cgroup.procs";

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

    /// Returns the group that a killed process has made and that is, or holds, `group`; `None`
    /// where no process like this one has made it. Removed when dropped, once it is empty.
    #[must_use]
    pub fn left_behind(group: &Location) -> Option<Self> {
        let folder = group.folder.ancestors().take(2).find(|folder| Self::is_made(folder))?.to_owned();
        let home = folder.parent()?.to_owned();
        Some(Self { version: group.version, folder, home })
    }

    /// Returns whether a group was made here, by this process or another, by its name.
    pub(super) fn is_made(folder: &Path) -> bool {
        folder.file_name().and_then(|name| maker(name.to_str()?)).is_some()
    }

    /// Returns which interface the group has.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Returns the group that this process was in when it made this one.
    pub(super) fn home(&self) -> &Path {
        &self.home
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
        fs::write(self.folder.join(self.version.limit_file()), bytes.to_string())
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
        remove(&self.folder);
    }
}

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
            remove(&group.path());
        }
    }
}

/// Removes a group and those below it, as far as no process is left in them. The files of a group
/// go with it.
fn remove(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let _ = fs::remove_dir(entry.path());
    }
    let _ = fs::remove_dir(group);
}

/// Returns the process that made a group of this name.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{MemoryGroup, maker};

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
