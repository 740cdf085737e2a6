//! Lines that are written before there is a console: the first ones, as far as they fit.
//!
//! Any code may write a line, also a report that has interrupted another writer. So there is no
//! lock: a writer reserves its place with one operation, and fills it.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Bytes that are kept.
const BYTES: usize = 4096;

/// The lines, one behind another.
#[derive(Debug)]
pub(crate) struct EarlyLines {
    bytes: [AtomicU8; BYTES],
    /// Bytes that are reserved.
    reserved: AtomicUsize,
}

impl EarlyLines {
    /// Returns no lines.
    pub(crate) const fn new() -> Self {
        Self { bytes: [const { AtomicU8::new(0) }; BYTES], reserved: AtomicUsize::new(0) }
    }

    /// Keeps a line, if there is room for all of it.
    pub(crate) fn keep(&self, line: &[u8]) {
        let reserve = |reserved: usize| reserved.checked_add(line.len()).filter(|end| *end <= BYTES);
        let Ok(start) = self.reserved.try_update(Ordering::Relaxed, Ordering::Relaxed, reserve) else { return };
        for (place, byte) in self.bytes[start..].iter().zip(line) {
            place.store(*byte, Ordering::Relaxed);
        }
    }

    /// Passes the lines to `write`, a piece at a time.
    pub(crate) fn take(&self, write: fn(&[u8])) {
        let kept = self.reserved.load(Ordering::Relaxed);
        for places in self.bytes[..kept].chunks(256) {
            let mut piece = [0; 256];
            for (byte, place) in piece.iter_mut().zip(places) {
                *byte = place.load(Ordering::Relaxed);
            }
            write(&piece[..places.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{BYTES, EarlyLines};

    std::thread_local! {
        static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    fn write(bytes: &[u8]) {
        WRITTEN.with_borrow_mut(|written| written.extend(bytes));
    }

    #[test]
    fn lines_are_kept_in_their_order() {
        let lines = EarlyLines::new();
        lines.keep(b"first\n");
        lines.keep(b"second\n");
        lines.take(write);
        assert_eq!(WRITTEN.take(), b"first\nsecond\n");
    }

    #[test]
    fn a_line_that_does_not_fit_is_lost_and_a_shorter_one_is_not() {
        let lines = EarlyLines::new();
        lines.keep(&[b'a'; BYTES - 2]);
        lines.keep(b"long\n");
        lines.keep(b"b\n");
        lines.keep(b"\n");
        lines.take(write);
        let written = WRITTEN.take();
        assert_eq!((written.len(), &written[BYTES - 2..]), (BYTES, &b"b\n"[..]));
    }
}
