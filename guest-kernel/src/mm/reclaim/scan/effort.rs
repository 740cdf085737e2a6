//! How much reclaim looked at and made free, by whether somebody waited for it. Pure.

/// Who wants memory to be made free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A thread that can't go on without, or asked for it.
    Direct,
    /// Somebody who looks ahead, or the balloon: no thread of the application waits.
    Background,
}

/// Pages since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    /// That the hands went over.
    pub(crate) scanned: u64,
    /// That have become free by it.
    pub(crate) freed: u64,
}

/// The account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Efforts {
    pub(crate) direct: Effort,
    pub(crate) background: Effort,
    /// What is in either of them.
    attributed: Effort,
}

impl Efforts {
    pub(crate) const fn new() -> Self {
        const NONE: Effort = Effort { scanned: 0, freed: 0 };
        Self { direct: NONE, background: NONE, attributed: NONE }
    }

    /// Puts what has come to `total` since the last call on one side's account. What the disk has
    /// finished in between counts for who comes next. The compressed pool may take back what was
    /// free: that is not counted twice.
    pub(crate) fn attribute(&mut self, urgency: Urgency, total: Effort) {
        let account = match urgency {
            Urgency::Direct => &mut self.direct,
            Urgency::Background => &mut self.background,
        };
        account.scanned += total.scanned.saturating_sub(self.attributed.scanned);
        account.freed += total.freed.saturating_sub(self.attributed.freed);
        self.attributed.scanned = self.attributed.scanned.max(total.scanned);
        self.attributed.freed = self.attributed.freed.max(total.freed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Effort, Efforts, Urgency};

    #[test]
    fn every_page_is_on_one_account() {
        let mut efforts = Efforts::new();
        let effort = |scanned, freed| Effort { scanned, freed };
        efforts.attribute(Urgency::Background, effort(10, 4));
        efforts.attribute(Urgency::Direct, effort(25, 3));
        efforts.attribute(Urgency::Direct, effort(30, 6));
        efforts.attribute(Urgency::Background, effort(31, 9));
        assert_eq!((efforts.background, efforts.direct), (effort(11, 7), effort(20, 2)));
    }
}
