//! Reads guest-physical memory while the boot page tables are in force.

/// Memory that a parser reads. Any address may be asked for; what is not there reads as zero.
pub(super) trait PhysicalMemory {
    /// Returns the byte at `address`.
    fn byte(&self, address: u64) -> u8;

    fn u32(&self, address: u64) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|offset| self.byte(address.wrapping_add(offset))))
    }

    fn u64(&self, address: u64) -> u64 {
        u64::from(self.u32(address)) | u64::from(self.u32(address.wrapping_add(4))) << 32
    }
}

#[cfg(target_os = "none")]
pub(super) use self::machine::{BootMemory, map_registers};

#[cfg(target_os = "none")]
#[allow(unsafe_code, reason = "reads what the loader left in memory, and changes the boot page tables")]
mod machine {
    use core::cell::{Cell, UnsafeCell};

    use aerostat_abi::units::{HUGE_BYTES, to_usize};
    use x86_64::PhysAddr;
    use x86_64::structures::paging::page_table::PageTableEntry;
    use x86_64::structures::paging::{PageTable, PageTableFlags};

    use super::PhysicalMemory;
    use crate::arch::x86_64::{cpu, ring0};
    use crate::layout::{BOOT_IDENTITY_END, DEVICE_HOLE};

    /// Gibibytes that can be read: no loader and no firmware leaves tables above 4 GiB.
    const GIBS: usize = 4;

    /// Tables for the gibibytes that the boot page tables do not map.
    struct Windows(UnsafeCell<[PageTable; GIBS - 1]>);

    // SAFETY: used by one value of `BootMemory` at a time, on the boot CPU.
    unsafe impl Sync for Windows {}

    static WINDOWS: Windows = Windows(UnsafeCell::new([const { PageTable::new() }; GIBS - 1]));

    /// The memory of the first 4 GiB. Where the boot page tables map only the first one, the others
    /// are mapped while they are read, and until the value is dropped.
    pub(in super::super) struct BootMemory {
        /// What the entries of the gibibytes were before, by their numbers less one.
        replaced: [Cell<Option<PageTableEntry>>; GIBS - 1],
    }

    impl BootMemory {
        /// Takes the boot page tables.
        ///
        /// # Safety
        /// The boot page tables are in force, and there is no other value of this type.
        pub(in super::super) unsafe fn new() -> Self {
            Self { replaced: [const { Cell::new(None) }; GIBS - 1] }
        }

        /// Maps the gibibyte of an address. Returns `false` if it is too high.
        fn reach(&self, address: u64) -> bool {
            let gib = to_usize(address / BOOT_IDENTITY_END);
            let Some(index) = gib.checked_sub(1) else { return true };
            let Some(replaced) = self.replaced.get(index) else { return false };
            let old = replaced.take();
            if old.is_some() {
                replaced.set(old);
                return true;
            }
            // SAFETY: the tables belong to this value, which has not linked this one yet.
            let table = unsafe { &mut (&mut *WINDOWS.0.get())[index] };
            let flags = PageTableFlags::PRESENT
                | PageTableFlags::WRITABLE
                | PageTableFlags::USER_ACCESSIBLE
                | PageTableFlags::HUGE_PAGE
                | PageTableFlags::NO_EXECUTE;
            for (slot, entry) in (0..).zip(table.iter_mut()) {
                entry.set_addr(PhysAddr::new(gib as u64 * BOOT_IDENTITY_END + slot * HUGE_BYTES), flags);
            }
            let table = PhysAddr::new(core::ptr::from_mut(table).expose_provenance() as u64);
            let entry = Self::entry(gib);
            // SAFETY: the entry is that of a gibibyte in which the kernel has nothing yet.
            replaced.set(Some(unsafe { entry.read() }));
            let mut new = PageTableEntry::new();
            new.set_addr(table, PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::USER_ACCESSIBLE);
            // SAFETY: as above.
            unsafe { entry.write(new) };
            cpu::flush_tlb();
            true
        }

        /// Returns where the boot page tables have the entry of a gibibyte.
        fn entry(gib: usize) -> *mut PageTableEntry {
            let root = core::ptr::with_exposed_provenance::<PageTableEntry>(to_usize(ring0::page_table_root()));
            // SAFETY: the root is a table that is mapped at its own address.
            let below = unsafe { root.read() }.addr().as_u64();
            core::ptr::with_exposed_provenance_mut::<PageTableEntry>(to_usize(below)).wrapping_add(gib)
        }
    }

    /// Maps registers in the device hole, for which the boot page tables have a table: for good, as
    /// that table stays. There must be no [`BootMemory`].
    pub(in super::super) fn map_registers(address: u64) {
        let flags = PageTableFlags::PRESENT
            | PageTableFlags::WRITABLE
            | PageTableFlags::USER_ACCESSIBLE
            | PageTableFlags::HUGE_PAGE
            | PageTableFlags::NO_EXECUTE
            | PageTableFlags::NO_CACHE
            | PageTableFlags::WRITE_THROUGH;
        // SAFETY: the boot page tables have this entry, and it refers to a table.
        let table = unsafe { BootMemory::entry(to_usize(DEVICE_HOLE.start / BOOT_IDENTITY_END)).read() }.addr();
        let slot = to_usize((address - DEVICE_HOLE.start) / HUGE_BYTES);
        let entry =
            core::ptr::with_exposed_provenance_mut::<PageTableEntry>(to_usize(table.as_u64())).wrapping_add(slot);
        // SAFETY: the address is in the device hole, so the entry is one of that table.
        if unsafe { entry.read() }.is_unused() {
            let mut new = PageTableEntry::new();
            new.set_addr(PhysAddr::new(address - address % HUGE_BYTES), flags);
            // SAFETY: as above; nothing is mapped there.
            unsafe { entry.write(new) };
        }
    }

    impl PhysicalMemory for BootMemory {
        fn byte(&self, address: u64) -> u8 {
            if address == 0 || !self.reach(address) {
                return 0;
            }
            let pointer = core::ptr::with_exposed_provenance::<u8>(to_usize(address));
            // SAFETY: the address is mapped, and any byte there may be read.
            unsafe { pointer.read_volatile() }
        }
    }

    impl Drop for BootMemory {
        fn drop(&mut self) {
            for (gib, replaced) in (1..).zip(&self.replaced) {
                if let Some(old) = replaced.take() {
                    // SAFETY: nothing but this value reads through the entry that it has replaced.
                    unsafe { Self::entry(gib).write(old) };
                }
            }
            cpu::flush_tlb();
        }
    }
}

#[cfg(test)]
impl PhysicalMemory for Vec<u8> {
    fn byte(&self, address: u64) -> u8 {
        usize::try_from(address).ok().and_then(|address| self.get(address)).copied().unwrap_or(0)
    }
}
