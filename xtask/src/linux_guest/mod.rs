//! A Linux guest with its own balloon driver, made of Debian's packages: `bench qemu` compares with
//! it, and `run --fleet mixed` has two of them. The packages are fetched once and kept in
//! `target/linux-guest`; delete that folder to fetch them again.
//!
//! What the guest does is in `init.sh`.

mod machines;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{expect_success, root};
use crate::{cpio, tools};

pub(crate) use self::machines::Machines;

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
/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// Returns the folder with all that there is of the guest.
fn folder() -> PathBuf {
    root().join("target/linux-guest")
}

/// Makes sure that the guest is there; returns the folder with its kernel, `vmlinuz`, and its
/// initial RAM disk, `initrd`.
pub(crate) fn prepare() -> Result<PathBuf> {
    let folder = folder();
    let parts = folder.join("parts");
    if !parts.is_dir() {
        fetch(&folder)?;
    }
    let initrd = folder.join("initrd");
    fs::write(&initrd, initial_ram_disk(&parts)?).with_context(|| format!("writing {}", initrd.display()))?;
    Ok(folder)
}

/// Fetches the packages, and keeps of them the kernel and, in `parts`, the files of the initial RAM
/// disk.
fn fetch(folder: &Path) -> Result<()> {
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|program| tools::find_program(program).is_none()).collect();
    ensure!(
        missing.is_empty(),
        "the Linux guest is made of Debian's packages, and {} is not installed",
        missing.join(", ")
    );
    let [packages, tree, new] = ["packages", "tree", "new"].map(|name| folder.join(name));
    for emptied in [&packages, &tree, &new] {
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
    keep(&find(&tree.join("boot"), |name| name.starts_with("vmlinuz-"))?, &folder.join("vmlinuz"))?;
    keep(&find(&tree.join("bin"), |name| name == "busybox")?, &new.join("busybox"))?;
    for module in MODULES.map(|module| format!("{module}.ko")) {
        match find(&tree.join("lib/modules"), |name| name == module) {
            Ok(file) => keep(&file, &new.join(&module))?,
            Err(error) if module.starts_with(BALLOON) => return Err(error),
            Err(_) => {}
        }
    }
    // The folder gets its name last: its presence means that all is there.
    fs::rename(&new, folder.join("parts")).context("naming the folder of parts")?;
    for done_with in [&packages, &tree] {
        fs::remove_dir_all(done_with).with_context(|| format!("removing {}", done_with.display()))?;
    }
    Ok(())
}

fn keep(file: &Path, place: &Path) -> Result<()> {
    fs::copy(file, place).with_context(|| format!("copying {}", file.display()))?;
    Ok(())
}

/// Returns the name of the package that contains the newest kernel.
fn newest_kernel() -> Result<String> {
    let asked = Command::new("apt-cache").args(["depends", KERNEL]).output().context("starting apt-cache")?;
    let answer = String::from_utf8_lossy(&asked.stdout);
    let kernel = answer.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    kernel
        .map(str::to_owned)
        .with_context(|| format!("apt knows no package {KERNEL}, which the Linux guest is made of"))
}

/// Returns an archive with the shell, the modules and [`INIT`].
fn initial_ram_disk(parts: &Path) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    for folder in ["bin", "dev", "memory", "modules", "proc"] {
        archive.folder(folder);
    }
    archive.program("init", INIT.as_bytes());
    archive.program("bin/busybox", &read(&parts.join("busybox"))?);
    archive.program("modules/order", MODULES.join(" ").as_bytes());
    for module in MODULES.map(|module| format!("{module}.ko")) {
        let file = parts.join(&module);
        if file.is_file() {
            archive.program(&format!("modules/{module}"), &read(&file)?);
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
