//! Access traces: which pages a program touched, in order.
//!
//! A *trace file* holds one. It begins with the eight bytes `AEROTRC1`; every touch is a
//! little-endian `u32` behind it: the page's number in the lower 31 bits, and bit 31 set where the
//! touch wrote. Page numbers are addresses divided by 4096, from whatever base the recorder likes;
//! touches of the same page in a row count once and may be left out.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

/// The first bytes of a trace file.
const MAGIC: &[u8; 8] = b"AEROTRC1";
/// Set in the word of a touch that wrote. No policy distinguishes them yet.
const WRITE: u32 = 1 << 31;

/// A trace, its pages renumbered from 0 in the order of their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    touches: Vec<u32>,
    pages: usize,
}

impl Trace {
    /// A trace of page numbers as a program would give them.
    pub(crate) fn new(mut touches: Vec<u32>) -> Self {
        touches.dedup();
        let mut known = touches.clone();
        known.sort_unstable();
        known.dedup();
        let numbers: HashMap<u32, u32> = known.iter().copied().zip(0..).collect();
        for page in &mut touches {
            *page = numbers[page];
        }
        Self { touches, pages: known.len() }
    }

    /// The trace in a trace file.
    ///
    /// # Errors
    /// When it isn't one.
    pub(crate) fn decode(file: &[u8]) -> Result<Self> {
        let body = file.strip_prefix(MAGIC).context("a trace file begins with AEROTRC1")?;
        let (touches, rest) = body.as_chunks::<4>();
        ensure!(rest.is_empty(), "a trace file ends with a whole touch, this one with {} bytes more", rest.len());
        Ok(Self::new(touches.iter().map(|touch| u32::from_le_bytes(*touch) & !WRITE).collect()))
    }

    pub(crate) fn touches(&self) -> &[u32] {
        &self.touches
    }

    /// Different pages.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn a_trace_file_is_read() {
        let words = [7_u32, 7, 1 << 31 | 9, 3, 7].map(u32::to_le_bytes);
        let file = [b"AEROTRC1", words.as_flattened()].concat();
        let trace = Trace::decode(&file).unwrap();
        assert_eq!(trace.touches(), [1, 2, 0, 1], "renumbered in the order of addresses, repetitions gone");
        assert_eq!(trace.pages(), 3);
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(Trace::decode(b"").is_err());
        assert!(Trace::decode(b"AEROTRC2").is_err());
        assert!(Trace::decode(b"AEROTRC1\0\0\0").is_err());
        assert_eq!(Trace::decode(b"AEROTRC1").unwrap().pages(), 0);
    }
}
