//! A file system of a few MiB for swap disks, which fills.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A file system in a file. Unmounted when dropped.
#[derive(Debug)]
pub(super) struct SmallDisk {
    mounted: PathBuf,
    _folder: TempDir,
}

impl SmallDisk {
    /// Makes and mounts one; `None`, and says so, where that is not permitted.
    pub(super) fn mount(mib: u64) -> Option<Self> {
        let disk = Self::try_mount(mib);
        if disk.is_none() {
            println!("chaos: no small file system can be mounted here, so no disk fills");
        }
        disk
    }

    fn try_mount(mib: u64) -> Option<Self> {
        let folder = tempfile::tempdir_in("/var/tmp").ok()?;
        let (image, mounted) = (folder.path().join("image"), folder.path().join("mounted"));
        File::create(&image).ok()?.set_len(mib << 20).ok()?;
        std::fs::create_dir(&mounted).ok()?;
        let run = |program: &str, words: &[&Path]| {
            let mut command = Command::new(program);
            command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let is_made = run("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &image])
            && run("mount", &[Path::new("-o"), Path::new("loop"), &image, &mounted]);
        is_made.then_some(Self { mounted, _folder: folder })
    }

    /// Returns its folder.
    pub(super) fn folder(&self) -> &Path {
        &self.mounted
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A file that is still open keeps the file system until it is closed.
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}
