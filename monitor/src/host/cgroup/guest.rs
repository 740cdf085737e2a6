//! The control group of one guest's process: what the kernel lets it have.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use aerostat_abi::units::FrameCount;

use super::group::PROCESSES;
use super::{Location, MemoryGroup, PoolGroup, Version};
use crate::host::oom;

/// The file of version 1 that moves a single thread.
const THREADS: &str = "tasks";
/// A change of a limit that is not worth a write. The charge itself is exact to about as much.
const STEP: FrameCount = FrameCount::from_mib(2);

/// A group with one process. When dropped it is removed, once the process has ended.
#[derive(Debug)]
pub struct GuestGroup {
    location: Location,
    /// Where threads of this process belong. `None` for a group that was taken over.
    home: Option<PathBuf>,
    limit_file: File,
    charge_file: File,
    limit: Option<FrameCount>,
    /// Removed after this group.
    _pool: Option<Arc<PoolGroup>>,
}

impl GuestGroup {
    pub(super) fn create(pool: &Arc<PoolGroup>, folder: &Path) -> io::Result<Self> {
        fs::create_dir(folder)?;
        let location = Location { version: pool.group().version(), folder: folder.to_owned() };
        let opened = Self::open(location);
        if opened.is_err() {
            let _ = fs::remove_dir(folder);
        }
        let mut group = opened?;
        group.home = Some(pool.group().home().to_owned());
        group._pool = Some(Arc::clone(pool));
        Ok(group)
    }

    /// Takes the group of a process over that an earlier supervisor has started. `None` where the
    /// process has no group of its own.
    #[must_use]
    pub fn adopt(location: &Location) -> Option<Self> {
        let pool = MemoryGroup::is_made(location.folder.parent()?);
        pool.then(|| Self::open(location.clone()).ok()).flatten()
    }

    fn open(location: Location) -> io::Result<Self> {
        let file = |name: &str| OpenOptions::new().read(true).write(true).open(location.folder.join(name));
        let (limit_file, version) = (file(location.version.limit_file())?, location.version);
        let charge_file = File::open(location.folder.join(version.charge_file()))?;
        Ok(Self { location, home: None, limit_file, charge_file, limit: None, _pool: None })
    }

    /// Starts a process in the group. Under version 1 it is there from its first instruction, under
    /// version 2 when this returns.
    ///
    /// # Errors
    ///
    /// Returns the error of the start. Where the process can't be put into the group it is not
    /// started, or has been killed.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        match self.location.version {
            // A child begins where the thread is that makes it. A thread that moves itself waits
            // for no grace period of the kernel, and all memory of this process is charged where
            // its first thread is.
            Version::V1 => {
                let _visit = self.enter_with_thread()?;
                command.spawn()
            }
            Version::V2 => {
                let mut child = command.spawn()?;
                let moved = fs::write(self.location.folder.join(PROCESSES), child.id().to_string());
                if let Err(error) = moved {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(error);
                }
                Ok(child)
            }
        }
    }

    fn enter_with_thread(&self) -> io::Result<Visit<'_>> {
        let home = self.home.as_deref().ok_or(io::ErrorKind::Unsupported)?;
        fs::write(self.location.folder.join(THREADS), "0")?;
        Ok(Visit { home })
    }

    /// Limits what may be charged to the process, which the kernel kills where it can't keep it
    /// within. Never waits: a limit below what is charged now is not set, as the kernel would
    /// reclaim or kill at once; the caller tries again.
    pub fn set_limit(&mut self, limit: FrameCount) {
        let is_same = self.limit.is_some_and(|old| limit.0.abs_diff(old.0) < STEP.0 && limit <= old);
        if is_same || (self.limit.is_none_or(|old| limit < old) && !self.holds_less_than(limit)) {
            return;
        }
        // Fails where the process is gone, or the group was removed by others.
        if self.limit_file.write_all_at(limit.bytes().to_string().as_bytes(), 0).is_ok() {
            self.limit = Some(limit);
        }
    }

    /// Returns the limit, once one was set.
    #[must_use]
    pub fn limit(&self) -> Option<FrameCount> {
        self.limit
    }

    /// Returns where the group is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    fn holds_less_than(&self, limit: FrameCount) -> bool {
        let mut text = [0; 24];
        let count = self.charge_file.read_at(&mut text, 0).unwrap_or(0);
        let charged = str::from_utf8(&text[..count]).ok().and_then(|text| text.trim().parse::<u64>().ok());
        charged.is_some_and(|charged| charged.saturating_add(STEP.bytes()) <= limit.bytes())
    }
}

impl Drop for GuestGroup {
    fn drop(&mut self) {
        oom::forget(&self.location);
        // Fails while the process is left in it; then it is removed with the pool's group.
        let _ = fs::remove_dir(&self.location.folder);
    }
}

/// The stay of a thread in a group. When dropped the thread goes back.
struct Visit<'a> {
    home: &'a Path,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        // Fails only where the group is gone that this process came from.
        let _ = fs::write(self.home.join(THREADS), "0");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use super::super::{MemoryGroup, PoolGroup};
    use super::GuestGroup;
    use aerostat_abi::units::FrameCount;

    fn pool() -> Option<Arc<PoolGroup>> {
        let pool = PoolGroup::create();
        if let Err(error) = &pool {
            eprintln!("SKIPPED: no control group can be made ({error})");
        }
        pool.ok()
    }

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        command
    }

    #[test]
    fn a_process_starts_in_its_group_and_this_one_stays_where_it_is() {
        let Some(pool) = pool() else { return };
        let before = fs::read_to_string("/proc/thread-self/cgroup").unwrap();
        let [tight, wide] = [FrameCount(1), FrameCount::from_mib(64)];
        let mut group = pool.guest("web", wide).unwrap();
        assert_eq!(group.limit(), Some(wide));
        let mut child = group.spawn(&mut sleeper()).unwrap();
        let members = fs::read_to_string(group.location().folder.join("cgroup.procs")).unwrap();
        assert_eq!(members.trim(), child.id().to_string());
        assert_eq!(fs::read_to_string("/proc/thread-self/cgroup").unwrap(), before);

        assert!(pool.usage().unwrap().charged > 0, "the pool's charge covers the groups below it");
        group.set_limit(tight);
        assert_eq!(group.limit(), Some(wide), "the process has more already");

        let location = group.location().clone();
        let adopted = GuestGroup::adopt(&location).unwrap();
        assert_eq!(MemoryGroup::left_behind(&location).unwrap().folder(), location.folder.parent().unwrap());
        std::mem::forget(adopted);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(group);
        assert!(!location.folder.exists());
        drop(pool);
        assert!(!location.folder.parent().unwrap().exists());
    }

    #[test]
    fn the_kernel_kills_a_process_that_takes_more_than_its_limit() {
        let Some(pool) = pool() else { return };
        let group = pool.guest("big", FrameCount::from_mib(24)).unwrap();
        // The shell doubles a text until it has some hundred mebibytes.
        let script = "x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; \
                      do x=$x$x; done";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stderr(Stdio::null());
        let status = group.spawn(&mut command).unwrap().wait().unwrap();
        assert!(!status.success(), "{status}");
    }
}
