//! A process that a test or a bench has started, and that must not outlive it.

use std::ops::{Deref, DerefMut};
use std::process::Child;

/// A child process that is killed when the value is dropped.
#[derive(Debug)]
pub struct OwnedProcess(pub Child);

impl Deref for OwnedProcess {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for OwnedProcess {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for OwnedProcess {
    fn drop(&mut self) {
        // Both fail only if the process has ended and was reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
