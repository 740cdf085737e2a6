//! The start list: the kernel's architecture, from the first Rust instruction to the application's
//! `main`, in the order in which its parts start.
#![allow(unsafe_code, reason = "called by the boot code, and reads what the loader left")]

use aerostat_abi::boot::BootMark;
use aerostat_abi::units::FrameCount;

use crate::arch::x86_64::boot::{self, MachineError, Origin};
use crate::arch::x86_64::trap::{self, ExceptionHandlers};
use crate::arch::x86_64::{apic, image, machine_ports, ring0, serial};
use crate::command_line::Options;
use crate::drivers::block::swap;
use crate::mm::OutOfMemory;
use crate::mm::block::Contents;
use crate::mm::page_table::Image;
use crate::mm::reclaim;
use crate::mm::reclaim::start::Swap;
use crate::mm::start::InstalledMemory;
use crate::mm::trap::PageFaults;
use crate::report::{self, ExceptionReports};
use crate::{app, background, balloon, drivers, logger, mm, thread, time};

/// Starts the kernel and the application. The boot code calls it in ring 3, with upcalls masked, on
/// the boot stack, with the loader's information and protocol.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(information: u64, origin: Origin) -> ! {
    machine_ports::mark(BootMark::Kernel);
    if origin == Origin::Hermit {
        machine_ports::leave_outcome_to_monitor();
    }
    trap::set_handlers(ExceptionHandlers { page_faults: &PageFaults, reports: &ExceptionReports });
    ring0::install(); // from here on, exceptions are reported
    // SAFETY: the boot code passes on what the loader left; the kernel has written to nothing but
    // its image.
    let machine = unsafe { boot::read_machine(information, origin) }.unwrap_or_else(|error| report::bad_machine(error));
    if let Some(port) = machine.serial_port {
        serial::use_port(port);
    }
    if origin == Origin::Pvh {
        serial::detect();
    }
    logger::start(machine.command_line.log_level());
    let options = machine.command_line.options().unwrap_or_else(|error| report::bad_machine(error));
    machine_ports::mask_legacy_interrupts();
    apic::start();
    time::start(machine.tsc_hz);
    let memory = InstalledMemory {
        ranges: &machine.memory,
        untouched: if machine.is_memory_zeroed { Contents::Zero } else { Contents::Unknown },
        image: Image { code_end: image::code().end, constants_end: image::constants().end, end: image::range().end },
    };
    let started = mm::start::start(&memory, balloon::words);
    let mut metadata = started.unwrap_or_else(|OutOfMemory| report::bad_machine(MachineError::TooSmall));
    log::debug!("memory: {} in {} ranges", machine.memory.total(), machine.memory.len());
    let others = drivers::start(&machine.devices);
    thread::start(); // this becomes the idle thread
    ring0::enable_interrupts();
    let hosts = balloon::Hosts { has_port: machine.has_balloon_port, virtio: others.balloon };
    balloon::start(&options, hosts, &mut metadata);
    mm::identity::reach_free_frames();
    start_swap(&options);
    background::start().unwrap_or_else(|_| report::bad_machine(MachineError::TooSmall));
    app::start(machine.command_line);
    thread::idle()
}

/// Starts reclaim of anonymous memory if the guest has swap.
fn start_swap(options: &Options) {
    let (policy, compressed, disk) = (options.reclaim_policy, options.compressed_swap, swap::disk());
    if compressed > FrameCount::ZERO || disk.is_some() {
        reclaim::start::start(Swap { policy, compressed, disk });
    }
}
