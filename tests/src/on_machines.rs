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
