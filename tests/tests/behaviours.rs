//! What a guest kernel does by itself, shown on Aerostat's own VMM and in QEMU: one tiny kernel and one test per behaviour.

use aerostat_abi::exit::GuestExit;
use aerostat_tests::{Guest, Machine, Plan};

/// Makes each function below a test under each machine: `kvm::NAME` and `qemu::NAME`.
macro_rules! on_both_machines {
    ($($name:ident),* $(,)?) => {
        on_machine!(kvm, Kvm, $($name),*);
        on_machine!(qemu, Qemu, $($name),*);
    };
}

macro_rules! on_machine {
    ($module:ident, $machine:ident, $($name:ident),*) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    super::$name(aerostat_tests::Machine::$machine);
                }
            )*
        }
    };
}

on_both_machines! {
    boot,
    discard,
    exception,
    heap_exhaustion,
    null_access,
    overcommit,
    page_fault,
    panic,
    preemption,
    pressure,
    protect,
    stack_overflow,
    timer,
    wild_access,
}

fn boot(machine: Machine) {
    const MIB: u64 = 96;
    let mut guest = Plan::test_guest("boot").memory_mib(MIB).boot(machine);
    let line = guest.wait_for_line("machine: ");
    let size = line.split("machine: ").nth(1).and_then(|rest| rest.strip_suffix(" MiB"));
    let size = size.and_then(|size| size.parse::<u64>().ok());
    // A PC's firmware area takes its part of the first mebibyte.
    guest.check(
        size.is_some_and(|size| (MIB - 1..=MIB).contains(&size)),
        &format!("a machine of {MIB} MiB says {line:?}"),
    );
    guest.expect_exit(GuestExit::Success);
}

fn discard(machine: Machine) {
    let mut guest = Plan::test_guest("discard").command_line("compressed_swap=128M").boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("discard: ok");
}

fn exception(machine: Machine) {
    let guest = ended("exception", machine, GuestExit::Exception);
    guest.expect_logged("invalid opcode");
    guest.expect_logged("backtrace:");
}

fn heap_exhaustion(machine: Machine) {
    ended("heap_exhaustion", machine, GuestExit::Success).expect_logged("heap exhaustion: ok");
}

fn null_access(machine: Machine) {
    ended("null_access", machine, GuestExit::Exception).expect_logged("page fault at 0x18");
}

fn overcommit(machine: Machine) {
    for policy in ["generations", "clock"] {
        let plan = Plan::test_guest("overcommit").command_line(&format!("reclaim={policy} compressed_swap=128M"));
        let mut guest = plan.boot(machine);
        guest.expect_exit(GuestExit::Success);
        guest.expect_logged("overcommit: ok");
    }
}

fn page_fault(machine: Machine) {
    ended("page_fault", machine, GuestExit::Success).expect_logged("page fault: ok");
}

fn panic(machine: Machine) {
    let guest = ended("panic", machine, GuestExit::Panic);
    guest.expect_logged("panicked");
    guest.expect_logged("backtrace:");
}

fn preemption(machine: Machine) {
    ended("preemption", machine, GuestExit::Success).expect_logged("preemption: ok");
}

fn pressure(machine: Machine) {
    let mut guest = Plan::test_guest("pressure").command_line("compressed_swap=128M").boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("pressure: ok");
}

fn protect(machine: Machine) {
    let mut guest = Plan::test_guest("protect").command_line("compressed_swap=128M").boot(machine);
    guest.expect_exit(GuestExit::Exception);
    guest.expect_logged("now to what must not be");
    guest.expect_logged("page fault at 0x41");
    guest.expect_logged("a write to the read-only region 0x41");
}

fn stack_overflow(machine: Machine) {
    let _ended = ended("stack_overflow", machine, GuestExit::StackOverflow);
}

fn timer(machine: Machine) {
    ended("timer", machine, GuestExit::Success).expect_logged("timer: ok");
}

fn wild_access(machine: Machine) {
    let guest = ended("wild_access", machine, GuestExit::Exception);
    guest.expect_logged("page fault");
    guest.expect_logged("0xdead0000");
    guest.expect_logged("no region is there");
}

/// Boots the test guest `name` and waits until it has exited with `exit`.
fn ended(name: &str, machine: Machine, exit: GuestExit) -> Guest {
    let mut guest = Plan::test_guest(name).boot(machine);
    guest.expect_exit(exit);
    guest
}
