//! What a guest's CPUID shows of the host's processor: what its kernel and its application can use,
//! as processor 0 of one. Pure.
//!
//! A leaf that is not in [`SHOWN`] is missing, so that what later processors add stays hidden until
//! it is added here. Of the leaves that are shown, [`HIDDEN`] names the bits that are not.

use kvm_bindings::kvm_cpuid_entry2;

/// The leaves that a guest sees, by their function.
const SHOWN: &[u32] = &[
    0x0,         // vendor, highest leaf
    0x1,         // model and basic features: errata and instructions go by them
    0x2,         // caches, by descriptors
    0x4,         // caches, by sizes; without who shares them
    0x6,         // whether the local APIC's timer always runs; nothing of power
    0x7,         // features
    0xb,         // topology: one processor
    0xd,         // layout of the extended state, for XSAVE
    0x15,        // rate of the time stamp counter
    0x1f,        // topology: one processor
    0x4000_0000, // signature of KVM
    0x4000_0001, // KVM's interfaces, none of which the guest kernel uses
    0x8000_0000, // highest leaf
    0x8000_0001, // features
    0x8000_0005, // caches of the first level
    0x8000_0006, // caches of the second and third level
    0x8000_0007, // whether the time stamp counter is invariant
    0x8000_0008, // widths of addresses, protections against speculation
    0x8000_001d, // caches, by sizes; without who shares them
    0x8000_0021, // features
];

/// A register of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Bits of a shown leaf that a guest does not see.
struct Hidden {
    function: u32,
    register: Register,
    bits: u32,
}

const fn hidden(function: u32, register: Register, bits: u32) -> Hidden {
    Hidden { function, register, bits }
}

/// Returns a mask with these bits.
const fn bits<const N: usize>(numbers: [u32; N]) -> u32 {
    let (mut mask, mut index) = (0, 0);
    while index < N {
        mask |= 1 << numbers[index];
        index += 1;
    }
    mask
}

const ALL: u32 = u32::MAX;

/// What is hidden, by leaf (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E).
const HIDDEN: &[Hidden] = &[
    // The processor that executed CPUID (31-24) and the number of its siblings (23-16).
    hidden(0x1, Register::Ebx, 0xffff_0000),
    // Nested virtualization: VMX, SMX. Performance counters and debug stores: PDCM, DTES64, DS-CPL,
    // SDBG. Power: MONITOR, EST, TM2, xTPR. What no virtual machine has: DCA, CNXT-ID.
    hidden(0x1, Register::Ecx, bits([2, 3, 4, 5, 6, 7, 8, 10, 11, 14, 15, 18])),
    // The serial number; debug store, ACPI, thermal monitor, pending break; siblings.
    hidden(0x1, Register::Edx, bits([18, 21, 22, 28, 29, 31])),
    // Siblings that share the cache (25-14), cores of the package (31-26).
    hidden(0x4, Register::Eax, 0xffff_c000),
    // All of power but ARAT.
    hidden(0x6, Register::Eax, !bits([2])),
    hidden(0x6, Register::Ebx, ALL),
    hidden(0x6, Register::Ecx, ALL),
    hidden(0x6, Register::Edx, ALL),
    // Enclaves; transactions, which time accesses of other processors; monitoring and partitioning
    // of caches; processor trace.
    hidden(0x7, Register::Ebx, bits([2, 4, 11, 12, 15, 25])),
    // Waiting for an address, memory encryption, key locker, work queues, enclaves.
    hidden(0x7, Register::Ecx, bits([5, 13, 23, 29, 30])),
    // User interrupts, transactions, kinds of cores, memory encryption, branch records, and the
    // tiles of AMX, whose state is as large as two pages.
    hidden(0x7, Register::Edx, bits([5, 11, 13, 15, 18, 19, 22, 24, 25])),
    // Every paravirtual interface: the guest kernel uses none, and each is code of the host.
    hidden(0x4000_0001, Register::Eax, ALL),
    hidden(0x4000_0001, Register::Edx, ALL),
    // Nested virtualization: SVM, SKINIT. Performance counters: IBS, LWP, PerfCtrExtCore, -NB,
    // -LLC, PerfTsc, data breakpoints. Topology: CmpLegacy, NodeId, TopologyExtensions. OSVW, the
    // watchdog, and waiting for an address.
    hidden(0x8000_0001, Register::Ecx, bits([1, 2, 9, 10, 12, 13, 15, 19, 22, 23, 24, 26, 27, 28, 29])),
    // Power management but the invariant time stamp counter, and reports of memory errors.
    hidden(0x8000_0007, Register::Eax, ALL),
    hidden(0x8000_0007, Register::Ebx, ALL),
    hidden(0x8000_0007, Register::Ecx, ALL),
    hidden(0x8000_0007, Register::Edx, !bits([8])),
    // INVLPGB, RDPRU, MCOMMIT, bandwidth limits, CPPC.
    hidden(0x8000_0008, Register::Ebx, bits([3, 4, 6, 8, 27])),
    // Processors of the package, width of their numbers, the time stamp counter of performance;
    // what RDPRU reads.
    hidden(0x8000_0008, Register::Ecx, ALL),
    hidden(0x8000_0008, Register::Edx, ALL),
    // Siblings that share the cache.
    hidden(0x8000_001d, Register::Eax, 0x03ff_c000),
    // The size of the microcode's patch.
    hidden(0x8000_0021, Register::Ebx, ALL),
];

