//! The virtual machine: KVM's objects, the memory slots, and the doorbell.
//!
//! The interrupt controller is the kernel's. With it a port access takes 2.7 us on a KVM without hardware virtualization, without it ten
//! times that; and a doorbell rung by the supervisor reaches the guest without waking our process.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_IRQ_ROUTING_MSI, KVM_MAX_CPUID_ENTRIES, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_msi, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuFd, VmFd};
use rustix::io::Errno;
use thiserror::Error;
use vmm_sys_util::eventfd::EventFd;

use super::cpu;
use super::memory::GuestMemory;

/// Three pages in the device hole that Intel's virtualization needs for itself.
const TSS_ADDRESS: usize = 0xfffb_d000;
/// The doorbell's interrupt line: the first one that belongs to no pin of the interrupt controller.
const DOORBELL_LINE: u32 = 24;
/// A message to the local APIC of processor 0 (Intel SDM volume 3, 12.11.1).
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

/// Why no guest can be run.
#[derive(Debug, Error)]
pub enum KvmError {
    /// The device is missing.
    #[error(
        "there is no /dev/kvm: enable virtualization in the firmware, or load kvm_intel, kvm_amd or (on a virtual host) kvm_pvm"
    )]
    Missing,
    /// The device is there, but not for us.
    #[error("/dev/kvm may not be opened: run as root, or add this user to the group that owns it (often `kvm`)")]
    NotPermitted,
    /// It is another KVM than any known.
    #[error("/dev/kvm speaks version {0}, this monitor {KVM_API_VERSION}")]
    WrongVersion(i32),
    /// It lacks what this monitor is built on.
    #[error("this host's KVM can't {0}: use Linux 4.17 or later")]
    Lacks(&'static str),
    /// A call failed.
    #[error("KVM can't {what}: {cause}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Whether guests can run on this host, as far as that is known before one is started.
///
/// # Errors
/// A sentence that says what to do.
pub fn check_kvm() -> Result<(), KvmError> {
    open().map(drop)
}

/// A virtual machine with one vCPU.
#[derive(Debug)]
pub(super) struct Machine {
    vm: Arc<VmFd>,
    vcpu: VcpuFd,
    cpuid: CpuId,
}

impl Machine {
    /// A machine without memory.
    pub(super) fn new() -> Result<Self, KvmError> {
        let kvm = open()?;
        let vm = kvm.create_vm().map_err(failed("create a virtual machine"))?;
        vm.set_tss_address(TSS_ADDRESS).map_err(failed("place the task state segment"))?;
        vm.create_irq_chip().map_err(failed("create the interrupt controller"))?;
        let mut vcpu = vm.create_vcpu(0).map_err(failed("create a processor"))?;
        let host = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("list the processor's features"))?;
        vcpu.set_sync_valid_reg(SyncReg::Register);
        Ok(Self { vm: Arc::new(vm), vcpu, cpuid: cpu::guest_features(host) })
    }

    /// Puts `memory` into the machine. It stays mapped as long as the machine runs: the caller drops it later.
    pub(super) fn attach(&self, memory: &GuestMemory) -> Result<(), KvmError> {
        for (slot, region) in (0..).zip(memory.layout().regions()) {
            let offset = aerostat_abi::units::to_usize(region.offset);
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start.0,
                memory_size: region.bytes,
                userspace_addr: memory.host_address(offset).addr() as u64,
            };
            // SAFETY: the region lies in the guest's mapping and overlaps no other; the caller keeps the mapping.
            unsafe { self.vm.set_user_memory_region(region) }.map_err(failed("attach the guest's memory"))?;
        }
        Ok(())
    }

    /// Rate of the guest's time stamp counter, where KVM tells.
    pub(super) fn tsc_hz(&self) -> Option<u64> {
        self.vcpu.get_tsc_khz().ok().map(|khz| u64::from(khz) * 1000)
    }

    /// The doorbell that rings whenever `bell`, an eventfd, is written.
    pub(super) fn doorbell(&self, bell: OwnedFd) -> Doorbell {
        // SAFETY: the descriptor is open and its ownership moves.
        let bell = unsafe { EventFd::from_raw_fd(bell.into_raw_fd()) };
        Doorbell { vm: Arc::clone(&self.vm), bell }
    }

    /// The machine's processor, about to execute `entry`.
    pub(super) fn into_vcpu(self, entry: u64) -> Result<VcpuFd, KvmError> {
        cpu::set_up(&self.vcpu, &self.cpuid, entry).map_err(failed("set the processor's registers"))?;
        Ok(self.vcpu)
    }
}

/// The balloon interrupt.
#[derive(Debug)]
pub(super) struct Doorbell {
    vm: Arc<VmFd>,
    bell: EventFd,
}

impl Doorbell {
    /// From now on a ring raises the guest's interrupt `vector`; a ring that came before does so at once.
    ///
    /// The routing table is replaced as a whole, which unroutes the pins of the interrupt controller: nothing drives them.
    pub(super) fn connect(&self, vector: u8) -> Result<(), KvmError> {
        let mut route = kvm_irq_routing_entry { gsi: DOORBELL_LINE, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
        route.u.msi = kvm_irq_routing_msi { address_lo: MESSAGE_ADDRESS, data: vector.into(), ..Default::default() };
        let table = KvmIrqRouting::from_entries(&[route]).map_err(|_| KvmError::Lacks("route one interrupt"))?;
        self.vm.set_gsi_routing(&table).map_err(failed("route the balloon interrupt"))?;
        self.vm.register_irqfd(&self.bell, DOORBELL_LINE).map_err(failed("connect the doorbell"))
    }
}

fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match Errno::from_raw_os_error(error.errno()) {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => KvmError::Missing,
        Errno::ACCESS | Errno::PERM => KvmError::NotPermitted,
        _ => failed("be opened")(error),
    })?;
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(KVM_API_VERSION) {
        return Err(KvmError::WrongVersion(version));
    }
    if !kvm.check_extension(Cap::SyncRegs) {
        return Err(KvmError::Lacks("share registers"));
    }
    if !kvm.check_extension(Cap::Irqfd) {
        return Err(KvmError::Lacks("take interrupts from an eventfd"));
    }
    Ok(kvm)
}

fn failed(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Failed { what, cause: error.into() }
}
