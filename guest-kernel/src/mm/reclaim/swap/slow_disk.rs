//! A disk in memory, for tests: it takes its time, and fails on request.
#![allow(unsafe_code, reason = "reads and writes frames")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use aerostat_abi::units::{FRAME_SIZE, FrameNumber, to_usize};

use crate::mm::reclaim::swap::disk::{Direction, Disk, DiskError, MAX_TRANSFER, Ticket};
use crate::mm::reclaim::swap::slot_map::SlotNumber;

/// Length of the disk's queue.
pub(crate) const DEPTH: usize = 6;

/// A disk in memory. A transfer ends when a thread waits.
pub(crate) struct SlowDisk {
    slots: u64,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) contents: BTreeMap<u32, Box<[u8]>>,
    next_ticket: usize,
    pub(crate) under_way: Vec<(Ticket, Direction, SlotNumber, Vec<FrameNumber>)>,
    ended: Vec<(Ticket, Result<(), DiskError>)>,
    /// Transfers end in the order in which they were submitted, not in reverse.
    pub(crate) is_in_order: bool,
    pub(crate) unwritable: BTreeSet<u32>,
    pub(crate) unreadable: BTreeSet<u32>,
    /// What another thread does while one waits for a transfer, which has just ended.
    pub(crate) meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl SlowDisk {
    pub(crate) fn leaked(slots: u64) -> &'static Self {
        Box::leak(Box::new(Self { slots, state: Mutex::default() }))
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn transfer(&mut self, direction: Direction, first: SlotNumber, frames: &[FrameNumber]) -> Result<(), DiskError> {
        for (place, frame) in frames.iter().enumerate() {
            let slot = first.plus(place).0;
            let bad = if direction == Direction::Read { &self.unreadable } else { &self.unwritable };
            if bad.contains(&slot) {
                return Err(DiskError);
            }
            let pointer = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(frame.address()));
            // SAFETY: the frame belongs to the transfer, and the arena maps it at its own address.
            let memory = unsafe { core::slice::from_raw_parts_mut(pointer, FRAME_SIZE) };
            match direction {
                Direction::Read => memory.copy_from_slice(self.contents.get(&slot).expect("a slot that was written")),
                Direction::Write => drop(self.contents.insert(slot, memory.to_vec().into_boxed_slice())),
            }
        }
        Ok(())
    }
}

impl Disk for SlowDisk {
    fn slots(&self) -> u64 {
        self.slots
    }

    fn submit(&self, direction: Direction, first: SlotNumber, frames: &[FrameNumber]) -> Option<Ticket> {
        let mut state = self.state();
        assert!(!frames.is_empty() && frames.len() <= MAX_TRANSFER);
        assert!(u64::from(first.0) + frames.len() as u64 <= self.slots);
        if state.under_way.len() == DEPTH {
            return None;
        }
        state.next_ticket = state.next_ticket.wrapping_add(1);
        let ticket = Ticket(state.next_ticket);
        state.under_way.push((ticket, direction, first, frames.to_vec()));
        Some(ticket)
    }

    fn result(&self, ticket: Ticket) -> Option<Result<(), DiskError>> {
        let mut state = self.state();
        let place = state.ended.iter().position(|(ended, _)| *ended == ticket)?;
        Some(state.ended.swap_remove(place).1)
    }

    /// The transfer that was submitted last ends first, unless a test wants it otherwise: no code
    /// may rely on an order.
    fn wait(&self, _: Ticket) {
        self.finish_one();
        let meanwhile = self.state().meanwhile.take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }

    fn wait_for_room(&self) {
        self.finish_one();
    }
}

impl SlowDisk {
    /// Ends a transfer.
    pub(crate) fn finish_one(&self) {
        let mut state = self.state();
        let place = if state.is_in_order { 0 } else { state.under_way.len().saturating_sub(1) };
        if place < state.under_way.len() {
            let (ticket, direction, first, frames) = state.under_way.remove(place);
            let result = state.transfer(direction, first, &frames);
            state.ended.push((ticket, result));
        }
    }
}