/// Returns the features that a guest sees of those that KVM supports on this host.
pub(super) fn guest_entries(host: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    let mut guest: Vec<_> =
        host.iter().filter(|entry| SHOWN.contains(&entry.function)).copied().map(guest_entry).collect();
    // The first leaf of each range names its last: none of those that are missing is asked for.
    for range in [0x0, 0x4000_0000, 0x8000_0000] {
        let last = guest.iter().map(|entry| entry.function).filter(|function| function >> 28 == range >> 28).max();
        if let (Some(last), Some(first)) = (last, guest.iter_mut().find(|entry| entry.function == range)) {
            first.eax = first.eax.min(last);
        }
    }
    guest
}

fn guest_entry(mut entry: kvm_cpuid_entry2) -> kvm_cpuid_entry2 {
    for hidden in HIDDEN.iter().filter(|hidden| hidden.function == entry.function) {
        let register = match hidden.register {
            Register::Eax => &mut entry.eax,
            Register::Ebx => &mut entry.ebx,
            Register::Ecx => &mut entry.ecx,
            Register::Edx => &mut entry.edx,
        };
        *register &= !hidden.bits;
    }
    match entry.function {
        // One logical processor in the package.
        0x1 => entry.ebx |= 1 << 16,
        0xb | 0x1f => topology(&mut entry),
        _ => {}
    }
    entry
}

/// Describes one processor: one thread of one core, and no further level.
fn topology(entry: &mut kvm_cpuid_entry2) {
    const THREAD: u32 = 1;
    const CORE: u32 = 2;
    let (processors, level) = match entry.index {
        0 => (1, THREAD),
        1 => (1, CORE),
        _ => (0, 0),
    };
    (entry.eax, entry.ebx, entry.edx) = (0, processors, 0);
    entry.ecx = level << 8 | entry.index & 0xff;
}

#[cfg(test)]
mod tests {
    use super::{HIDDEN, SHOWN, guest_entries};
    use kvm_bindings::kvm_cpuid_entry2;
    use std::collections::BTreeSet;

    fn all_ones(function: u32, index: u32) -> kvm_cpuid_entry2 {
        let (eax, ebx, ecx, edx) = (u32::MAX, u32::MAX, u32::MAX, u32::MAX);
        kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() }
    }

    fn shown(function: u32, index: u32) -> kvm_cpuid_entry2 {
        guest_entries(&[all_ones(function, index)])[0]
    }

    #[test]
    fn leaves_of_the_host_alone_are_missing() {
        let private = [
            0x3,         // serial number
            0x5,         // monitor
            0xa,         // performance counters
            0xf,         // monitoring of caches
            0x10,        // partitioning of caches
            0x12,        // enclaves
            0x14,        // processor trace
            0x16,        // frequencies
            0x1c,        // branch records
            0x23,        // performance counters
            0x8000_0002, // the processor's name
            0x8000_000a, // nested virtualization
            0x8000_001b, // sampling of instructions
            0x8000_001e, // topology
            0x8000_001f, // memory encryption
            0x8000_0022, // performance counters
            0x8000_0026, // topology
            0xc000_0001,
        ];
        assert!(guest_entries(&private.map(|function| all_ones(function, 0))).is_empty());
    }

    #[test]
    fn nested_virtualization_and_performance_counters_are_hidden() {
        let basic = shown(0x1, 0);
        for bit in [5, 6, 15] {
            assert_eq!(basic.ecx >> bit & 1, 0, "leaf 1, ECX bit {bit}");
        }
        let extended = shown(0x8000_0001, 0);
        for bit in [2, 10, 12, 15, 23, 24, 27, 28] {
            assert_eq!(extended.ecx >> bit & 1, 0, "leaf 0x80000001, ECX bit {bit}");
        }
        assert_eq!((basic.ecx >> 31 & 1, basic.edx >> 9 & 1), (1, 1), "a hypervisor, a local APIC");
        assert_eq!(shown(0x8000_0007, 0).edx, 1 << 8);
        assert_eq!((shown(0x6, 0).eax, shown(0x6, 0).ecx), (1 << 2, 0));
    }

    #[test]
    fn the_topology_is_one_processor() {
        let basic = shown(0x1, 0);
        assert_eq!((basic.ebx >> 24, basic.ebx >> 16 & 0xff, basic.edx >> 28 & 1), (0, 1, 0));
        for leaf in [0xb, 0x1f] {
            let levels = [0, 1, 2].map(|index| {
                let entry = shown(leaf, index);
                (entry.eax, entry.ebx, entry.ecx, entry.edx)
            });
            assert_eq!(levels, [(0, 1, 0x100, 0), (0, 1, 0x201, 0), (0, 0, 2, 0)]);
        }
        assert_eq!((shown(0x4, 0).eax >> 14, shown(0x8000_001d, 0).eax >> 14 & 0xfff), (0, 0));
        assert_eq!(shown(0x8000_0008, 0).ecx, 0);
    }

    #[test]
    fn the_last_leaf_is_one_that_is_there() {
        let host = [all_ones(0x0, 0), all_ones(0x1, 0), all_ones(0x1c, 0), all_ones(0x8000_0000, 0)];
        let guest = guest_entries(&host);
        let last: Vec<_> = guest.iter().map(|entry| (entry.function, entry.eax)).collect();
        assert_eq!(last, [(0x0, 0x1), (0x1, u32::MAX), (0x8000_0000, 0x8000_0000)]);
        assert_eq!(guest[0].ebx, u32::MAX, "the vendor stays");
    }

    #[test]
    fn only_leaves_that_are_shown_have_hidden_bits() {
        assert!(SHOWN.is_sorted());
        assert!(HIDDEN.iter().all(|hidden| SHOWN.contains(&hidden.function)));
        let places: BTreeSet<_> = HIDDEN.iter().map(|hidden| (hidden.function, hidden.register as u32)).collect();
        assert_eq!(places.len(), HIDDEN.len(), "a register is in one row");
    }
}
