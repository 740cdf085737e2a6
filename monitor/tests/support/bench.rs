//! A directory with one tiny guest in it, and the means to run that guest.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aerostat::host::disk::Disks;
use aerostat::host::vmm_guest::{GuestConfig, VmmGuest};
use aerostat::host::{EndReason, Ending, GuestEvent, GuestHandle};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::elf;

/// The longest that any wait may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the program that runs guests. Cargo does not build another package's programs for a
/// test.
#[allow(dead_code, reason = "for some of the tests")]
pub(crate) fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_aerostat")).with_file_name("aerostat-vmm");
    assert!(program.exists(), "run `cargo build -p aerostat-vmm` first");
    program
}

/// A directory with one image in it, and the means to run it.
pub(crate) struct Bench {
    directory: tempfile::TempDir,
    pub(crate) config: GuestConfig,
}

impl Bench {
    pub(crate) fn new(code: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("guest");
        std::fs::write(&image, elf::image(code, 0x1_0000)).unwrap();
        let config = GuestConfig {
            name: "tiny".to_owned(),
            image,
            memory: FrameCount::from_mib(128),
            initial_grant: FrameCount::from_mib(128),
            command_line: "verbose=1".to_owned(),
            disks: Disks::default(),
            host_swap: None,
            log: Some(directory.path().join("log")),
            pool: None,
            program: program(),
            succession: None,
        };
        Self { directory, config }
    }

    /// Makes a program of this script of `sh`, which has the link as standard input. Another
    /// process writes it: a file that this one has open for writing can't be executed.
    #[allow(dead_code, reason = "for some of the tests")]
    pub(crate) fn program_of(&self, script: &str) -> PathBuf {
        let path = self.directory.path().join("program");
        let write = "printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\" && chmod +x \"$0\"";
        let status = Command::new("sh").args(["-c", write]).arg(&path).arg(script).status();
        assert!(status.is_ok_and(|status| status.success()));
        path
    }

    pub(crate) fn spawn(&self) -> VmmGuest {
        VmmGuest::spawn(&self.config).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

/// Waits for the next event as a supervisor would, and returns it.
pub(crate) fn next(guest: &mut VmmGuest) -> GuestEvent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(event) = guest.next_event() {
            return event;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no event came");
        let mut source = [PollFd::from_borrowed_fd(guest.event_fd(), PollFlags::IN)];
        poll(&mut source, Some(&Timespec::try_from(left).unwrap())).unwrap();
    }
}

/// Returns how the guest ends.
pub(crate) fn end(guest: &mut VmmGuest) -> Ending {
    loop {
        if let GuestEvent::Ended(ending) = next(guest) {
            assert_eq!(guest.next_event(), None, "the end comes once");
            assert!(!PathBuf::from(format!("/proc/{}", guest.pid())).exists(), "no zombie is left");
            return ending;
        }
    }
}

/// Returns the end of a guest that succeeded.
pub(crate) const SUCCESS: Ending = Ending { reason: EndReason::Exited(GuestExit::Success), details: Vec::new() };
