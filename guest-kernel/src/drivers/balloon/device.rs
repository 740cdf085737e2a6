//! A balloon device: set up, reset, and the frames that move through its queues.
//!
//! The device is the host's, which may be slow, stopped or wrong. A call here returns when the host
//! has done its part, however long that takes, or when the device has lost its state ([`Lost`]):
//! then the balloon is void, all frames are the guest's, and the device has to be set up anew.

use core::fmt;
use core::ops::Range;

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::{FRAME_BYTES, FrameNumber, to_usize};
use allocator_api2::boxed::Box;
use virtio_drivers::Error;
use virtio_drivers::transport::{DeviceStatus, Transport};

use super::features::{Features, QueueNumbers};
use super::pfn_pages::{ARRAYS, PfnPages};
use super::queue::{Access, Broken, Buffer, Interrupts, Queue};
use super::shared::SharedPages;
use super::statistics;
use crate::drivers::virtio::negotiation::{self, NegotiationError};
use crate::mm::KernelHeap;

/// The most ranges of free memory in one report.
pub(crate) const MAX_RANGES: usize = 16;

/// Offsets in the configuration space (virtio 1.2, 5.5.4). Each is a 32-bit word, which is read at
/// once: no generation has to be compared.
const CONFIG_NUM_PAGES: usize = 0;
const CONFIG_ACTUAL: usize = 4;
const CONFIG_HINT_COMMAND: usize = 8;

/// Words of the shared page: the statistics, and behind them the number that goes with hints.
const STATISTICS_WORD: usize = 0;
const HINT_WORD: usize = 512;

/// Why a device can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetUpError {
    /// It does not agree on features.
    Negotiation(NegotiationError),
    /// It lacks a queue, or there is no memory for one.
    Queue(Error),
    /// It has the interrupt of another device.
    SharedInterrupt,
}

impl fmt::Display for SetUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Negotiation(error) => error.fmt(f),
            Self::Queue(error) => error.fmt(f),
            Self::SharedInterrupt => f.write_str("it has the interrupt of another device"),
        }
    }
}

impl From<NegotiationError> for SetUpError {
    fn from(error: NegotiationError) -> Self {
        Self::Negotiation(error)
    }
}

impl From<Error> for SetUpError {
    fn from(error: Error) -> Self {
        Self::Queue(error)
    }
}

/// The way to a device. The device is reset when the value is dropped.
pub(crate) trait Connection: Transport {
    /// Lets the device interrupt for its first `queues` queues and for its configuration.
    ///
    /// # Errors
    /// [`SetUpError::SharedInterrupt`].
    fn listen(&mut self, queues: u16) -> Result<(), SetUpError>;
    /// Returns whether each interrupt is sure to arrive.
    fn is_sure_to_interrupt(&self) -> bool;
}

/// Why a device has lost its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It was not set up, or was reset.
    NotSetUp,
    /// It asks for a reset (`DEVICE_NEEDS_RESET`).
    NeedsReset,
    /// It has broken the protocol.
    Broken,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSetUp => "it is not set up",
            Self::NeedsReset => "it asks for a reset",
            Self::Broken => "it has broken the protocol",
        })
    }
}

impl From<Broken> for Lost {
    fn from(Broken: Broken) -> Self {
        Self::Broken
    }
}

/// How a thread waits for the device.
pub(crate) trait Waiter {
    /// Waits until the device has interrupted, or some time has passed.
    fn wait(&mut self);
}

/// Which way frames move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Into the balloon.
    Inflate,
    /// Out of it.
    Deflate,
}

/// A balloon device.
#[derive(Debug)]
pub(crate) struct BalloonDevice<T: Connection> {
    /// Before the memory: it is dropped first, which resets the device.
    transport: T,
    /// In a box, as they have several kibibytes, and stacks are small.
    queues: Option<Box<Queues, KernelHeap>>,
    pfns: PfnPages,
    /// What the device reads besides: statistics, and the number that goes with hints.
    shared: SharedPages,
    /// The host's latest command about free page hints.
    hint_command: Option<HintCommand>,
}

