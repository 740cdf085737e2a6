use super::{Facts, read};
use crate::arch::x86_64::boot::devices::{Ecam, Interrupt, VirtioDescription};
use crate::arch::x86_64::boot::interrupt_controllers::Pin;
use crate::arch::x86_64::power::{PowerRegisters, Register, Reset, SleepControl, SleepType};

/// Where the tests' root pointer is.
const POINTER: usize = 0xf_0000;
const ROOT: usize = 0x1000;
const FIRST_TABLE: usize = 0x2000;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Makes a table: a header, and `body`.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = vec![0; 36];
    table[..4].copy_from_slice(signature);
    table[4..8].copy_from_slice(&u32::try_from(36 + body.len()).unwrap().to_le_bytes());
    table.extend(body);
    table[9] = 0_u8.wrapping_sub(sum(&table));
    table
}

/// Puts a field into a body; its offset is that in the table.
fn put(body: &mut [u8], offset: usize, field: &[u8]) {
    body[offset - 36..][..field.len()].copy_from_slice(field);
}

fn generic(space: u8, address: u64) -> Vec<u8> {
    let mut field = vec![space, 8, 0, 0];
    field.extend(address.to_le_bytes());
    field
}

/// Lays tables out in memory: the pointer in the area of the BIOS, a root table with addresses of
/// 64 bits, and the tables, the first of which is at [`FIRST_TABLE`].
fn memory(tables: &[Vec<u8>]) -> Vec<u8> {
    let mut memory = vec![0; 0x10_0000];
    let mut addresses = Vec::new();
    let mut at = FIRST_TABLE;
    for table in tables {
        memory[at..at + table.len()].copy_from_slice(table);
        addresses.extend((at as u64).to_le_bytes());
        at += table.len().next_multiple_of(0x1000);
    }
    let root = table(b"XSDT", &addresses);
    memory[ROOT..ROOT + root.len()].copy_from_slice(&root);
    let mut pointer = *b"RSD PTR \0AEROST\x02\0\0\0\0\x24\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    pointer[24..32].copy_from_slice(&(ROOT as u64).to_le_bytes());
    pointer[8] = 0_u8.wrapping_sub(sum(&pointer[..20]));
    pointer[32] = 0_u8.wrapping_sub(sum(&pointer));
    memory[POINTER..POINTER + 36].copy_from_slice(&pointer);
    memory
}

/// The devices of QEMU's `pc`, as far as they are read: `_S5_` is a package of zeros.
const PC_S5: &[u8] = &[0x08, 0x5f, 0x53, 0x35, 0x5f, 0x12, 0x06, 0x04, 0, 0, 0, 0, 0x10, 0x3b];
/// Those of its `microvm` with a bus: the name begins with the root, and the type is 5.
const MICROVM_S5: &[u8] = &[0x08, 0x5c, 0x5f, 0x53, 0x35, 0x5f, 0x12, 0x07, 0x04, 0x0a, 0x05, 0, 0, 0];
const MICROVM_CBA: &[u8] = &[0x14, 0x0c, 0x5f, 0x43, 0x42, 0x41, 0x00, 0xa4, 0x0c, 0, 0, 0, 0xe0];

fn fadt(flags: u32) -> Vec<u8> {
    let mut body = vec![0; 268 - 36];
    put(&mut body, 112, &flags.to_le_bytes());
    body
}

