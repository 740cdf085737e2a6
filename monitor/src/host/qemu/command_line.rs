//! The command line of a QEMU that runs an image of ours: a `microvm` without firmware and ACPI,
//! booted through PVH, with virtio devices over MMIO.

use std::path::Path;

use aerostat_abi::boot::{DATA_DISK_ID, SWAP_DISK_ID};
use aerostat_abi::exit::EXIT_PORT;
use aerostat_abi::units::FrameCount;
use serde_json::{Value, json};

use crate::host::disk::{DiskMode, DiskRole};

/// What emulates the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// KVM, or QEMU's own emulation where this QEMU can't use KVM.
    Kvm,
    /// QEMU's own emulation.
    Emulation,
}

/// A disk, by a path that QEMU opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drive {
    pub(super) role: DiskRole,
    pub(super) mode: DiskMode,
    pub(super) path: String,
}

/// What a machine is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description<'a> {
    pub(super) name: &'a str,
    pub(super) image: &'a Path,
    pub(super) memory: FrameCount,
    pub(super) command_line: &'a str,
    pub(super) drives: &'a [Drive],
    pub(super) log: Option<&'a Path>,
    pub(super) accelerator: Accelerator,
}

/// Returns the arguments. QEMU is controlled over a socket that is its standard input, and listens
/// already.
pub(super) fn arguments(of: Description<'_>) -> Vec<String> {
    let Description { name, image, memory, command_line, drives, log, accelerator } = of;
    let mut arguments = vec!["-name".to_owned(), escaped(name)];
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "microvm,acpi=off"]);
    match accelerator {
        Accelerator::Kvm => add(&["-accel", "kvm", "-accel", "tcg"]),
        Accelerator::Emulation => add(&["-accel", "tcg"]),
    }
    add(&["-cpu", "max", "-global", "virtio-mmio.force-legacy=false", "-m", &format!("{}M", memory.mib())]);
    add(&["-kernel", &image.display().to_string(), "-append", command_line]);
    add(&["-chardev", "socket,id=monitor,fd=0,server=on,wait=off", "-mon", "chardev=monitor,mode=control"]);
    match log {
        Some(log) => {
            let path = escaped(&log.display().to_string());
            add(&["-chardev", &format!("file,id=console,path={path},append=on"), "-serial", "chardev:console"]);
        }
        None => add(&["-serial", "null"]),
    }
    add(&["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4")]);
    // Without deflate-on-oom: a guest of ours waits for memory rather than take it from the pool.
    add(&["-device", "virtio-balloon-device,id=balloon0,free-page-reporting=on"]);
    for drive in drives {
        let id = match drive.role {
            DiskRole::Data => DATA_DISK_ID,
            DiskRole::Swap => SWAP_DISK_ID,
        };
        add(&["-blockdev", &block_device(drive, id).to_string()]);
        add(&["-device", &format!("virtio-blk-device,drive={id},serial={id}")]);
    }
    arguments
}

/// Returns QEMU's description of a disk. The supervisor has locked it, so QEMU does not. What a
/// guest swaps out must not stay in the host's memory.
fn block_device(drive: &Drive, id: &str) -> Value {
    let is_read_only = drive.mode == DiskMode::ReadOnly;
    json!({
        "node-name": id,
        "driver": "raw",
        "read-only": is_read_only,
        "discard": "unmap",
        "file": {
            "driver": "file",
            "filename": drive.path,
            "locking": "off",
            "cache": { "direct": drive.role == DiskRole::Swap, "no-flush": false },
        },
    })
}

/// Returns a value as QEMU's options take it: a comma ends it unless it is doubled.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::{Accelerator, Description, Drive, arguments};
    use crate::host::disk::{DiskMode, DiskRole};
    use aerostat_abi::units::FrameCount;
    use std::path::Path;

    #[test]
    fn names_with_commas_add_no_options() {
        let drives = [Drive { role: DiskRole::Swap, mode: DiskMode::ReadWrite, path: "/a,readonly=on\"".into() }];
        let line = arguments(Description {
            name: "web,process=x",
            image: Path::new("/image,x"),
            memory: FrameCount::from_mib(512),
            command_line: "words -with dashes, and more",
            drives: &drives,
            log: Some(Path::new("/log,x")),
            accelerator: Accelerator::Emulation,
        });
        let after = |option: &str| {
            let place = line.iter().position(|word| word == option).unwrap();
            line[place + 1].as_str()
        };
        assert_eq!(after("-name"), "web,,process=x");
        assert_eq!(after("-kernel"), "/image,x", "an option that takes no list");
        assert_eq!(after("-append"), "words -with dashes, and more");
        assert_eq!((after("-m"), after("-accel")), ("512M", "tcg"));
        assert!(line.contains(&"file,id=console,path=/log,,x,append=on".to_owned()));
        let drive: serde_json::Value = serde_json::from_str(after("-blockdev")).unwrap();
        assert_eq!(drive["file"]["filename"], "/a,readonly=on\"");
    }
}