/// A command, and the generation of the configuration that has it.
#[derive(Clone, Copy, Debug)]
struct HintCommand {
    number: u32,
    generation: u32,
}

#[derive(Debug)]
struct Queues {
    inflate: Queue<ARRAYS>,
    deflate: Queue<ARRAYS>,
    statistics: Option<Queue<2>>,
    hinting: Option<Queue<MAX_RANGES>>,
    reporting: Option<Queue<MAX_RANGES>>,
}

impl<T: Connection> BalloonDevice<T> {
    /// Returns the device behind a transport, which is not set up yet. Returns `None` if there is
    /// no memory.
    pub(crate) fn new(transport: T) -> Option<Self> {
        let (pfns, shared) = (PfnPages::new()?, SharedPages::new(1)?);
        Some(Self { transport, queues: None, pfns, shared, hint_command: None })
    }

    /// Resets the device, whose balloon is empty then, and sets it up (virtio 1.2, 3.1.1).
    ///
    /// # Errors
    /// [`SetUpError`]; then the device is not set up.
    pub(crate) fn set_up(&mut self) -> Result<Features, SetUpError> {
        self.reset()?;
        let features = Features(negotiation::negotiate(&mut self.transport, Features::wanted().0)?);
        let numbers = QueueNumbers::of(Features(self.transport.read_device_features()));
        let queues = Queues::new(&mut self.transport, numbers, features)?;
        let queues = Box::try_new_in(queues, KernelHeap).map_err(|_| Error::DmaError)?;
        self.transport.listen(numbers.count())?;
        negotiation::finish(&mut self.transport);
        self.queues = Some(queues);
        Ok(features)
    }

    /// Resets the device: it touches no memory any more, and its balloon is empty.
    ///
    /// # Errors
    /// [`NegotiationError::NoReset`].
    pub(crate) fn reset(&mut self) -> Result<(), NegotiationError> {
        negotiation::reset(&mut self.transport)?;
        (self.queues, self.hint_command) = (None, None);
        Ok(())
    }

    /// Returns whether the device tells of each change of its configuration.
    pub(crate) fn is_sure_to_interrupt(&self) -> bool {
        self.transport.is_sure_to_interrupt()
    }

    /// Returns how many frames the host wants in the balloon; zero if it does not say.
    pub(crate) fn wanted_pages(&self) -> u32 {
        self.transport.read_config_space(CONFIG_NUM_PAGES).unwrap_or(0)
    }

    /// Tells the host how many frames are in the balloon.
    pub(crate) fn set_actual(&mut self, pages: u32) {
        // The word is there in every balloon device.
        let _ = self.transport.write_config_space(CONFIG_ACTUAL, pages);
    }

    /// Checks that the device has its state.
    ///
    /// # Errors
    /// [`Lost`]; the device is reset then.
    pub(crate) fn check(&mut self) -> Result<(), Lost> {
        let checked = if self.queues.is_some() { check(&self.transport) } else { Err(Lost::NotSetUp) };
        self.reset_if_lost(checked)
    }

