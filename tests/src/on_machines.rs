//! Tests that run on several machines.

/// Makes each function named, of the invoking module, a test under each machine: `kvm::NAME` and
/// `qemu::NAME`.
#[macro_export]
macro_rules! on_both_machines {
    ($($name:ident),* $(,)?) => {
        $crate::on_machine!(kvm, Kvm, $($name),*);
        $crate::on_machine!(qemu, Qemu, $($name),*);
    };
}

/// The same under one machine, in a module of this name.
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
