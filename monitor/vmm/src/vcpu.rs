//! The virtual processor's loop: run the guest, find out why it stopped, act, repeat.
//!
//! The balloon port passes its arguments in registers. KVM shares them in the vCPU's `kvm_run` page
//! (`KVM_CAP_SYNC_REGS`), which saves two system calls: of the 35 us that a call from ring 3 took
//! with them on a KVM without hardware virtualization, 25 are left. HLT never gets here: the
//! in-kernel interrupt controller handles it.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aerostat_abi::boot::{BootMark, MARK_PORT};
use aerostat_abi::exit::{EXIT_PORT, GuestExit};
use aerostat_abi::port::{self, Registers};
use aerostat_abi::registers::BootStage;
use aerostat_abi::units::FRAME_BYTES;
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd};
use rustix::event::{Timespec, poll};
use rustix::io::Errno;

use super::balloon::{Balloon, BalloonHost};
use super::console::{self, Console};
use super::fault;
use super::inspection::Inspection;
use super::layout::GuestAddress;
use super::lock::lock;
use super::memory::GuestMemory;
use super::paging::Paging;
use super::pause::Gate;
use super::shared_registers::SharedRegisters;
use super::throttle::Throttle;
use super::virtio::Bus;
use aerostat_link::clock::{Moment, monotonic_ns};
use aerostat_link::message::{Ending, Reason};

/// All that the guest can access besides memory and the interrupt controller.
#[derive(Debug)]
pub(super) struct Devices<H> {
    /// The serial line, which the main thread drains too.
    pub(super) console: Arc<Mutex<Console>>,
    /// The balloon port, whose device the main thread uses too.
    pub(super) balloon: Arc<Mutex<Balloon<H>>>,
    /// The disks.
    pub(super) virtio: Bus,
    /// Records the boot marks.
    pub(super) registers: Arc<SharedRegisters>,
    /// Delays a guest that calls the balloon port too often.
    pub(super) throttle: Throttle,
    /// The guest's accesses that had no effect.
    pub(super) ignored: Ignored,
    /// Answers requests for where the vCPU is.
    pub(super) inspection: Arc<Inspection>,
    pub(super) memory: Arc<GuestMemory>,
    /// `None` where the guest can't be paged.
    pub(super) paging: Option<Arc<Paging>>,
}

/// Counts of accesses that nothing answers, or that are malformed. Reads return all ones.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    /// Port accesses.
    pub(super) ports: u64,
    /// Accesses to guest-physical addresses without memory.
    pub(super) addresses: u64,
}

/// What the loop does after an exit.
enum Next {
    Run,
    End(Reason),
}

/// What the main thread wants of the processor. A signal has to follow each change, to get the
/// processor out of the guest.
#[derive(Debug, Default)]
pub(super) struct Controls {
    /// The guest is to end.
    pub(super) stop: Arc<AtomicBool>,
    /// Where a paused guest stands.
    pub(super) gate: Gate,
}

/// Runs the guest until it ends or is to end.
pub(super) fn run<H: BalloonHost + Debug>(vcpu: &mut VcpuFd, devices: &mut Devices<H>, controls: &Controls) -> Ending {
    let reason = loop {
        if controls.stop.load(Ordering::Acquire) {
            break Reason::Stopped;
        }
        devices.inspection.serve(vcpu, &devices.memory, &devices.ignored);
        if !controls.gate.pass() {
            continue;
        }
        if let Next::End(reason) = step(vcpu, devices) {
            break reason;
        }
    };
    let lines = fault::log_lines(lock(&devices.console).finish(Moment::now()));
    let complaints = devices.virtio.complaints();
    let details = match &reason {
        Reason::Stopped => Vec::new(),
        Reason::Exited(code) if *code == GuestExit::Success.encode() => Vec::new(),
        Reason::Exited(_) => complaints.chain(lines).collect(),
        _ => fault::describe(vcpu, &devices.ignored).into_iter().chain(complaints).chain(lines).collect(),
    };
    Ending { reason, details }
}