    /// Moves frames, and returns when the host has acknowledged all of them.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) fn move_frames(
        &mut self,
        direction: Direction,
        mut frames: impl Iterator<Item = FrameNumber>,
        waiter: &mut impl Waiter,
    ) -> Result<(), Lost> {
        let moved = self.try_move(direction, &mut frames, waiter);
        self.reset_if_lost(moved)
    }

    fn try_move(
        &mut self,
        direction: Direction,
        frames: &mut impl Iterator<Item = FrameNumber>,
        waiter: &mut impl Waiter,
    ) -> Result<(), Lost> {
        let queues = self.queues.as_mut().ok_or(Lost::NotSetUp)?;
        let queue = match direction {
            Direction::Inflate => &mut queues.inflate,
            Direction::Deflate => &mut queues.deflate,
        };
        while self.pfns.fill(frames) {
            for buffer in self.pfns.buffers() {
                add(queue, buffer)?;
            }
            finish(queue, &mut self.transport, waiter)?;
        }
        Ok(())
    }

    /// Resets a device that has lost its state, so that it gives up the memory that it has.
    fn reset_if_lost<R>(&mut self, result: Result<R, Lost>) -> Result<R, Lost> {
        if result.is_err() && self.reset().is_err() {
            log::error!("balloon: the device does not end a reset");
        }
        result
    }

    /// Returns whether free memory can be reported.
    pub(crate) fn takes_reports(&self) -> bool {
        self.queues.as_ref().is_some_and(|queues| queues.reporting.is_some())
    }

    /// Reports up to [`MAX_RANGES`] ranges of free memory, and returns when the host has taken what
    /// was behind them. The caller owns that memory.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) fn report(
        &mut self,
        ranges: impl Iterator<Item = Range<FrameNumber>>,
        waiter: &mut impl Waiter,
    ) -> Result<(), Lost> {
        let reported = self.try_report(ranges, waiter);
        self.reset_if_lost(reported)
    }

    fn try_report(
        &mut self,
        ranges: impl Iterator<Item = Range<FrameNumber>>,
        waiter: &mut impl Waiter,
    ) -> Result<(), Lost> {
        let reporting = self.queues.as_mut().and_then(|queues| queues.reporting.as_mut());
        let queue = reporting.ok_or(Lost::NotSetUp)?;
        for range in ranges {
            add(queue, free_memory(range))?;
        }
        finish(queue, &mut self.transport, waiter)
    }

    /// Returns the host's command about free page hints; `None` where there are none.
    ///
    /// It is read once for each change of the configuration: QEMU shows its command until the guest
    /// begins to answer, and from then on, without a change, the number that says stop.
    pub(crate) fn hint_command(&mut self) -> Option<u32> {
        self.queues.as_ref().and_then(|queues| queues.hinting.as_ref())?;
        let generation = self.transport.read_config_generation();
        if self.hint_command.is_none_or(|known| known.generation != generation) {
            let number = self.transport.read_config_space(CONFIG_HINT_COMMAND).ok()?;
            self.hint_command = Some(HintCommand { number, generation });
        }
        self.hint_command.map(|command| command.number)
    }

    /// Returns whether the host has noted all hints, so that others can be sent.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) fn has_noted_hints(&mut self) -> Result<bool, Lost> {
        let Some(queue) = self.queues.as_mut().and_then(|queues| queues.hinting.as_mut()) else { return Ok(true) };
        let noted = reap_all(queue).map(|()| !queue.is_in_use()).map_err(Lost::from);
        self.reset_if_lost(noted)
    }

    /// Sends the number that hints are for, or the one that ends them. The host has noted all
    /// others.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) fn send_hint_number(&mut self, number: u32) -> Result<(), Lost> {
        self.shared.write(HINT_WORD, number);
        let buffer = self.shared.buffer(HINT_WORD, 1);
        let sent = self.send_hints(core::iter::once(buffer));
        self.reset_if_lost(sent)
    }

    /// Hints up to [`MAX_RANGES`] ranges of free memory. The host has noted all others.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) fn hint(&mut self, ranges: impl Iterator<Item = Range<FrameNumber>>) -> Result<(), Lost> {
        let hinted = self.send_hints(ranges.map(free_memory));
        self.reset_if_lost(hinted)
    }

    /// Sends hints and does not wait. Linux has no interrupts for them either; QEMU would raise one
    /// from a thread that must not, where it emulates the processor.
    fn send_hints(&mut self, buffers: impl Iterator<Item = Buffer>) -> Result<(), Lost> {
        let hinting = self.queues.as_mut().and_then(|queues| queues.hinting.as_mut());
        let queue = hinting.ok_or(Lost::NotSetUp)?;
        for buffer in buffers {
            add(queue, buffer)?;
        }
        queue.notify(&mut self.transport);
        Ok(())
    }

    /// Returns whether the host asks for statistics. That is so from the start: the host keeps the
    /// first answer until it asks.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) fn wants_statistics(&mut self) -> Result<bool, Lost> {
        let Some(queue) = self.queues.as_mut().and_then(|queues| queues.statistics.as_mut()) else { return Ok(false) };
        let wanted = reap_all(queue).map(|()| !queue.is_in_use()).map_err(Lost::from);
        self.reset_if_lost(wanted)
    }

    /// Answers with statistics, if the host asks for them.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) fn answer(&mut self, statistics: &Statistics) -> Result<(), Lost> {
        let Some(queue) = self.queues.as_mut().and_then(|queues| queues.statistics.as_mut()) else { return Ok(()) };
        if queue.is_in_use() {
            return Ok(()); // the memory is the device's
        }
        let bytes = statistics::encode(statistics);
        for (index, word) in bytes.chunks(size_of::<u32>()).enumerate() {
            let mut padded = [0; size_of::<u32>()];
            padded[..word.len()].copy_from_slice(word);
            self.shared.write(STATISTICS_WORD + index, u32::from_le_bytes(padded));
        }
        let buffer = Buffer { bytes: bytes.len(), ..self.shared.buffer(STATISTICS_WORD, 0) };
        add(queue, buffer)?;
        queue.notify(&mut self.transport);
        Ok(())
    }
}

