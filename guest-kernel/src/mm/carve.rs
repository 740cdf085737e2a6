//! Cuts one stretch of zeroed memory into the slices that the frame bookkeeping consists of.

/// What is left of the stretch.
#[derive(Debug)]
pub(crate) struct Carver {
    rest: &'static mut [u64],
}

impl Carver {
    /// `words` must be zero: zero means "empty" and "untouched" to whoever carves.
    pub(crate) fn new(words: &'static mut [u64]) -> Self {
        Self { rest: words }
    }

    /// The next `words` words.
    ///
    /// # Panics
    /// When the stretch is too short: whoever reserved it asked for too little.
    pub(crate) fn take(&mut self, words: usize) -> &'static mut [u64] {
        let (taken, rest) = core::mem::take(&mut self.rest).split_at_mut(words);
        self.rest = rest;
        taken
    }

    /// A stretch of leaked heap memory.
    #[cfg(test)]
    pub(crate) fn leaked(words: usize) -> Self {
        Self::new(Box::leak(vec![0; words].into_boxed_slice()))
    }
}