/// A machine with fixed hardware, as QEMU's `q35` describes it.
fn q35() -> Vec<Vec<u8>> {
    let mut fixed = fadt(0x84a5);
    put(&mut fixed, 40, &u32::try_from(FIRST_TABLE + 0x1000).unwrap().to_le_bytes());
    put(&mut fixed, 64, &0x604_u32.to_le_bytes());
    put(&mut fixed, 116, &generic(1, 0xcf9));
    put(&mut fixed, 128, &[0x0f]);
    put(&mut fixed, 172, &generic(1, 0x604));
    let mut controllers = vec![0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
    controllers.extend([0, 8, 0, 0, 1, 0, 0, 0]);
    controllers.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    controllers.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    let mut spaces = vec![0; 8];
    spaces.extend([0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0]);
    vec![table(b"FACP", &fixed), table(b"DSDT", PC_S5), table(b"APIC", &controllers), table(b"MCFG", &spaces)]
}

fn facts(tables: &[Vec<u8>]) -> Facts {
    read(&memory(tables), 0).unwrap()
}

#[test]
fn a_machine_with_fixed_hardware_is_understood() {
    let facts = facts(&q35());
    let types = SleepType { first: 0, second: 0 };
    let sleep = SleepControl::Fixed { first: Register::Port(0x604), second: None, types };
    let reset = Reset { register: Register::Port(0xcf9), value: 0xf };
    assert_eq!(facts.power, PowerRegisters { sleep: Some(sleep), reset: Some(reset) });
    assert_eq!(facts.ecam, Some(Ecam { address: 0xb000_0000, last_bus: 255 }));
    assert_eq!(facts.controllers.of_line(0), 2);
    assert_eq!(facts.controllers.pin(11), Some(Pin { io_apic: 0xfec0_0000, number: 11 }));
    assert_eq!(facts.virtio_devices.iter().count(), 0);
}

#[test]
fn a_machine_without_fixed_hardware_is_understood() {
    let mut fixed = fadt(1 << 20 | 1 << 10);
    put(&mut fixed, 140, &(FIRST_TABLE as u64 + 0x1000).to_le_bytes());
    put(&mut fixed, 116, &generic(0, 0xfea0_0202));
    put(&mut fixed, 128, &[0x42]);
    put(&mut fixed, 244, &generic(0, 0xfea0_0200));
    let mut devices = b"\x08_HID\rLNRO0005\0\x08_CRS\x11\x16\x0a\x12\x86\x09\0\x01\0\x0e\xb0\xfe\0\x02\0\0".to_vec();
    devices.extend([0x89, 6, 0, 1, 1, 0x1f, 0, 0, 0, 0x79, 0]);
    devices.extend(MICROVM_CBA);
    devices.extend(MICROVM_S5);
    let mut controllers = vec![0; 8];
    controllers.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    controllers.extend([1, 12, 1, 0, 0, 0, 0xc1, 0xfe, 24, 0, 0, 0]);
    let facts = facts(&[table(b"FACP", &fixed), table(b"DSDT", &devices), table(b"APIC", &controllers)]);
    let types = SleepType { first: 5, second: 0 };
    let sleep = SleepControl::Reduced { register: Register::Memory(0xfea0_0200), types };
    let reset = Reset { register: Register::Memory(0xfea0_0202), value: 0x42 };
    assert_eq!(facts.power, PowerRegisters { sleep: Some(sleep), reset: Some(reset) });
    assert_eq!(facts.ecam, Some(Ecam { address: 0xe000_0000, last_bus: 255 }));
    let device = VirtioDescription { registers: 0xfeb0_0e00, bytes: 512, interrupt: Interrupt::Pin(31) };
    assert_eq!(facts.virtio_devices.iter().copied().collect::<Vec<_>>(), [device]);
    assert_eq!(facts.controllers.pin(31), Some(Pin { io_apic: 0xfec1_0000, number: 7 }));
}

#[test]
fn a_machine_without_tables_has_none() {
    assert!(read(&vec![0; 0x10_0000], 0).is_none());
    assert!(read(&vec![0; 0x10_0000], u64::MAX).is_none());
    let mut wrong = memory(&q35());
    wrong[POINTER + 16] ^= 1;
    assert!(read(&wrong, POINTER as u64).is_none(), "the bytes of the pointer do not add up");
}

#[test]
fn tables_that_cannot_be_are_left_out() {
    let mut tables = q35();
    tables[0][70] ^= 1; // its bytes do not add up
    tables[2] = table(b"APIC", &[0; 64]); // entries without a length
    tables[3] = table(b"MCFG", &[]); // no entry
    let facts = facts(&tables);
    assert_eq!(facts.power, PowerRegisters::default());
    assert_eq!(facts.ecam, None);
    assert_eq!(facts.controllers.pin(0), Some(Pin { io_apic: 0xfec0_0000, number: 0 }));
    let mut long = memory(&q35());
    long[ROOT + 4..ROOT + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read(&long, POINTER as u64).is_none(), "a root table without an end");
}

#[test]
fn names_without_the_known_form_are_passed_over() {
    let s5 = |devices: &[u8]| {
        let mut tables = q35();
        tables[1] = table(b"DSDT", devices);
        facts(&tables).power.sleep
    };
    assert!(s5(&[b"_S5_ _S5_\x12", PC_S5].concat()).is_some(), "the name in a text, before the package");
    assert!(s5(&PC_S5[..7]).is_none(), "the end of the table");
    assert!(s5(b"_S5_").is_none());
    assert!(s5(b"\x08_S5_\x12\x06\x04\x0a\x08\0\0\0").is_none(), "no such type");
    assert!(s5(b"\x08_S5_\x12\x06\x04ABCD").is_none(), "no constant");
}

mod hostile {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::{FIRST_TABLE, POINTER, ROOT, memory, q35, read};

    /// Places of the tables, and others.
    fn place() -> impl Strategy<Value = usize> {
        let near = |start: usize| start..start + 0x200;
        prop_oneof![
            near(ROOT),
            near(POINTER),
            near(FIRST_TABLE),
            near(FIRST_TABLE + 0x1000),
            near(FIRST_TABLE + 0x2000)
        ]
    }

    proptest! {
        /// Whatever the tables contain, the parser ends.
        #[test]
        fn the_parser_ends(
            changes in proptest::collection::vec((place(), any::<u8>()), 0..40),
            repair in any::<bool>(),
        ) {
            let mut memory = memory(&q35());
            for (place, byte) in changes {
                memory[place] = byte;
            }
            if repair {
                // Bytes that add up let the parser go on to what they are the bytes of.
                for at in [ROOT, FIRST_TABLE, FIRST_TABLE + 0x1000, FIRST_TABLE + 0x2000] {
                    let bytes = u32::from_le_bytes(memory[at + 4..at + 8].try_into().unwrap());
                    if bytes < 0x1000 {
                        let bytes = usize::try_from(bytes).unwrap();
                        let sum = super::sum(&memory[at..at + bytes]);
                        memory[at + 9] = memory[at + 9].wrapping_sub(sum);
                    }
                }
            }
            let _ = read(&memory, POINTER as u64);
        }

        #[test]
        fn any_pointer_ends(pointer in prop_oneof![any::<u64>(), Just(POINTER as u64 + 1), Just(u64::MAX - 7)]) {
            let _ = read(&vec![0_u8; 64], pointer);
        }
    }
}
