//! A disk's queue, in the size that the device has room for. A queue's size is part of its type.

use allocator_api2::boxed::Box;
use virtio_drivers::Error;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;

use super::requests::MAX_FRAMES;
use crate::drivers::virtio::hal::KernelHal;
use crate::mm::KernelHeap;

/// Descriptors: for a few of the largest requests, or for all requests if they are small.
pub(super) const LARGE: usize = 256;
/// Descriptors for one of the largest requests: what some monitors have at most.
pub(super) const SMALL: usize = 128;
const _: () = assert!(SMALL >= MAX_FRAMES + 2, "the largest request fits into any queue");

/// The queue, in a box, as it has several kibibytes, and the boot stack is small.
#[derive(Debug)]
pub(super) enum Queue {
    Large(Box<VirtQueue<KernelHal, LARGE>, KernelHeap>),
    Small(Box<VirtQueue<KernelHal, SMALL>, KernelHeap>),
}

/// Evaluates an expression with the queue of either size.
macro_rules! with {
    ($self:expr, $queue:ident => $expression:expr) => {
        match $self {
            Self::Large($queue) => $expression,
            Self::Small($queue) => $expression,
        }
    };
}

impl Queue {
    /// Sets up the device's queue with this number.
    ///
    /// # Errors
    /// When there is no memory, or the device has no such queue, or has too small a one.
    pub(super) fn new(transport: &mut impl Transport, number: u16) -> Result<Self, Error> {
        if transport.max_queue_size(number) as usize >= LARGE {
            Ok(Self::Large(boxed(VirtQueue::new(transport, number, false, false)?)?))
        } else {
            Ok(Self::Small(boxed(VirtQueue::new(transport, number, false, false)?)?))
        }
    }

    /// As [`VirtQueue::add`].
    ///
    /// # Safety
    /// As there.
    #[allow(unsafe_code, reason = "passes the duty on")]
    pub(super) unsafe fn add<'a>(&mut self, read: &[&'a [u8]], written: &mut [&'a mut [u8]]) -> Result<u16, Error> {
        // SAFETY: the caller's duty.
        with!(self, queue => unsafe { queue.add(read, written) })
    }

    /// As [`VirtQueue::pop_used`].
    ///
    /// # Safety
    /// As there.
    #[allow(unsafe_code, reason = "passes the duty on")]
    pub(super) unsafe fn pop_used<'a>(
        &mut self,
        token: u16,
        read: &'a [&'a [u8]],
        written: &'a mut [&'a mut [u8]],
    ) -> Result<u32, Error> {
        // SAFETY: the caller's duty.
        with!(self, queue => unsafe { queue.pop_used(token, read, written) })
    }

    /// Returns the token of the next chain that the device is done with.
    pub(super) fn peek_used(&self) -> Option<u16> {
        with!(self, queue => queue.peek_used())
    }

    /// Returns how many descriptors are free.
    pub(super) fn available_desc(&self) -> usize {
        with!(self, queue => queue.available_desc())
    }

    /// Returns whether the device wants to be notified.
    pub(super) fn should_notify(&self) -> bool {
        with!(self, queue => queue.should_notify())
    }

    /// Tells the device whether to interrupt.
    pub(super) fn set_dev_notify(&mut self, enable: bool) {
        with!(self, queue => queue.set_dev_notify(enable));
    }
}

fn boxed<T>(value: T) -> Result<Box<T, KernelHeap>, Error> {
    Box::try_new_in(value, KernelHeap).map_err(|_| Error::DmaError)
}
