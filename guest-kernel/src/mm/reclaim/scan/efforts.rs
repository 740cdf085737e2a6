//! How many pages reclaim has scanned and freed, by whether a thread waited for it. Pure.

/// What a reclaim attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A thread that needs the memory now, or has asked for reclaim.
    Direct,
    /// The background reclaimer or the balloon: no thread of the application waits.
    Background,
}

/// Pages scanned and freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    /// Pages that hands have visited.
    pub(crate) scanned: u64,
    /// Frames that have become free.
    pub(crate) freed: u64,
}

/// The efforts since boot, by urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Efforts {
    pub(crate) direct: Effort,
    pub(crate) background: Effort,
    /// The sum of both.
    attributed: Effort,
}

impl Efforts {
    pub(crate) const fn new() -> Self {
        const NONE: Effort = Effort { scanned: 0, freed: 0 };
        Self { direct: NONE, background: NONE, attributed: NONE }
    }

    /// Attributes what has been added to `total` since the last call. What the disk has finished in
    /// between counts for the next attempt. `total.freed` falls when the compressed pool grows;
    /// what is freed again is not counted twice.
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
    fn every_page_is_counted_once() {
        let mut efforts = Efforts::new();
        let effort = |scanned, freed| Effort { scanned, freed };
        efforts.attribute(Urgency::Background, effort(10, 4));
        efforts.attribute(Urgency::Direct, effort(25, 3));
        efforts.attribute(Urgency::Direct, effort(30, 6));
        efforts.attribute(Urgency::Background, effort(31, 9));
        assert_eq!((efforts.background, efforts.direct), (effort(11, 7), effort(20, 2)));
    }
}
