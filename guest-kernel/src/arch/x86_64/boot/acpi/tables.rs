//! The way to the tables: root pointer, root table, and the tables that it names (ACPI 6.5, 5.2).

use crate::arch::x86_64::boot::physical_memory::PhysicalMemory;

/// Where firmware leaves the root pointer if the loader does not pass it on.
const BIOS_AREA: core::ops::Range<u64> = 0xe_0000..0x10_0000;
const POINTER_SIGNATURE: [u8; 8] = *b"RSD PTR ";
const POINTER_BYTES: u64 = 20;
const LONG_POINTER_BYTES: u64 = 36;

/// Bytes of the header that all tables have.
pub(super) const HEADER_BYTES: u64 = 36;
/// The longest table that is read: a wrong length must not send a parser through all memory.
const MAX_TABLE_BYTES: u64 = 1 << 20;
/// The most tables that the root table may name.
const MAX_TABLES: u64 = 64;

/// A table: its bytes add up to zero, and its length is possible.
#[derive(Debug)]
pub(super) struct Table<'a, M> {
    memory: &'a M,
    address: u64,
    bytes: u64,
}

impl<M> Clone for Table<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Table<'_, M> {}

impl<'a, M: PhysicalMemory> Table<'a, M> {
    /// Returns the table at an address, if there is one with this signature.
    pub(super) fn at(memory: &'a M, address: u64, signature: [u8; 4]) -> Option<Self> {
        if address == 0 || !is_text(memory, address, &signature) {
            return None;
        }
        let bytes = u64::from(memory.u32(address.wrapping_add(4)));
        let is_possible = (HEADER_BYTES..=MAX_TABLE_BYTES).contains(&bytes) && address.checked_add(bytes).is_some();
        (is_possible && adds_up(memory, address, bytes)).then_some(Self { memory, address, bytes })
    }

    /// Returns the number of bytes, the header included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns a byte; zero behind the end.
    pub(super) fn u8(&self, offset: u64) -> u8 {
        if offset < self.bytes { self.memory.byte(self.address + offset) } else { 0 }
    }

    /// Returns 16 bits, with zeros behind the end.
    pub(super) fn u16(&self, offset: u64) -> u16 {
        u16::from_le_bytes([0, 1].map(|byte| self.u8(offset.saturating_add(byte))))
    }

    /// Returns 32 bits, with zeros behind the end.
    pub(super) fn u32(&self, offset: u64) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|byte| self.u8(offset.saturating_add(byte))))
    }

    /// Returns 64 bits, with zeros behind the end.
    pub(super) fn u64(&self, offset: u64) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset.saturating_add(4))) << 32
    }

    /// Returns whether these bytes are at an offset.
    pub(super) fn has(&self, offset: u64, bytes: &[u8]) -> bool {
        (offset..).zip(bytes).all(|(offset, byte)| self.u8(offset) == *byte)
    }
}

/// The table that names all others.
#[derive(Debug)]
pub(super) struct RootTable<'a, M> {
    table: Table<'a, M>,
    /// Bytes of an address in it.
    width: u64,
}

impl<'a, M: PhysicalMemory> RootTable<'a, M> {
    /// Finds the table: by the loader's pointer, or in the area of the BIOS.
    pub(super) fn find(memory: &'a M, pointer: u64) -> Option<Self> {
        let mut in_bios = BIOS_AREA.step_by(16);
        Self::at(memory, pointer).or_else(|| in_bios.find_map(|pointer| Self::at(memory, pointer)))
    }

    fn at(memory: &'a M, pointer: u64) -> Option<Self> {
        let is_pointer =
            pointer != 0 && is_text(memory, pointer, &POINTER_SIGNATURE) && adds_up(memory, pointer, POINTER_BYTES);
        if !is_pointer {
            return None;
        }
        let is_long = memory.byte(pointer.wrapping_add(15)) >= 2 && adds_up(memory, pointer, LONG_POINTER_BYTES);
        let long = is_long.then(|| Table::at(memory, memory.u64(pointer.wrapping_add(24)), *b"XSDT")).flatten();
        let short = || Table::at(memory, memory.u32(pointer.wrapping_add(16)).into(), *b"RSDT");
        long.map(|table| Self { table, width: 8 }).or_else(|| Some(Self { table: short()?, width: 4 }))
    }

    /// Returns the first table with this signature.
    pub(super) fn table(&self, signature: [u8; 4]) -> Option<Table<'a, M>> {
        let count = ((self.table.bytes() - HEADER_BYTES) / self.width).min(MAX_TABLES);
        let entries = (0..count).map(|index| HEADER_BYTES + index * self.width);
        let addresses = entries.map(|at| if self.width == 8 { self.table.u64(at) } else { self.table.u32(at).into() });
        addresses.filter_map(|address| Table::at(self.table.memory, address, signature)).next()
    }

    /// Returns the memory that the tables are in.
    pub(super) fn memory(&self) -> &'a M {
        self.table.memory
    }
}

fn is_text(memory: &impl PhysicalMemory, address: u64, text: &[u8]) -> bool {
    (0..).zip(text).all(|(offset, byte)| memory.byte(address.wrapping_add(offset)) == *byte)
}

fn adds_up(memory: &impl PhysicalMemory, address: u64, bytes: u64) -> bool {
    let sum = |sum: u8, offset| sum.wrapping_add(memory.byte(address.wrapping_add(offset)));
    (0..bytes).fold(0, sum) == 0
}