/// Lets the guest run until its next exit, and handles that.
fn step<H: BalloonHost>(vcpu: &mut VcpuFd, devices: &mut Devices<H>) -> Next {
    let exit = match vcpu.run() {
        Ok(exit) => exit,
        Err(error) => {
            return match Errno::from_raw_os_error(error.errno()) {
                Errno::INTR | Errno::AGAIN => Next::Run,
                _ => Next::End(Reason::Failed(format!("KVM can't run the guest: {error}"))),
            };
        }
    };
    match exit {
        VcpuExit::IoOut(port::PORT, bytes) => {
            let written = bytes.try_into().ok().map(u32::from_le_bytes);
            balloon_call(vcpu, devices, written);
            Next::Run
        }
        VcpuExit::IoOut(port, bytes) if console::PORTS.contains(&port) => {
            lock(&devices.console).write(port, bytes, Moment::now());
            Next::Run
        }
        VcpuExit::IoIn(port, bytes) if console::PORTS.contains(&port) => {
            lock(&devices.console).read(port, bytes);
            Next::Run
        }
        VcpuExit::IoOut(MARK_PORT, &[byte]) => {
            devices.mark(byte);
            Next::Run
        }
        VcpuExit::IoOut(EXIT_PORT, bytes) => Next::End(exit_reason(bytes)),
        VcpuExit::IoOut(..) => {
            devices.ignored.ports += 1;
            Next::Run
        }
        VcpuExit::IoIn(_, bytes) => {
            bytes.fill(0xff);
            devices.ignored.ports += 1;
            Next::Run
        }
        VcpuExit::MmioRead(address, bytes) => {
            if devices.virtio.read(address, bytes).is_none() {
                bytes.fill(0xff);
                devices.ignored.addresses += 1;
            }
            Next::Run
        }
        VcpuExit::MmioWrite(address, bytes) => {
            if devices.virtio.write(address, bytes).is_none() {
                devices.ignored.addresses += 1;
            }
            Next::Run
        }
        VcpuExit::Intr => Next::Run,
        VcpuExit::Shutdown => Next::End(Reason::Fault("triple fault".to_owned())),
        VcpuExit::FailEntry(reason, _) => {
            Next::End(Reason::Fault(format!("the processor refused its state (reason {reason:#x})")))
        }
        VcpuExit::InternalError => Next::End(Reason::Fault(fault::internal_error(vcpu))),
        other => Next::End(Reason::Fault(format!("unexpected exit {other:?}"))),
    }
}

/// Handles an access to the balloon port. A call is one 32-bit write of `EAX`; anything else is not
/// a call. KVM may hand over a string of words (`rep outsd`) as single writes: `written` tells them
/// apart.
fn balloon_call<H: BalloonHost>(vcpu: &mut VcpuFd, devices: &mut Devices<H>, written: Option<u32>) {
    // SAFETY: the exit was an I/O exit, so `io` is what the kernel filled in.
    let access = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.io };
    let shared = &mut vcpu.sync_regs_mut().regs;
    let is_eax = written.is_some_and(|written| u64::from(written) == shared.rax & u64::from(u32::MAX));
    if (access.size, access.count) != (4, 1) || !is_eax {
        devices.ignored.ports += 1;
        return;
    }
    devices.hold_back();
    let call = Registers { rax: shared.rax, rdi: shared.rdi, rsi: shared.rsi, r8: shared.r8 };
    devices.touch(call.rdi);
    let reply = lock(&devices.balloon).call(call, monotonic_ns());
    (shared.rax, shared.rdi, shared.rsi, shared.r8) = (reply.rax, reply.rdi, reply.rsi, reply.r8);
    vcpu.set_sync_dirty_reg(SyncReg::Register);
}

impl<H: BalloonHost> Devices<H> {
    /// Makes the guest wait, if it calls too often. The signal that ends the loop ends the wait
    /// too.
    fn hold_back(&mut self) {
        if let Some(wait) = self.throttle.call(Moment::now()) {
            self.registers.page().set_throttled(self.throttle.calls(), self.throttle.waited_ns());
            let _ = poll(&mut [], Timespec::try_from(wait).ok().as_ref());
        }
    }

    /// Touches the page that a call names, as host paging may have moved it out. Otherwise the
    /// other threads that use the balloon would wait with this one until it is back.
    fn touch(&self, address: u64) {
        if !self.paging.as_ref().is_some_and(|paging| paging.is_in_use()) {
            return;
        }
        let word = GuestAddress(address - address % FRAME_BYTES);
        // Where it is no memory, the call finds out.
        let _ = self.memory.read_words(word, &mut [0]);
    }

    fn mark(&mut self, byte: u8) {
        let stage = match BootMark::decode(byte) {
            Some(BootMark::Kernel) => BootStage::Kernel,
            Some(BootMark::Main) => BootStage::Main,
            None => {
                self.ignored.ports += 1;
                return;
            }
        };
        self.registers.page().mark_boot(stage, monotonic_ns());
        if stage == BootStage::Main {
            lock(&self.balloon).begin_growth();
        }
    }
}

/// Returns what a write to the exit port means.
fn exit_reason(bytes: &[u8]) -> Reason {
    let mut code = [0; 4];
    for (place, byte) in code.iter_mut().zip(bytes) {
        *place = *byte;
    }
    let code = u32::from_le_bytes(code);
    match GuestExit::decode(code) {
        Some(exit) => Reason::Exited(exit.encode()),
        None => Reason::Fault(format!("it left with the unknown exit code {code:#x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::exit_reason;
    use aerostat_link::message::Reason;

    #[test]
    fn exit_codes_of_any_width_are_decoded() {
        assert_eq!(exit_reason(&[0x10]), Reason::Exited(0x10));
        assert_eq!(exit_reason(&[0x12, 0, 0, 0]), Reason::Exited(0x12));
        assert!(matches!(exit_reason(&[0x10, 1]), Reason::Fault(_)));
        assert!(matches!(exit_reason(&[]), Reason::Fault(_)));
    }
}
