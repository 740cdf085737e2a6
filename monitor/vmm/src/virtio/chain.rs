//! A request's memory as its descriptors name it. Pure: addresses are unchecked here, and
//! `super::memory` resolves them to memory.
//!
//! A chain is a list of parts that the device may read, followed by a list of parts that it may
//! write. Where one part ends and the next begins means nothing (virtio 1.2, 2.7.4): a request is
//! cut out of the two lists by bytes, not by descriptors.

use thiserror::Error;
use virtio_queue::desc::split::Descriptor;

/// A part of a chain, in guest-physical memory. Never empty, and its end is an address too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) address: u64,
    pub(super) bytes: u32,
}

/// The memory of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// What the device may read.
    pub(super) readable: Parts,
    /// What it may write.
    pub(super) writable: Parts,
}

/// Parts in order, at most 2^32 bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts(Vec<Part>);

/// Why a chain is invalid. The driver broke the rules, so its device stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    /// It is empty, or its first descriptor can't be read.
    #[error("a descriptor chain is empty")]
    Empty,
    /// It goes on behind the queue, in a loop, beyond 2^32 bytes, or through a descriptor that
    /// can't be read.
    #[error("a descriptor chain does not end")]
    Endless,
    /// More parts than the device has announced that it takes.
    #[error("a descriptor chain has too many parts")]
    TooLong,
    /// A part has no bytes.
    #[error("a descriptor names no bytes")]
    EmptyPart,
    /// Address and length overflow.
    #[error("a descriptor ends behind the last address")]
    Overflow,
    /// A readable part follows a writable one.
    #[error("a descriptor to be read follows one to be written")]
    Disorder,
    /// It lacks what every request of this device must have.
    #[error("a request is too short")]
    TooShort,
    /// It names addresses that are not memory.
    #[error("a descriptor names what is not memory")]
    NotMemory,
}

impl Chain {
    /// Builds the chain of `descriptors`, of at most `most` of them. The iterator may end early
    /// where the chain is broken: then the last descriptor still says that another one follows.
    pub(super) fn collect(descriptors: impl Iterator<Item = Descriptor>, most: usize) -> Result<Self, Malformed> {
        let mut chain = Self::default();
        let mut is_complete = false;
        for (index, descriptor) in descriptors.enumerate() {
            if index == most {
                return Err(Malformed::TooLong);
            }
            let part = Part { address: descriptor.addr().0, bytes: descriptor.len() };
            if part.bytes == 0 {
                return Err(Malformed::EmptyPart);
            }
            part.address.checked_add(part.bytes.into()).ok_or(Malformed::Overflow)?;
            if descriptor.is_write_only() {
                chain.writable.0.push(part);
            } else if chain.writable.0.is_empty() {
                chain.readable.0.push(part);
            } else {
                return Err(Malformed::Disorder);
            }
            is_complete = !descriptor.has_next();
        }
        match (chain.readable.0.is_empty() && chain.writable.0.is_empty(), is_complete) {
            (true, _) => Err(Malformed::Empty),
            (false, false) => Err(Malformed::Endless),
            (false, true) => Ok(chain),
        }
    }
}

impl Parts {
    /// Returns the number of all bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|part| u64::from(part.bytes)).sum()
    }

    /// Returns the parts, in order.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Part> {
        self.0.iter().copied()
    }

    /// Cuts the first `bytes` bytes off.
    pub(super) fn take_front(&mut self, bytes: u32) -> Result<Self, Malformed> {
        let mut missing = bytes;
        let mut front = Vec::new();
        while missing > 0 {
            let first = self.0.first_mut().ok_or(Malformed::TooShort)?;
            let taken = Part { bytes: first.bytes.min(missing), ..*first };
            missing -= taken.bytes;
            front.push(taken);
            if taken.bytes == first.bytes {
                self.0.remove(0);
            } else {
                *first = Part { address: first.address + u64::from(taken.bytes), bytes: first.bytes - taken.bytes };
            }
        }
        Ok(Self(front))
    }

    /// Cuts the last byte off and returns its address.
    pub(super) fn take_last(&mut self) -> Result<u64, Malformed> {
        let last = self.0.last_mut().ok_or(Malformed::TooShort)?;
        last.bytes -= 1;
        let address = last.address + u64::from(last.bytes);
        if last.bytes == 0 {
            self.0.pop();
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::{Chain, Malformed, Part, Parts};
    use proptest::prelude::{any, proptest};
    use virtio_queue::desc::split::Descriptor;

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;

    fn collect(descriptors: &[(u64, u32, u16)]) -> Result<Chain, Malformed> {
        Chain::collect(descriptors.iter().map(|&(at, bytes, flags)| Descriptor::new(at, bytes, flags, 0)), 4)
    }

    fn parts(parts: &[(u64, u32)]) -> Parts {
        Parts(parts.iter().map(|&(address, bytes)| Part { address, bytes }).collect())
    }

    #[test]
    fn good_chains_are_two_lists() {
        let chain = collect(&[(0x1000, 16, NEXT), (0x2000, 512, NEXT | WRITE), (0x3000, 1, WRITE)]).unwrap();
        assert_eq!(chain, Chain { readable: parts(&[(0x1000, 16)]), writable: parts(&[(0x2000, 512), (0x3000, 1)]) });
        assert_eq!((chain.readable.bytes(), chain.writable.bytes()), (16, 513));
    }

    #[test]
    fn bad_chains_are_told_apart() {
        assert_eq!(collect(&[]), Err(Malformed::Empty));
        assert_eq!(collect(&[(0x1000, 16, NEXT)]), Err(Malformed::Endless));
        assert_eq!(collect(&[(0x1000, 16, NEXT); 5]), Err(Malformed::TooLong));
        assert_eq!(collect(&[(0x1000, 0, 0)]), Err(Malformed::EmptyPart));
        assert_eq!(collect(&[(u64::MAX, 1, 0)]), Err(Malformed::Overflow));
        assert_eq!(collect(&[(0x1000, 1, WRITE | NEXT), (0x1000, 1, 0)]), Err(Malformed::Disorder));
    }

    #[test]
    fn cuts_go_through_parts() {
        let mut list = parts(&[(0x1000, 10), (0x2000, 10), (0x3000, 1)]);
        assert_eq!(list.take_front(16), Ok(parts(&[(0x1000, 10), (0x2000, 6)])));
        assert_eq!(list.take_last(), Ok(0x3000));
        assert_eq!(list.take_last(), Ok(0x2009));
        assert_eq!(list, parts(&[(0x2006, 3)]));
        assert_eq!(list.take_front(4), Err(Malformed::TooShort));
        assert_eq!(Parts::default().take_last(), Err(Malformed::TooShort));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(
            lengths in proptest::collection::vec((any::<u32>(), 1_u32..100), 1..8),
            cut in 0_u32..200,
        ) {
            let mut list = Parts(lengths.iter().map(|&(at, bytes)| Part { address: at.into(), bytes }).collect());
            let addresses = |list: &Parts| {
                list.iter().flat_map(|part| (part.address..).take(part.bytes as usize)).collect::<Vec<_>>()
            };
            let before = addresses(&list);
            match list.take_front(cut) {
                Ok(front) => assert_eq!([addresses(&front), addresses(&list)].concat(), before),
                Err(_) => assert!(before.len() < cut as usize),
            }
        }
    }
}
