//! The console of machines without a serial port: a virtio console device (virtio 1.2, 5.3), to
//! which the log is written. Nothing is read from it.
//!
//! Lines come from anywhere, reports of the guest's end included. So a write takes no lock, needs
//! no interrupt, and waits only for a moment: what a host does not take is lost.
#![allow(unsafe_code, reason = "memory shared with a device")]

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::units::FRAME_SIZE;
use spin::Once;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::{BufferDirection, Error, Hal};

use super::virtio::hal::KernelHal;
use super::virtio::{NegotiationError, VirtioDevice};
use crate::arch::x86_64::serial;
use crate::patience::Patience;
use crate::time::Instant;

/// The queue of the first port to the host.
const TRANSMIT: u16 = 1;
/// One line is under way at a time.
const QUEUE_SIZE: usize = 2;
/// How long a host may take for a line, before lines are lost until it has taken it.
const PATIENCE_NS: u64 = 100_000_000;

static CONSOLE: Once<Console> = Once::new();

/// The console.
struct Console {
    /// Whether code is writing, which a report may interrupt.
    is_busy: AtomicBool,
    port: UnsafeCell<Port>,
}

// SAFETY: only the code that has set `is_busy` uses the port.
unsafe impl Sync for Console {}
// SAFETY: nothing of the port depends on the CPU.
unsafe impl Send for Console {}

/// The connection to the device.
struct Port {
    device: VirtioDevice,
    queue: VirtQueue<KernelHal, QUEUE_SIZE>,
    /// A page for the line that is under way.
    page: NonNull<u8>,
    /// The token and the length of that line.
    under_way: Option<(u16, usize)>,
    /// Whether the host has let the patience for a line pass, and has not taken it since.
    is_stuck: bool,
}

/// Starts the console, unless the log goes to the serial port.
pub(super) fn start(device: VirtioDevice) {
    let name = device.name();
    if serial::is_there() {
        log::info!("{name} is not used: the log goes to the serial port");
        return;
    }
    match Port::new(device) {
        Ok(port) => {
            CONSOLE.call_once(|| Console { is_busy: AtomicBool::new(false), port: UnsafeCell::new(port) });
            serial::replace(write);
            log::debug!("console: the log goes to the {name}");
        }
        Err(StartError::Negotiation(error)) => log::warn!("{name} is not used: {error}"),
        Err(StartError::Queue(error)) => log::warn!("{name} is not used: {error}"),
    }
}

/// Writes bytes, unless the console is busy or the host does not take them.
fn write(bytes: &[u8]) {
    let Some(console) = CONSOLE.get() else { return };
    if console.is_busy.swap(true, Ordering::Acquire) {
        return;
    }
    // SAFETY: the flag was not set, so no other code uses the port until it is cleared.
    let port = unsafe { &mut *console.port.get() };
    bytes.chunks(FRAME_SIZE).for_each(|chunk| port.write(chunk));
    console.is_busy.store(false, Ordering::Release);
}

enum StartError {
    Negotiation(NegotiationError),
    Queue(Error),
}

impl From<NegotiationError> for StartError {
    fn from(error: NegotiationError) -> Self {
        Self::Negotiation(error)
    }
}

impl From<Error> for StartError {
    fn from(error: Error) -> Self {
        Self::Queue(error)
    }
}

impl Port {
    fn new(mut device: VirtioDevice) -> Result<Self, StartError> {
        device.negotiate(0)?;
        let mut queue = VirtQueue::new(device.transport_mut(), TRANSMIT, false, false)?;
        queue.set_dev_notify(false);
        let (address, page) = KernelHal::dma_alloc(1, BufferDirection::DriverToDevice);
        if address == 0 {
            return Err(StartError::Queue(Error::DmaError));
        }
        device.finish();
        Ok(Self { device, queue, page, under_way: None, is_stuck: false })
    }

    /// Writes up to a page, and waits for it.
    fn write(&mut self, bytes: &[u8]) {
        self.collect();
        if self.under_way.is_some() {
            return;
        }
        // SAFETY: the page is the port's, the device does not read it, and the bytes fit into it.
        unsafe { self.page.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        // SAFETY: as above.
        let line = unsafe { core::slice::from_raw_parts(self.page.as_ptr(), bytes.len()) };
        // SAFETY: the page does not change until the line is collected.
        let Ok(token) = (unsafe { self.queue.add(&[line], &mut []) }) else { return };
        self.under_way = Some((token, bytes.len()));
        self.device.notify(TRANSMIT);
        let mut patience = Patience::new(PATIENCE_NS);
        while self.under_way.is_some() && !self.is_stuck {
            self.is_stuck = patience.charge(Instant::now()).is_none();
            self.collect();
            core::hint::spin_loop();
        }
    }

    /// Takes back the line that is under way if the host has taken it.
    fn collect(&mut self) {
        let Some((token, bytes)) = self.under_way else { return };
        if self.queue.peek_used() != Some(token) {
            return;
        }
        // SAFETY: the page is the port's; the device is done with it.
        let line = unsafe { core::slice::from_raw_parts(self.page.as_ptr(), bytes) };
        // SAFETY: this is the buffer that was added with this token.
        if unsafe { self.queue.pop_used(token, &[line], &mut []) }.is_ok() {
            self.under_way = None;
            self.is_stuck = false;
        }
    }
}
