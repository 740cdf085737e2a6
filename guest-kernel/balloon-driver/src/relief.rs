//! How far the guest exceeds its target for its own need, where the host permits that: rather than
//! fail for lack of memory, a guest may deflate the balloon by itself (virtio: `DEFLATE_ON_OOM`).
//!
//! A relief is a guest size that is kept for a while whatever the target is. Afterwards the driver
//! inflates to the target again. A guest that then needs the memory anew keeps it for twice as
//! long, so that the same memory does not go back and forth.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

/// How long a first relief lasts, and the longest.
const FIRST_NS: u64 = 2_000_000_000;
const LONGEST_NS: u64 = 64_000_000_000;
/// The least that is deflated at once, as in Linux.
const LEAST: FrameCount = FrameCount(256);

/// The current relief, and how long the last one was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Relief {
    size: FrameCount,
    until_ns: u64,
    length_ns: u64,
}

impl Relief {
    /// Notes that a thread of a guest of this size needs `missing` more frames, and that nothing
    /// else has them.
    pub(crate) fn extend(&mut self, size: FrameCount, missing: FrameCount, now_ns: u64) {
        if now_ns >= self.until_ns {
            let is_again = now_ns < self.until_ns.saturating_add(self.length_ns);
            let length_ns = if is_again { self.length_ns.saturating_mul(2) } else { FIRST_NS };
            self.length_ns = length_ns.clamp(FIRST_NS, LONGEST_NS);
        }
        let needed = size.saturating_add(missing.max(LEAST));
        self.size = self.size.max(FrameCount(needed.0.div_ceil(HUGE_FRAMES).saturating_mul(HUGE_FRAMES)));
        self.until_ns = now_ns.saturating_add(self.length_ns);
    }

    /// Ends the relief if its time is over.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        if now_ns >= self.until_ns {
            self.size = FrameCount::ZERO;
        }
    }

    /// Returns the size that the guest keeps; zero where there is no relief.
    pub(crate) fn size(&self) -> FrameCount {
        self.size
    }

    /// Returns when the relief ends, or when the last one did.
    pub(crate) fn until_ns(&self) -> u64 {
        self.until_ns
    }
}

#[cfg(test)]
mod tests {
    use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

    use super::{FIRST_NS, LONGEST_NS, Relief};

    const SIZE: FrameCount = FrameCount(10 * HUGE_FRAMES);

    #[test]
    fn a_relief_has_whole_huge_frames_and_ends() {
        let mut relief = Relief::default();
        relief.extend(SIZE, FrameCount(1), 5);
        assert_eq!(relief.size(), FrameCount(11 * HUGE_FRAMES));
        assert_eq!(relief.until_ns(), 5 + FIRST_NS);
        relief.extend(SIZE, FrameCount(5 * HUGE_FRAMES), 9);
        assert_eq!((relief.size(), relief.until_ns()), (FrameCount(15 * HUGE_FRAMES), 9 + FIRST_NS));
        relief.expire(8 + FIRST_NS);
        assert_eq!(relief.size(), FrameCount(15 * HUGE_FRAMES));
        relief.expire(9 + FIRST_NS);
        assert_eq!(relief.size(), FrameCount::ZERO);
    }

    #[test]
    fn a_need_that_recurs_is_met_for_longer() {
        let mut relief = Relief::default();
        let mut now_ns = 7;
        let mut lengths = std::vec::Vec::new();
        for _ in 0..8 {
            relief.extend(SIZE, FrameCount(1), now_ns);
            let until_ns = relief.until_ns();
            lengths.push((until_ns - now_ns) / FIRST_NS);
            relief.expire(until_ns);
            now_ns = until_ns + 1;
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 32, 32], "up to {LONGEST_NS} ns");
        now_ns += LONGEST_NS;
        relief.extend(SIZE, FrameCount(1), now_ns);
        assert_eq!(relief.until_ns(), now_ns + FIRST_NS, "this need is another one");
    }
}
