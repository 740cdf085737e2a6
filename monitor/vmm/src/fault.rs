//! What helps to understand a guest that ended badly: its registers and the end of its log.

use kvm_ioctls::VcpuFd;

use super::vcpu::Ignored;

/// Formats the processor's state, a few registers a line.
pub(super) fn describe(vcpu: &VcpuFd, ignored: &Ignored) -> Vec<String> {
    let mut lines = Vec::new();
    if let Ok(r) = vcpu.get_regs() {
        lines.push(format!("RIP {:016x}  RSP {:016x}  RBP {:016x}  RFLAGS {:08x}", r.rip, r.rsp, r.rbp, r.rflags));
        lines.push(format!("RAX {:016x}  RBX {:016x}  RCX {:016x}  RDX {:016x}", r.rax, r.rbx, r.rcx, r.rdx));
        lines.push(format!("RSI {:016x}  RDI {:016x}  R8  {:016x}  R9  {:016x}", r.rsi, r.rdi, r.r8, r.r9));
        lines.push(format!("R10 {:016x}  R11 {:016x}  R12 {:016x}  R13 {:016x}", r.r10, r.r11, r.r12, r.r13));
        lines.push(format!("R14 {:016x}  R15 {:016x}", r.r14, r.r15));
    }
    if let Ok(s) = vcpu.get_sregs() {
        lines.push(format!("CR0 {:08x}  CR2 {:016x}  CR3 {:016x}  CR4 {:08x}", s.cr0, s.cr2, s.cr3, s.cr4));
        lines.push(format!("CS {:04x}  SS {:04x}  EFER {:04x}", s.cs.selector, s.ss.selector, s.efer));
        lines.push(format!("GDT {:016x}+{:x}  IDT {:016x}+{:x}", s.gdt.base, s.gdt.limit, s.idt.base, s.idt.limit));
    }
    if ignored.ports + ignored.addresses > 0 {
        lines.push(format!("ignored: {} port and {} memory accesses", ignored.ports, ignored.addresses));
    }
    lines
}

/// Formats the guest's last lines, marked as the guest's text.
pub(super) fn log_lines(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| format!("| {line}")).collect()
}

/// Returns why KVM gave up. Called after an exit that reports an internal error.
pub(super) fn internal_error(vcpu: &mut VcpuFd) -> String {
    // SAFETY: the exit was an internal error, so `internal` is what the kernel filled in.
    let error = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal };
    match error.suberror {
        kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => "KVM can't emulate an instruction".to_owned(),
        other => format!("KVM gave up (internal error {other})"),
    }
}
