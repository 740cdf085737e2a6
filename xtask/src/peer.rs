//! The peer that `bench balloon --peer` measures: a Linux guest with its own balloon driver, made
//! of Debian's packages. They are fetched once and kept in `target/peer`; delete that folder to
//! fetch them again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{expect_success, root};
use crate::{cpio, tools};

/// The package that depends on the newest kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
/// The package with a shell that needs no libraries.
const SHELL: &str = "busybox-static";
/// The programs that fetch and unpack the packages.
const PROGRAMS: [&str; 3] = ["apt-get", "apt-cache", "dpkg-deb"];
/// The balloon driver and the modules that it needs, in the order of loading. A kernel may have
/// some of them built in.
const MODULES: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_balloon"];
/// The module of the balloon driver, which no kernel of Debian has built in.
const BALLOON: &str = "virtio_balloon";
/// The guest's first process. The kernel passes a word `touch_mib=N` of its command line on as a
/// variable; the script then writes to so much memory and frees it.
const INIT: &str = r#"#!/bin/busybox sh
busybox() { /bin/busybox "$@"; }
busybox mount -t devtmpfs dev /dev
for module in MODULES; do
    [ -f /modules/$module.ko ] && busybox insmod /modules/$module.ko
done
echo peer: up
if [ -n "$touch_mib" ]; then
    busybox mount -t tmpfs -o size=${touch_mib}m touched /touched
    busybox dd if=/dev/zero of=/touched/memory bs=1M count=$touch_mib 2>/dev/null
    busybox umount /touched
fi
echo peer: ready
while true; do busybox sleep 1000; done
"#;

/// Makes sure that the peer and QEMU are there; returns the folder with the peer's kernel,
/// `vmlinuz`, and its initial RAM disk, `initrd`.
pub(crate) fn prepare() -> Result<PathBuf> {
    tools::qemu()?;
    let folder = root().join("target/peer");
    if folder.join("initrd").is_file() {
        return Ok(folder);
    }
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|program| tools::find_program(program).is_none()).collect();
    ensure!(missing.is_empty(), "the peer is made of Debian's packages, and {} is not installed", missing.join(", "));
    let packages = folder.join("packages");
    let tree = folder.join("tree");
    for emptied in [&packages, &tree] {
        if emptied.exists() {
            fs::remove_dir_all(emptied).with_context(|| format!("emptying {}", emptied.display()))?;
        }
        fs::create_dir_all(emptied).with_context(|| format!("making {}", emptied.display()))?;
    }
    let kernel = newest_kernel()?;
    eprintln!("xtask: fetching {kernel} and {SHELL}");
    expect_success(Command::new("apt-get").args(["-q", "download", &kernel, SHELL]).current_dir(&packages))
        .with_context(|| format!("{kernel} or {SHELL} can't be fetched: `sudo apt-get update`, then try again"))?;
    for package in files(&packages)? {
        expect_success(Command::new("dpkg-deb").arg("-x").args([&package, &tree]))?;
    }
    let kernel = find(&tree.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    fs::copy(&kernel, folder.join("vmlinuz")).with_context(|| format!("copying {}", kernel.display()))?;
    let ram_disk = initial_ram_disk(&tree)?;
    for done_with in [&packages, &tree] {
        fs::remove_dir_all(done_with).with_context(|| format!("removing {}", done_with.display()))?;
    }
    // Written last: its presence means that all is there.
    let initrd = folder.join("initrd");
    fs::write(&initrd, ram_disk).with_context(|| format!("writing {}", initrd.display()))?;
    Ok(folder)
}

/// Returns the name of the package that contains the newest kernel.
fn newest_kernel() -> Result<String> {
    let asked = Command::new("apt-cache").args(["depends", KERNEL]).output().context("starting apt-cache")?;
    let answer = String::from_utf8_lossy(&asked.stdout);
    let kernel = answer.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    kernel.map(str::to_owned).with_context(|| format!("apt knows no package {KERNEL}, which the peer is made of"))
}

/// Returns an archive with the shell, the modules and [`INIT`].
fn initial_ram_disk(tree: &Path) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    for folder in ["bin", "dev", "modules", "touched"] {
        archive.folder(folder);
    }
    archive.program("init", INIT.replace("MODULES", &MODULES.join(" ")).as_bytes());
    archive.program("bin/busybox", &read(&find(&tree.join("bin"), |name| name == "busybox")?)?);
    for module in MODULES {
        let wanted = format!("{module}.ko");
        match find(&tree.join("lib/modules"), |name| name == wanted) {
            Ok(file) => archive.program(&format!("modules/{wanted}"), &read(&file)?),
            Err(error) if module == BALLOON => return Err(error),
            Err(_) => {}
        }
    }
    Ok(archive.finish())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("reading {}", file.display()))
}

/// Finds the file below `folder` whose name `is_wanted`.
fn find(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for path in files(&next)? {
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| is_wanted(&name.to_string_lossy())) {
                return Ok(path);
            }
        }
    }
    bail!("a file of Debian's packages is missing below {}", folder.display())
}

/// Returns the paths of a folder's entries.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
