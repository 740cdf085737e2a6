//! The local APIC (Intel SDM vol. 3, chapter 10): its one-shot timer, and the receipt of messages.
//!
//! Its registers are in memory, and ring 3 accesses them. The timer counts at 1 GHz under KVM and
//! QEMU alike.
#![allow(unsafe_code, reason = "memory-mapped registers")]

use crate::arch::x86_64::interrupt::InterruptLine;
use crate::arch::x86_64::ring0::SPURIOUS_VECTOR;
use crate::layout::LOCAL_APIC;

/// Counts per second of the timer with a divisor of one: what KVM and QEMU emulate.
pub(crate) const TIMER_HZ: u64 = 1_000_000_000;

const SPURIOUS: u64 = 0xf0;
const TIMER_LVT: u64 = 0x320;
const TIMER_INITIAL: u64 = 0x380;
const TIMER_CURRENT: u64 = 0x390;
const TIMER_DIVIDE: u64 = 0x3e0;

const ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_ONE: u32 = 0xb;

/// Enables the APIC, with its timer idle.
pub(crate) fn start() {
    write(SPURIOUS, ENABLE | u32::from(SPURIOUS_VECTOR));
    write(TIMER_DIVIDE, DIVIDE_BY_ONE);
    write(TIMER_LVT, u32::from(InterruptLine::TIMER.vector()));
}

/// Disables the APIC: no interrupt arrives any more.
pub(crate) fn stop() {
    write(SPURIOUS, u32::from(SPURIOUS_VECTOR));
}

/// Arms the timer to interrupt once, `nanoseconds` from now, or four seconds if that is less; the
/// caller then arms it again.
pub(crate) fn arm_timer(nanoseconds: u64) {
    write(TIMER_INITIAL, u32::try_from(nanoseconds.max(1)).unwrap_or(u32::MAX));
}

/// Starts the timer as a stopwatch, which raises no interrupt: to measure another clock against it.
pub(crate) fn start_stopwatch() {
    write(TIMER_LVT, MASKED | u32::from(InterruptLine::TIMER.vector()));
    write(TIMER_INITIAL, u32::MAX);
}

/// Returns the counts since [`start_stopwatch`].
pub(crate) fn stopwatch() -> u64 {
    u64::from(u32::MAX - read(TIMER_CURRENT))
}

/// Stops the stopwatch, so that the timer can be armed again.
pub(crate) fn stop_stopwatch() {
    write(TIMER_INITIAL, 0);
    write(TIMER_LVT, u32::from(InterruptLine::TIMER.vector()));
}

fn register(offset: u64) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut(aerostat_abi::units::to_usize(LOCAL_APIC + offset))
}

fn write(offset: u64, value: u32) {
    // SAFETY: the boot page tables map the APIC's registers, uncached; the offsets above are
    // registers.
    unsafe { register(offset).write_volatile(value) };
}

fn read(offset: u64) -> u32 {
    // SAFETY: as in `write`; reading these registers has no side effect.
    unsafe { register(offset).read_volatile() }
}
