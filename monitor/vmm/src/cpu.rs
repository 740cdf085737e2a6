//! The virtual processor's first state: features, control registers, segments, and the registers of
//! hermit-entry's protocol.
//!
//! The supervisor lists the features that KVM supports, once, and passes what a guest may see of
//! them ([`super::cpuid`]) to each. To list them takes as long as creating a machine on a host that
//! is a virtual machine itself, where each CPUID is an exit.
//!
//! The guest starts in 64-bit mode and ring 0 with paging on and interrupts off. `RDI` has the
//! address of its boot information and `RSI` its processor's number, 0 (`hermit_entry::Entry`).

use std::sync::OnceLock;

use aerostat_link::message::CpuidLeaf;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use super::boot::DESCRIPTORS_LIMIT;
use super::cpuid;
use super::layout::{BOOT_INFO, GDT, PAGE_TABLES, STACK_TOP};
use super::machine::{KvmError, failed, open};

/// Control register bits (Intel SDM volume 3, 2.5).
mod control {
    pub(super) const CR0_PE_MP_ET_NE_WP_AM_PG: u64 = 0x8005_0033;
    pub(super) const CR4_PAE: u64 = 1 << 5;
    pub(super) const CR4_PGE: u64 = 1 << 7;
    pub(super) const CR4_OSFXSR: u64 = 1 << 9;
    pub(super) const CR4_OSXMMEXCPT: u64 = 1 << 10;
    pub(super) const CR4_FSGSBASE: u64 = 1 << 16;
    pub(super) const EFER_SCE: u64 = 1 << 0;
    pub(super) const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;
    pub(super) const EFER_NXE: u64 = 1 << 11;
}

/// Selectors of the first descriptor table.
const CODE: u16 = 0x08;
const DATA: u16 = 0x10;

/// Gives `vcpu` the features of `cpuid` and sets it to `entry`.
pub(super) fn set_up(vcpu: &VcpuFd, cpuid: &CpuId, entry: u64) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_cpuid2(cpuid)?;

    let mut special = vcpu.get_sregs()?;
    special.cs = kvm_segment { selector: CODE, type_: 11, l: 1, ..flat() };
    let data = kvm_segment { selector: DATA, type_: 3, db: 1, ..flat() };
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.gdt.base = GDT.0;
    special.gdt.limit = DESCRIPTORS_LIMIT;
    special.cr0 = control::CR0_PE_MP_ET_NE_WP_AM_PG;
    special.cr3 = PAGE_TABLES[0].0;
    special.cr4 = cr4(cpuid);
    special.efer = efer(cpuid);
    vcpu.set_sregs(&special)?;

    vcpu.set_regs(&kvm_regs {
        rip: entry,
        // A function begins eight bytes below a 16-byte boundary, as after a call.
        rsp: STACK_TOP.0 - 8,
        rdi: BOOT_INFO.0,
        rsi: 0,
        rflags: 2,
        ..kvm_regs::default()
    })
}

/// Returns the features of a guest's processor on this host, which `set_up` takes.
///
/// # Errors
/// Says what to do where there is no KVM.
pub fn features() -> Result<&'static [CpuidLeaf], KvmError> {
    static FEATURES: OnceLock<Vec<CpuidLeaf>> = OnceLock::new();
    if let Some(features) = FEATURES.get() {
        return Ok(features);
    }
    let host = open()?.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("list the processor's features"))?;
    let guest = || cpuid::guest_entries(host.as_slice()).iter().map(leaf).collect();
    Ok(FEATURES.get_or_init(guest))
}

fn leaf(entry: &kvm_cpuid_entry2) -> CpuidLeaf {
    [entry.function, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx]
}

/// Returns the features as KVM takes them; `None` for more than it does.
pub(super) fn decode(features: &[CpuidLeaf]) -> Option<CpuId> {
    let entry = |&[function, index, flags, eax, ebx, ecx, edx]: &CpuidLeaf| kvm_cpuid_entry2 {
        function,
        index,
        flags,
        eax,
        ebx,
        ecx,
        edx,
        ..kvm_cpuid_entry2::default()
    };
    CpuId::from_entries(&features.iter().map(entry).collect::<Vec<_>>()).ok()
}

fn flat() -> kvm_segment {
    kvm_segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..kvm_segment::default() }
}

fn cr4(cpuid: &CpuId) -> u64 {
    let mut cr4 = control::CR4_PAE | control::CR4_OSFXSR | control::CR4_OSXMMEXCPT;
    if has(cpuid, 1, |leaf| leaf.edx, 13) {
        cr4 |= control::CR4_PGE;
    }
    if has(cpuid, 7, |leaf| leaf.ebx, 0) {
        cr4 |= control::CR4_FSGSBASE;
    }
    cr4
}

fn efer(cpuid: &CpuId) -> u64 {
    let mut efer = control::EFER_LME_LMA;
    if has(cpuid, 0x8000_0001, |leaf| leaf.edx, 20) {
        efer |= control::EFER_NXE;
    }
    if has(cpuid, 0x8000_0001, |leaf| leaf.edx, 11) {
        efer |= control::EFER_SCE;
    }
    efer
}

/// Returns whether a bit of a CPUID leaf's first subleaf is set.
fn has(cpuid: &CpuId, leaf: u32, register: fn(&kvm_cpuid_entry2) -> u32, bit: u32) -> bool {
    cpuid.as_slice().iter().any(|entry| entry.function == leaf && entry.index == 0 && register(entry) >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::{decode, leaf};
    use kvm_bindings::kvm_cpuid_entry2;

    #[test]
    fn features_arrive_as_they_were_listed() {
        let entry = kvm_cpuid_entry2 {
            function: 1,
            index: 2,
            flags: 3,
            eax: 4,
            ebx: 5,
            ecx: 6,
            edx: 7,
            ..kvm_cpuid_entry2::default()
        };
        assert_eq!(decode(&[leaf(&entry)]).unwrap().as_slice(), [entry]);
        assert_eq!(decode(&vec![leaf(&entry); 1000]), None);
    }
}
