//! The vCPU's thread as the main thread sees it: started, kicked out of the guest, ended.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aerostat_link::message::Ending;
use kvm_bindings::CpuId;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use signal_hook::consts::{SIGUSR1, SIGUSR2};

use super::jail::{self, Thread};
use super::machine::Machine;
use super::process::ProcessError;
use super::process_host::ProcessHost;
use super::vcpu::{self, Controls, Devices};

/// How often a stop is repeated until the thread has seen it.
const STOP_AGAIN: Duration = Duration::from_millis(1);
/// The thread needs a small stack: its largest stack frame holds a batch.
const STACK_BYTES: usize = 128 << 10;

/// What a processor begins with.
#[derive(Debug)]
pub(super) struct FirstState {
    /// Its features.
    pub(super) features: CpuId,
    /// The address of its first instruction.
    pub(super) entry: u64,
}

/// The thread that runs the guest.
#[derive(Debug)]
pub(super) struct VcpuThread {
    handle: JoinHandle<Result<Ending, ProcessError>>,
    controls: Arc<Controls>,
    /// Becomes readable when the thread ends, by a panic too.
    pub(super) ended: Arc<OwnedFd>,
}

impl VcpuThread {
    /// Starts the thread, and with it the guest.
    pub(super) fn spawn(
        machine: Machine,
        first: FirstState,
        mut devices: Devices<ProcessHost>,
    ) -> Result<Self, ProcessError> {
        let ended = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let notice = EndNotice(Arc::clone(&ended));
        let controls = Arc::new(Controls::default());
        // The signal that stops the loop sets this flag.
        signal_hook::flag::register(SIGUSR1, Arc::clone(&controls.stop))?;
        signal_hook::flag::register(SIGUSR2, Arc::clone(&devices.inspection.is_wanted))?;
        let obeyed = Arc::clone(&controls);
        let handle = thread::Builder::new().name("vcpu".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            let _notice = notice;
            jail::confine(Thread::Vcpu)?;
            let mut vcpu = machine.into_vcpu(&first.features, first.entry)?;
            Ok(vcpu::run(&mut vcpu, &mut devices, &obeyed))
        })?;
        Ok(Self { handle, controls, ended })
    }

    /// Gets the vCPU out of the guest for a moment, to see whether an inspection is wanted, or the
    /// guest is to stand still.
    pub(super) fn kick(&self) {
        self.signal(SIGUSR2);
        self.handle.thread().unpark();
    }

    /// Pauses the guest. Until [`Self::needs_kick`] returns false, the caller kicks it.
    pub(super) fn pause(&self) {
        self.controls.gate.close();
    }

    /// Returns whether the guest is to stand still and does not yet.
    pub(super) fn needs_kick(&self) -> bool {
        self.controls.gate.needs_kick()
    }

    /// Lets a guest go on that was paused.
    pub(super) fn resume(&self) {
        self.controls.gate.open();
        self.handle.thread().unpark();
    }

    /// Gets the vCPU out of the guest and ends the thread. A signal that comes just before the
    /// processor enters the guest would be lost, so it is repeated.
    pub(super) fn stop(self) -> Result<Ending, ProcessError> {
        let patience = Timespec::try_from(STOP_AGAIN).ok();
        while !self.handle.is_finished() {
            self.signal(SIGUSR1);
            self.handle.thread().unpark();
            let _ = poll(&mut [PollFd::new(&self.ended, PollFlags::IN)], patience.as_ref());
        }
        self.join()
    }

    /// Returns how the guest ended, once the thread has.
    pub(super) fn join(self) -> Result<Ending, ProcessError> {
        match self.handle.join() {
            Ok(ending) => ending,
            Err(_) => Err(io::Error::other("the processor's thread panicked").into()),
        }
    }

    fn signal(&self, signal: libc::c_int) {
        // Which is a number in one C library and a pointer in another.
        let handle = self.handle.as_pthread_t() as libc::pthread_t;
        // SAFETY: the thread is not joined yet, so its handle is valid even where it has ended.
        unsafe { libc::pthread_kill(handle, signal) };
    }
}

/// Tells the main thread that this one ends, even by a panic.
struct EndNotice(Arc<OwnedFd>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        // The counter can't be full: this is its only write.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}
