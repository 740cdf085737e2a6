//! A clock that stands still unless a test moves it.

use core::cell::Cell;
use std::rc::Rc;

/// Time that passes only when the test or a fake spends it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Rc<Cell<u64>>);

impl Clock {
    pub(crate) fn now_ns(&self) -> u64 {
        self.0.get()
    }

    pub(crate) fn spend(&self, nanoseconds: u64) {
        self.0.set(self.0.get() + nanoseconds);
    }

    pub(crate) fn wait_until(&self, moment_ns: u64) {
        self.0.set(self.0.get().max(moment_ns));
    }
}
