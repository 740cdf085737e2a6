//! Which huge frames are paged out: at random, with a second chance. Pure.
//!
//! There is no way to see which pages a guest uses without its help: the accessed bits of its
//! memory are the kernel's alone (no `page_idle` on many hosts, and DAMON needs privileges that a
//! VMM process does not have). So victims come in a random order, as in ESX. What the guest touches
//! while it waits to be written comes back without any I/O, which is the second chance; and what
//! came back last is left alone for a while.

use std::collections::VecDeque;

use crate::page_sizes::HugeIndex;

/// Huge frames that are left alone after they came back. A guest can always have so many, whatever
/// its limit: one instruction may touch code, a stack, data, and page tables of four levels for
/// each.
const RECENT: usize = 16;

/// A pass over all huge frames of a machine, in an order without a pattern. It never ends.
#[derive(Debug)]
pub(super) struct Sweep {
    huge_frames: usize,
    /// The last number of a generator whose period is the next power of two.
    state: usize,
}

impl Sweep {
    pub(super) fn new(huge_frames: usize) -> Self {
        Self { huge_frames, state: 0 }
    }

    /// Returns the next huge frame. So many calls as there are huge frames return each of them, in
    /// a full period.
    pub(super) fn next(&mut self) -> HugeIndex {
        let period = self.huge_frames.next_power_of_two();
        loop {
            // Full period by Hull and Dobell: the increment is odd, and the multiplier 1 modulo 4.
            self.state = (self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f)) % period;
            if self.state < self.huge_frames {
                return HugeIndex(self.state);
            }
        }
    }

    /// Returns how many calls of [`Self::next`] make a pass.
    pub(super) const fn len(&self) -> usize {
        self.huge_frames
    }
}

/// The huge frames that came back last.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<HugeIndex>);

impl Recent {
    /// Notes that a huge frame came back because the guest has touched it.
    pub(super) fn note(&mut self, huge: HugeIndex) {
        self.0.retain(|&known| known != huge);
        self.0.push_back(huge);
        if self.0.len() > RECENT {
            self.0.pop_front();
        }
    }

    pub(super) fn contains(&self, huge: HugeIndex) -> bool {
        self.0.contains(&huge)
    }
}

#[cfg(test)]
mod tests {
    use super::{RECENT, Recent, Sweep};
    use crate::page_sizes::HugeIndex;
    use std::collections::BTreeSet;

    #[test]
    fn a_pass_visits_each_huge_frame_once() {
        for count in [1, 2, 3, 64, 100, 8192] {
            let mut sweep = Sweep::new(count);
            for _ in 0..3 {
                let pass: BTreeSet<_> = (0..sweep.len()).map(|_| sweep.next()).collect();
                assert_eq!(pass.len(), count);
            }
        }
    }

    #[test]
    fn neighbours_do_not_follow_each_other() {
        let mut sweep = Sweep::new(4096);
        let pass: Vec<_> = (0..4096).map(|_| sweep.next().0).collect();
        let neighbours = pass.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        assert!(neighbours < 40, "{neighbours}");
    }

    #[test]
    fn what_came_back_last_is_left_alone() {
        let mut recent = Recent::default();
        (0..100).for_each(|huge| recent.note(HugeIndex(huge)));
        recent.note(HugeIndex(90));
        assert!((100 - RECENT..100).all(|huge| recent.contains(HugeIndex(huge))));
        recent.note(HugeIndex(3));
        assert!(recent.contains(HugeIndex(90)) && !recent.contains(HugeIndex(100 - RECENT)));
    }
}
