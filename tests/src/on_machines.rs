//! Macros for tests that run on several machines.

/// Makes two tests of each named function of the invoking module: `kvm::NAME` and `qemu::NAME`. The
/// function takes the machine as its argument.
#[macro_export]
macro_rules! on_both_machines {
    ($($name:ident),* $(,)?) => {
        $crate::on_machine!(kvm, Kvm, $($name),*);
        $crate::on_machine!(qemu, Qemu, $($name),*);
    };
}

/// Makes tests of each named function of the invoking module on all machines of QEMU's. The
/// function takes the machine as its argument.
#[macro_export]
macro_rules! on_qemu_machines {
    ($($name:ident),* $(,)?) => {
        $crate::on_machine!(qemu, Qemu, $($name),*);
        $crate::on_machine!(qemu_microvm_acpi, MicrovmAcpi, $($name),*);
        $crate::on_machine!(qemu_microvm_pci, MicrovmPci, $($name),*);
        $crate::on_machine!(qemu_q35, Q35, $($name),*);
        $crate::on_machine!(qemu_pc, Pc, $($name),*);
        $crate::on_machine!(qemu_pc_pins, PcPins, $($name),*);
    };
}

/// Makes tests of functions on one machine, in a module of this name.
#[macro_export]
macro_rules! on_machine {
    ($module:ident, $machine:ident, $($name:ident),*) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    super::$name($crate::Machine::$machine);
                }
            )*
        }
    };
}
