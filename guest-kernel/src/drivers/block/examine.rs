//! Asks a disk which one it is, before there are threads and interrupts: it polls.
#![allow(unsafe_code, reason = "memory shared with a device")]

use core::ptr::NonNull;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameNumber};
use virtio_drivers::{BufferDirection, Hal};

use super::attach::{AttachError, Geometry};
use super::device::Port;
use super::requests::{BlockError, Broken, Direction, QUEUE, Request, SECTOR_BYTES, Sectors};
use super::role::Evidence;
use crate::drivers::virtio::hal::KernelHal;
use crate::patience::Patience;
use crate::time::Instant;

/// How long a disk may take to answer, before the guest continues without it.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Returns what says which disk it is. Its first page is read only if its serial number says
/// nothing.
///
/// # Errors
/// [`AttachError::NoAnswer`].
pub(super) fn evidence(port: &mut Port, geometry: &Geometry) -> Result<Evidence, AttachError> {
    let slot = submit(port, Request::Identify)?;
    let by_serial = match wait(port, slot)? {
        Ok(()) => Evidence::of_serial(&port.requests.identity(slot)),
        Err(_) => Evidence::None, // not every device has a serial number
    };
    if by_serial == Evidence::None { by_first_page(port, geometry) } else { Ok(by_serial) }
}

fn by_first_page(port: &mut Port, geometry: &Geometry) -> Result<Evidence, AttachError> {
    let (address, page) = KernelHal::dma_alloc(1, BufferDirection::DeviceToDriver);
    if address == 0 {
        return Ok(Evidence::None);
    }
    let count = u32::try_from(geometry.sectors.min(FRAME_BYTES / SECTOR_BYTES)).unwrap_or(1);
    let frames = [FrameNumber::containing(address)];
    let read = Request::Transfer { direction: Direction::Read, sectors: Sectors { first: 0, count }, frames: &frames };
    let slot = submit(port, read)?;
    // A device that does not answer may still write to the page: it is never used again.
    let result = wait(port, slot)?;
    let contents: NonNull<[u8; FRAME_SIZE]> = page.cast();
    // SAFETY: the page is this function's, the device is done with it, and any bytes are a page.
    let evidence = Evidence::of_first_page(unsafe { contents.as_ref() });
    // SAFETY: the page was allocated above, and nothing refers to it any more.
    unsafe { KernelHal::dma_dealloc(address, page, 1) };
    Ok(if result.is_ok() { evidence } else { Evidence::None })
}

fn submit(port: &mut Port, request: Request<'_>) -> Result<usize, AttachError> {
    let slot = port.requests.submit(request).ok_or(AttachError::NoAnswer)?;
    port.device.notify(QUEUE);
    Ok(slot)
}

fn wait(port: &mut Port, slot: usize) -> Result<Result<(), BlockError>, AttachError> {
    let mut patience = Patience::new(PATIENCE_NS);
    loop {
        port.requests.reap().map_err(|Broken| AttachError::NoAnswer)?;
        if let Some(result) = port.requests.take(slot) {
            return Ok(result);
        }
        patience.charge(Instant::now()).ok_or(AttachError::NoAnswer)?;
        core::hint::spin_loop();
    }
}
