//! A queue of the balloon device: chains of one buffer each, which the device only reads or only
//! writes.
//!
//! What the device says is checked before it is used: a buffer that it does not have is an error of
//! the device and never causes a panic here.
#![allow(unsafe_code, reason = "memory shared with a device")]

use core::sync::atomic::{Ordering, fence};

use aerostat_abi::units::to_usize;
use virtio_drivers::Error;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;

use crate::drivers::virtio::hal::KernelHal;

/// The error of a device that breaks the protocol: nothing that it says can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Whether the device should interrupt for buffers that it is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupts {
    Wanted,
    Unwanted,
}

/// How the device accesses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The device reads it.
    Read,
    /// The device may write it; memory that the guest reports as free is passed so.
    Written,
}

/// A buffer: bytes at an address, which is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    pub(super) address: u64,
    pub(super) bytes: usize,
    pub(super) access: Access,
}

impl Buffer {
    /// Returns the buffer as the queue takes it, which uses only address and length.
    ///
    /// # Safety
    /// The memory is valid and no code accesses it: neither through this slice nor otherwise.
    unsafe fn memory<'a>(self) -> &'a mut [u8] {
        let pointer = core::ptr::with_exposed_provenance_mut(to_usize(self.address));
        // SAFETY: the caller's duty; the address is not zero.
        unsafe { core::slice::from_raw_parts_mut(pointer, self.bytes) }
    }
}

/// A queue with room for `SIZE` buffers.
#[derive(Debug)]
pub(super) struct Queue<const SIZE: usize> {
    number: u16,
    queue: VirtQueue<KernelHal, SIZE>,
    /// The buffers that the device has, by the queue's token for each.
    in_flight: [Option<Buffer>; SIZE],
}

impl<const SIZE: usize> Queue<SIZE> {
    /// Sets up the queue of this number. The device raises no interrupts until it is told to.
    ///
    /// # Errors
    /// When there is no memory, or the device has no such queue.
    pub(super) fn new(transport: &mut impl Transport, number: u16) -> Result<Self, Error> {
        let mut queue = VirtQueue::new(transport, number, false, false)?;
        queue.set_dev_notify(false);
        Ok(Self { number, queue, in_flight: [None; SIZE] })
    }

    /// Adds a buffer. Returns whether there was room for it.
    ///
    /// # Safety
    /// Until [`Self::reap`] returns the buffer, or the device was reset, its memory is the
    /// device's: it is valid, and no code accesses it.
    pub(super) unsafe fn add(&mut self, buffer: Buffer) -> bool {
        // SAFETY: the caller's duty.
        let memory = unsafe { buffer.memory() };
        let added = match buffer.access {
            // SAFETY: the caller's duty.
            Access::Read => unsafe { self.queue.add(&[memory], &mut []) },
            // SAFETY: as above.
            Access::Written => unsafe { self.queue.add(&[], &mut [memory]) },
        };
        let Ok(token) = added else { return false };
        self.in_flight[usize::from(token)] = Some(buffer);
        true
    }

    /// Tells the device about buffers that were added, unless it does not want to know.
    pub(super) fn notify(&mut self, transport: &mut impl Transport) {
        // The device checks for buffers after it has asked to be notified: its flag must not be
        // read before the buffers are visible.
        fence(Ordering::SeqCst);
        if self.queue.should_notify() {
            transport.notify(self.number);
        }
    }

    /// Returns a buffer that the device is done with.
    ///
    /// # Errors
    /// [`Broken`] when the device names a buffer that it does not have.
    pub(super) fn reap(&mut self) -> Result<Option<Buffer>, Broken> {
        let Some(token) = self.queue.peek_used() else { return Ok(None) };
        let buffer = self.in_flight.get_mut(usize::from(token)).and_then(Option::take).ok_or(Broken)?;
        // SAFETY: the memory is still the device's.
        let memory = unsafe { buffer.memory() };
        let popped = match buffer.access {
            // SAFETY: this is the buffer that was added for the token.
            Access::Read => unsafe { self.queue.pop_used(token, &[memory], &mut []) },
            // SAFETY: as above.
            Access::Written => unsafe { self.queue.pop_used(token, &[], &mut [memory]) },
        };
        // Which length the device claims to have written does not matter: nothing reads the buffer.
        popped.map(|_| Some(buffer)).map_err(|_| Broken)
    }

    /// Returns whether the device has a buffer.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_flight.iter().any(Option::is_some)
    }

    /// Tells the device whether to interrupt. It may be done with some buffers already: the caller
    /// reaps afterwards.
    pub(super) fn let_interrupt(&mut self, interrupts: Interrupts) {
        self.queue.set_dev_notify(interrupts == Interrupts::Wanted);
        fence(Ordering::SeqCst);
    }
}
