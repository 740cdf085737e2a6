//! Decides which huge frames are worth vacating, and when. Pure.
//!
//! Moving a page costs about as much as copying it. So the emptiest huge frames are vacated first,
//! none of which more than three quarters are in use, and only as many as the others have room for.

use aerostat_abi::units::{HUGE_FRAMES, to_usize};

/// The width of a class, in used frames of a huge frame.
const STEP: u64 = 32;
/// Classes of use that may be vacated, the emptiest first, and all classes.
const MOVED_CLASSES: usize = 12;
const CLASSES: usize = to_usize(HUGE_FRAMES / STEP);

/// Free frames in broken huge frames, as a multiple of what is missing, from which on the
/// background compacts. With fewer, most pages would have to go into the last gaps.
const SURPLUS: u64 = 2;

/// Huge frames by how much of them is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Occupancy {
    classes: [Class; CLASSES],
}

/// Huge frames of which about as many frames are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Class {
    huge_frames: u64,
    used: u64,
}

/// How many huge frames of each class are to be vacated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Victims {
    classes: [u64; CLASSES],
}

impl Occupancy {
    /// Counts a huge frame of which `used` frames are in use, some and not all.
    pub(crate) fn add(&mut self, used: u32) {
        let class = &mut self.classes[class_of(used)];
        class.huge_frames += 1;
        class.used += u64::from(used);
    }

    /// Returns whether moving pages is worth it to have `wanted` huge frames wholly free, where
    /// `whole` are so already.
    pub(crate) fn is_worth_it(&self, whole: usize, wanted: usize) -> bool {
        let missing = wanted.saturating_sub(whole) as u64;
        missing > 0 && self.free() >= SURPLUS * HUGE_FRAMES * missing && self.victims(1) != Victims::default()
    }

    /// Returns how many huge frames could be vacated, up to `wanted`, and about how many pages
    /// would have to be moved for that.
    pub(crate) fn price(&self, wanted: usize) -> (usize, u64) {
        let victims = self.victims(wanted);
        let pages = self
            .classes
            .iter()
            .zip(victims.classes)
            .map(|(class, victims)| (class.used * victims).checked_div(class.huge_frames).unwrap_or(0));
        (to_usize(victims.classes.iter().sum()), pages.sum())
    }

    /// Returns the number of free frames in all of them.
    fn free(&self) -> u64 {
        self.classes.iter().map(|class| class.huge_frames * HUGE_FRAMES - class.used).sum()
    }

    /// Returns the emptiest huge frames, up to `wanted`, as long as their pages find room in the
    /// others.
    pub(crate) fn victims(&self, wanted: usize) -> Victims {
        let mut victims = Victims::default();
        let (mut room, mut left) = (self.free(), wanted as u64);
        for (class, victims) in self.classes[..MOVED_CLASSES].iter().zip(&mut victims.classes) {
            // A victim uses up room for its pages, and its own free frames are not room any more:
            // together a huge frame.
            *victims = class.huge_frames.min(left).min(room / HUGE_FRAMES);
            left -= *victims;
            room -= *victims * HUGE_FRAMES;
        }
        victims
    }
}

impl Victims {
    /// Returns whether a huge frame with `used` frames in use is a victim. Each can be taken once.
    pub(crate) fn take(&mut self, used: u32) -> bool {
        let left = &mut self.classes[class_of(used)];
        let is_victim = *left > 0;
        *left -= u64::from(is_victim);
        is_victim
    }
}

fn class_of(used: u32) -> usize {
    to_usize(u64::from(used).saturating_sub(1) / STEP).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::{HUGE_FRAMES, Occupancy, Victims};
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};

    fn occupancy(used: &[u32]) -> Occupancy {
        let mut occupancy = Occupancy::default();
        used.iter().for_each(|used| occupancy.add(*used));
        occupancy
    }

    fn chosen(used: &[u32], mut victims: Victims) -> Vec<u32> {
        used.iter().copied().filter(|&used| victims.take(used)).collect()
    }

    #[test]
    fn the_emptiest_are_vacated_first_up_to_the_wanted_number() {
        let used = [300, 10, 200, 40];
        assert_eq!(chosen(&used, occupancy(&used).victims(1)), [10]);
        assert_eq!(chosen(&used, occupancy(&used).victims(2)), [10, 40]);
    }

    #[test]
    fn the_price_is_the_pages_of_the_emptiest() {
        let occupancy = occupancy(&[300, 10, 200, 40]);
        assert_eq!([occupancy.price(0), occupancy.price(1), occupancy.price(2)], [(0, 0), (1, 10), (2, 50)]);
        assert_eq!(occupancy.price(9), (2, 50), "there is room for no more");
    }

    #[test]
    fn pages_without_room_elsewhere_are_not_moved() {
        assert_eq!(chosen(&[256; 3], occupancy(&[256; 3]).victims(9)), [256]);
        assert!(chosen(&[300], occupancy(&[300]).victims(9)).is_empty());
        let full = [1, 511, 512 - 1];
        assert_eq!(chosen(&full, occupancy(&full).victims(9)), [1]);
    }

    #[test]
    fn nearly_full_huge_frames_are_not_vacated() {
        let used = [500; 64];
        assert_eq!(occupancy(&used).victims(9), Victims::default());
        assert!(!occupancy(&used).is_worth_it(0, 1));
    }

    #[test]
    fn compaction_is_worth_it_with_much_free_and_nothing_whole() {
        let used = [256; 4];
        assert!(occupancy(&used).is_worth_it(0, 1));
        assert!(!occupancy(&used).is_worth_it(1, 1), "there is one");
        assert!(!occupancy(&used).is_worth_it(0, 2), "twice as much should be free");
        assert!(!occupancy(&[]).is_worth_it(0, 1));
    }

    proptest! {
        #[test]
        fn victims_fit_into_the_others(used in vec(1_u32..512, 0..40), wanted in 0_usize..20) {
            let victims = chosen(&used, occupancy(&used).victims(wanted));
            prop_assert!(victims.len() <= wanted);
            let moved: u64 = victims.iter().map(|&used| u64::from(used)).sum();
            let free: u64 = used.iter().map(|&used| HUGE_FRAMES - u64::from(used)).sum();
            let free_in_victims = victims.len() as u64 * HUGE_FRAMES - moved;
            prop_assert!(moved <= free - free_in_victims);
        }
    }
}
