//! What a process does that a supervisor can only notice from outside.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use aerostat_abi::units::{FRAME_SIZE, FrameCount, to_usize};
use anyhow::{Result, bail};

/// Ignores every signal that can be ignored.
pub(crate) fn ignore_signals() {
    for signal in 1..32 {
        // SAFETY: no handler is installed; where the signal can't be ignored, nothing changes.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Leaves a process behind that has the link as its standard input, for a while.
pub(crate) fn fork() -> Result<()> {
    Command::new("sleep").arg("2").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(())
}

/// Writes to more and more memory, up to a limit far beyond any target.
pub(crate) fn grow(most: FrameCount) -> Result<()> {
    let mut held = Vec::new();
    while held.len() < to_usize(most.0) {
        held.push(vec![1_u8; FRAME_SIZE]);
        if held.len().is_multiple_of(64) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    thread::sleep(Duration::from_secs(60));
    bail!("it holds {} frames and was not ended", held.len())
}