impl Queues {
    fn new(transport: &mut impl Transport, numbers: QueueNumbers, features: Features) -> Result<Self, Error> {
        let accepted = |feature, number: Option<u16>| number.filter(|_| features.contains(feature));
        let inflate = Queue::new(transport, numbers.inflate)?;
        let deflate = Queue::new(transport, numbers.deflate)?;
        let mut statistics: Option<Queue<_>> =
            accepted(Features::STATS_VQ, numbers.statistics).map(|number| Queue::new(transport, number)).transpose()?;
        let hinting = accepted(Features::FREE_PAGE_HINT, numbers.hinting)
            .map(|number| Queue::new(transport, number))
            .transpose()?;
        let reporting = accepted(Features::PAGE_REPORTING, numbers.reporting)
            .map(|number| Queue::new(transport, number))
            .transpose()?;
        if let Some(queue) = &mut statistics {
            queue.let_interrupt(Interrupts::Wanted); // the host asks when it likes
        }
        Ok(Self { inflate, deflate, statistics, hinting, reporting })
    }
}

/// Returns free memory as a buffer: the device may do to it what it likes.
fn free_memory(range: Range<FrameNumber>) -> Buffer {
    let bytes = to_usize((range.end.0 - range.start.0) * FRAME_BYTES);
    Buffer { address: range.start.address(), bytes, access: Access::Written }
}

/// Adds a buffer to a queue, whose room the caller does not exceed.
#[allow(unsafe_code, reason = "passes memory to the device")]
fn add<const SIZE: usize>(queue: &mut Queue<SIZE>, buffer: Buffer) -> Result<(), Lost> {
    // SAFETY: what is added is either shared memory of the device's own, which is not written while
    // it is in the queue, or memory of frames that the caller of this module owns, which waits
    // until the device has returned them. Of a hint the device only notes the address.
    if unsafe { queue.add(buffer) } { Ok(()) } else { Err(Lost::Broken) }
}

/// Notifies the device of what was added to a queue, and returns when it is done with that. A host
/// that is emulated on this processor is done at once; otherwise the thread sleeps.
fn finish<const SIZE: usize>(
    queue: &mut Queue<SIZE>,
    transport: &mut impl Transport,
    waiter: &mut impl Waiter,
) -> Result<(), Lost> {
    queue.notify(transport);
    loop {
        reap_all(queue)?;
        if !queue.is_in_use() {
            queue.let_interrupt(Interrupts::Unwanted);
            return Ok(());
        }
        queue.let_interrupt(Interrupts::Wanted);
        reap_all(queue)?; // it may have ended before the device was told to interrupt
        if queue.is_in_use() {
            waiter.wait();
            check(transport)?;
        }
    }
}

fn reap_all<const SIZE: usize>(queue: &mut Queue<SIZE>) -> Result<(), Broken> {
    while queue.reap()?.is_some() {}
    Ok(())
}

fn check(transport: &impl Transport) -> Result<(), Lost> {
    let is_lost = transport.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET);
    if is_lost { Err(Lost::NeedsReset) } else { Ok(()) }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
