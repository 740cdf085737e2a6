//! What the guest's entry finds in memory: hermit-entry's boot information, version 4. Pure.
//!
//! This is `RawBootInfo` of the crate `hermit-entry`, which the guest reads it with. The crate
//! writes it too, but only together with a loader, and with that come parsers for archives, TOML,
//! sizes and dates, which have no place beside an untrusted guest. A test compares the two.

use super::console;
use super::image::{Image, ThreadLocal};
use super::layout::{DEVICE_TREE, GuestAddress};

/// The size of the structure in words.
const WORDS: usize = 16;
/// What starts the guest: `PlatformInfo::Fdt`, which has no fields.
const PLATFORM_FDT: u64 = 3;

/// Returns the structure for a guest whose memory ends at `memory_end`.
pub(super) fn encode(image: &Image, memory_end: GuestAddress) -> [u64; WORDS] {
    let none = ThreadLocal { start: 0, file_bytes: 0, bytes: 0, align: 0 };
    let local = image.thread_local.unwrap_or(none);
    let mut words = [0; WORDS];
    words[..11].copy_from_slice(&[
        0,
        memory_end.0,
        (*console::PORTS.start()).into(),
        DEVICE_TREE.0,
        image.info.start,
        image.info.end,
        local.start,
        local.file_bytes,
        local.bytes,
        local.align,
        PLATFORM_FDT,
    ]);
    words
}

#[cfg(test)]
mod tests {
    use super::{WORDS, encode};
    use crate::image::{Image, ImageInfo, ThreadLocal};
    use crate::layout::{DEVICE_TREE, GuestAddress};
    use hermit_entry::boot_info::{BootInfo, PlatformInfo, RawBootInfo};

    fn decoded(thread_local: Option<ThreadLocal>) -> BootInfo {
        let info = ImageInfo { start: 0x20_0000, end: 0x30_0000, entry: 0x20_0000 };
        let words = encode(&Image { info, thread_table: None, loads: Vec::new(), thread_local }, GuestAddress(1 << 30));
        // SAFETY: the guest does the same: each field takes any of the values that were written.
        let raw = unsafe { std::mem::transmute::<[u64; WORDS], RawBootInfo>(words) };
        BootInfo::from(raw)
    }

    #[test]
    fn the_guest_reads_what_was_written() {
        let info = decoded(None);
        assert_eq!(info.hardware_info.phys_addr_range, 0..1 << 30);
        assert_eq!(info.hardware_info.serial_port_base.unwrap().get(), 0x3f8);
        assert_eq!(info.hardware_info.device_tree.unwrap().get(), DEVICE_TREE.0);
        assert_eq!(info.load_info.kernel_image_addr_range, 0x20_0000..0x30_0000);
        assert!(info.load_info.tls_info.is_none());
        assert!(matches!(info.platform_info, PlatformInfo::Fdt));
    }

    #[test]
    fn thread_local_variables_are_described() {
        let local = ThreadLocal { start: 0x21_0000, file_bytes: 8, bytes: 24, align: 16 };
        let info = decoded(Some(local)).load_info.tls_info.unwrap();
        assert_eq!((info.start, info.filesz, info.memsz, info.align), (0x21_0000, 8, 24, 16));
    }
}
