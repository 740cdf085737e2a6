//! The digest of an index: FNV-1a of 64 bits (Fowler, Noll, Vo) over all terms and postings, in an
//! order that the text alone defines.

use crate::postings::Posting;

/// A digest that is being computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a term: its text, a zero byte and the number of its postings.
    pub(crate) fn add_term(&mut self, text: &[u8], count: u32) {
        self.add(text);
        self.add(&[0]);
        self.add(&count.to_le_bytes());
    }

    /// Adds a posting of the last term: file and position.
    pub(crate) fn add_posting(&mut self, posting: Posting) {
        self.add(&posting.file.to_le_bytes());
        self.add(&posting.position.to_le_bytes());
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
