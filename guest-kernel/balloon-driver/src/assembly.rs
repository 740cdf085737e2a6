//! Decides whether to evict pages until a huge frame is whole, or to inflate the single frames that
//! became free.
//!
//! A huge frame that is ballooned in parts costs the host more: it splits the huge page behind it
//! and releases 512 small pages, instead of one huge page. Reclaim goes through virtual addresses,
//! and the frames of a former huge page lie in one huge frame. So the frames that become free
//! mostly complete a huge frame soon. Until then they stay free in the guest. Where pages lie
//! scattered, no huge frame becomes whole: then the driver gives up for a while and inflates single
//! frames.

/// Calls that evict without making a huge frame whole, after which the driver gives up. The guest's
/// memory evicts at least 64 pages in a call: so these are four huge frames.
const ATTEMPTS: u32 = 32;
/// The pause after that.
const PAUSE_NS: u64 = 1_000_000_000;

/// The attempts to make a huge frame whole by evicting pages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Assembly {
    attempts: u32,
    not_before_ns: u64,
}

impl Assembly {
    /// Returns whether eviction may be tried for a huge frame.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.not_before_ns
    }

    /// Notes that pages were evicted, and that no huge frame is whole yet.
    pub(crate) fn note_attempt(&mut self, now_ns: u64) {
        self.attempts += 1;
        if self.attempts == ATTEMPTS {
            *self = Self { attempts: 0, not_before_ns: now_ns.saturating_add(PAUSE_NS) };
        }
    }

    /// Notes that a huge frame became whole.
    pub(crate) fn note_whole(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPTS, Assembly, PAUSE_NS};

    #[test]
    fn eviction_for_huge_frames_pauses_after_vain_attempts() {
        let mut assembly = Assembly::default();
        (1..ATTEMPTS).for_each(|_| assembly.note_attempt(5));
        assembly.note_whole();
        (1..ATTEMPTS).for_each(|_| assembly.note_attempt(5));
        assert!(assembly.is_due(5), "a whole huge frame renews the attempts");
        assembly.note_attempt(5);
        assert!(!assembly.is_due(4 + PAUSE_NS) && assembly.is_due(5 + PAUSE_NS));
    }
}
