//! The register page that this process uses now. Another supervisor brings another page.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use aerostat_link::SharedPage;

/// The page, shared by all threads.
#[derive(Debug)]
pub(super) struct SharedRegisters(RwLock<SharedPage>);

impl SharedRegisters {
    pub(super) fn new(page: SharedPage) -> Self {
        Self(RwLock::new(page))
    }

    /// Returns the page, which is not replaced as long as the result lives: to be used in one
    /// expression, and not while the thread has another one.
    pub(super) fn page(&self) -> RwLockReadGuard<'_, SharedPage> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses `next` from now on. What this process has published is carried over, so nothing that
    /// any thread publishes is lost. The caller holds the balloon device's lock, so no operation is
    /// under way that has read the old target.
    pub(super) fn replace(&self, next: SharedPage) {
        let mut page = self.0.write().unwrap_or_else(PoisonError::into_inner);
        next.carry_over(&page);
        *page = next;
    }
}

#[cfg(test)]
mod tests {
    use super::SharedRegisters;
    use aerostat_abi::registers::Epoch;
    use aerostat_abi::units::FrameCount;
    use aerostat_link::SharedPage;
    use std::sync::Barrier;
    use std::thread;

    /// A thread publishes while pages are replaced. What it has published is in the page that is in
    /// use, at any time.
    #[test]
    fn nothing_that_is_published_is_lost() {
        let page = |epoch| SharedPage::create_at(FrameCount(7), Epoch(epoch)).unwrap().0;
        let registers = SharedRegisters::new(page(1));
        let begin = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                begin.wait();
                for lines in 1..20_000 {
                    registers.page().set_dropped_lines(lines);
                    assert_eq!(registers.page().facts().dropped_lines, lines);
                }
            });
            begin.wait();
            (2..200).for_each(|epoch| registers.replace(page(epoch)));
        });
        assert_eq!((registers.page().facts().dropped_lines, registers.page().target_epoch()), (19_999, Epoch(199)));
    }
}
