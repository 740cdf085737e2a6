//! Lists of zspages, linked through their headers.
#![allow(unsafe_code, reason = "a link names a zspage by its first frame")]

use aerostat_abi::units::FrameNumber;

use super::zspage::{Header, Zspage};

/// The neighbours of a zspage in a list, by their first frames. Zero means none, as frame 0 is
/// never handed out.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Links {
    previous: u64,
    next: u64,
}

/// Selects the links of one of the two lists that a zspage may be in.
type Select = fn(&mut Header) -> &mut Links;

/// A list of zspages. Every zspage in it is alive, and in no other list with the same links.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZspageList {
    first: u64,
    last: u64,
    select: Select,
}

impl ZspageList {
    /// Creates the empty list of a class's zspages with room.
    pub(super) const fn with_room() -> Self {
        Self { first: 0, last: 0, select: |header| &mut header.with_room }
    }

    /// Creates the empty list of all zspages by age.
    pub(super) const fn by_age() -> Self {
        Self { first: 0, last: 0, select: |header| &mut header.by_age }
    }

    /// Returns the first zspage.
    pub(super) fn first(&self) -> Option<Zspage> {
        zspage_at(self.first)
    }

    /// Adds a zspage at the end.
    pub(super) fn append(&mut self, zspage: &mut Zspage) {
        *(self.select)(zspage.header_mut()) = Links { previous: self.last, next: 0 };
        match zspage_at(self.last) {
            None => self.first = zspage.first().0,
            Some(mut last) => (self.select)(last.header_mut()).next = zspage.first().0,
        }
        self.last = zspage.first().0;
    }

    /// Removes a zspage, which must be in this list.
    pub(super) fn remove(&mut self, zspage: &mut Zspage) {
        let Links { previous, next } = *(self.select)(zspage.header_mut());
        match zspage_at(previous) {
            None => self.first = next,
            Some(mut previous) => (self.select)(previous.header_mut()).next = next,
        }
        match zspage_at(next) {
            None => self.last = previous,
            Some(mut next) => (self.select)(next.header_mut()).previous = previous,
        }
    }

    /// Returns the zspage behind `zspage`.
    pub(super) fn next(&self, zspage: &mut Zspage) -> Option<Zspage> {
        zspage_at((self.select)(zspage.header_mut()).next)
    }
}

fn zspage_at(first: u64) -> Option<Zspage> {
    // SAFETY: `ZspageList` has only this number from a zspage that was appended and not removed, so
    // it is alive. It is another than the one that the caller holds, as a list has no cycles.
    (first != 0).then(|| unsafe { Zspage::at(FrameNumber(first)) })
}
