//! What a process publishes in the register page, and does to the page.

use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use aerostat_abi::registers::{Facts, RegisterPage};
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::{FRAME_SIZE, FrameCount};
use anyhow::{Result, bail};
use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_setfl, ftruncate};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// How long it reports a high demand, and then a low one. The scheduler lowers a target sooner.
const DEMAND_LASTS: Duration = Duration::from_millis(400);

pub(crate) fn map(file: &OwnedFd) -> Result<&'static RegisterPage> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let place = unsafe { mmap(ptr::null_mut(), FRAME_SIZE, access, MapFlags::SHARED, file, 0) }?;
    // SAFETY: the page is mapped for good, aligned and of its size; every bit pattern is valid for
    // atomics.
    Ok(unsafe { &*place.cast() })
}

/// Fills the doorbell, so that ringing it would block, and makes the supervisor ring it again and
/// again by a demand that rises and falls.
pub(crate) fn block(doorbell: &OwnedFd, page: &RegisterPage) -> Result<()> {
    fcntl_setfl(doorbell, OFlags::empty())?;
    // An eventfd's counter is full at this value; a socket takes it as bytes.
    let _ = rustix::io::write(doorbell, &(u64::MAX - 1).to_ne_bytes());
    let total = FrameCount::from_mib(64);
    for used in [FrameCount::from_mib(56), FrameCount::from_mib(8)].into_iter().cycle() {
        publish_use(page, total, used);
        page.acknowledge(page.target_epoch());
        thread::sleep(DEMAND_LASTS);
    }
    Ok(())
}

/// Claims to need all of `total` for ever, and uses nothing.
pub(crate) fn demand(page: &RegisterPage, total: FrameCount) -> ! {
    loop {
        publish_use(page, total, total);
        page.acknowledge(page.target_epoch());
        page.set_balloon_facts(&Facts { size: page.target(), acknowledged: page.target_epoch(), ..Facts::default() });
        thread::sleep(Duration::from_millis(1));
    }
}

fn publish_use(page: &RegisterPage, total: FrameCount, used: FrameCount) {
    let free = total.saturating_sub(used).bytes();
    let statistics = Statistics {
        total_memory_bytes: total.bytes(),
        free_memory_bytes: free,
        committable_bytes: free,
        ..Statistics::default()
    };
    page.set_statistics(&statistics.encode());
}

/// Writes a number to all of the page, again and again: absurd facts, versions that never settle,
/// and no magic number.
pub(crate) fn scribble(page: &'static RegisterPage) -> ! {
    // SAFETY: a register page is a page of 64-bit atomics, and it stays mapped.
    let words: &[AtomicU64] =
        unsafe { std::slice::from_raw_parts(ptr::from_ref(page).cast(), FRAME_SIZE / size_of::<u64>()) };
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    loop {
        for word in words {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.store(number, Ordering::Relaxed);
        }
    }
}

/// Tries to take the page away under the supervisor, whose next access would be a fault.
pub(crate) fn shrink(file: &OwnedFd) -> Result<()> {
    for length in [0, 1, 2 * FRAME_SIZE as u64] {
        if ftruncate(file, length).is_ok() {
            bail!("the page is not sealed: it took a length of {length}");
        }
    }
    Ok(())
}

/// Removes what is in the page, again and again. A hole reads as zeros, which takes a new page and
/// is no fault.
pub(crate) fn punch(file: &OwnedFd) -> Result<()> {
    loop {
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, FRAME_SIZE as u64)?;
    }
}
