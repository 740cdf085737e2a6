//! Access traces: the pages that a program touched, in order.
//!
//! A *trace file* holds one trace. It begins with the eight bytes `AEROTRC1`. Every touch follows
//! as a little-endian `u32`: the page's number in the lower 31 bits, and bit 31 set if the touch
//! wrote. A page's number is its address divided by 4096, less any base. Touches of the same page
//! in a row count once and may be left out.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

/// The first bytes of a trace file.
const MAGIC: &[u8; 8] = b"AEROTRC1";
/// The bit of a touch that wrote. No policy distinguishes these touches yet.
const WRITE: u32 = 1 << 31;

/// A trace, its pages renumbered from 0 in the order of their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    touches: Vec<u32>,
    pages: usize,
}

impl Trace {
    /// Makes a trace of page numbers, which may begin anywhere.
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

    /// Reads the trace in a trace file.
    ///
    /// # Errors
    /// When the bytes are not a trace file.
    pub(crate) fn decode(file: &[u8]) -> Result<Self> {
        let body = file.strip_prefix(MAGIC).context("a trace file begins with AEROTRC1")?;
        let (touches, rest) = body.as_chunks::<4>();
        ensure!(rest.is_empty(), "a trace file ends with a whole touch, this one with {} bytes more", rest.len());
        Ok(Self::new(touches.iter().map(|touch| u32::from_le_bytes(*touch) & !WRITE).collect()))
    }

    pub(crate) fn touches(&self) -> &[u32] {
        &self.touches
    }

    /// Returns the number of different pages.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn pages_of_a_trace_file_are_renumbered() {
        let words = [7_u32, 7, 1 << 31 | 9, 3, 7].map(u32::to_le_bytes);
        let file = [b"AEROTRC1", words.as_flattened()].concat();
        let trace = Trace::decode(&file).unwrap();
        assert_eq!(trace.touches(), [1, 2, 0, 1], "renumbered in the order of addresses, repetitions gone");
        assert_eq!(trace.pages(), 3);
    }

    #[test]
    fn bytes_that_are_not_a_trace_file_are_refused() {
        assert!(Trace::decode(b"").is_err());
        assert!(Trace::decode(b"AEROTRC2").is_err());
        assert!(Trace::decode(b"AEROTRC1\0\0\0").is_err());
        assert_eq!(Trace::decode(b"AEROTRC1").unwrap().pages(), 0);
    }
}
