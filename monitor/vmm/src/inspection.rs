//! Where the vCPU is, on request: a guest that hangs can't report it itself.
//!
//! The main thread makes a request, and kicks the vCPU's thread out of the guest by SIGUSR2, whose
//! handler notes the request. The vCPU's thread checks for a request between two runs, writes down
//! registers, return addresses and what the guest's threads are doing
//! ([`super::thread_table`]), and lets the guest go on. A signal that comes just
//! before the processor enters the guest would be lost, so the main thread repeats it for a while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aerostat_abi::threads;
use kvm_ioctls::VcpuFd;

use super::fault;
use super::layout::GuestAddress;
use super::lock::lock;
use super::memory::GuestMemory;
use super::thread_table;
use super::vcpu::Ignored;

/// The number of return addresses that are followed, as in the guest's own reports.
const MOST_FRAMES: usize = 24;
/// Kicks after which the vCPU is considered impossible to stop.
const MOST_KICKS: u32 = 500;

/// A request and its answer, shared by both threads.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    /// Set by the handler of the signal.
    pub(super) is_wanted: Arc<AtomicBool>,
    /// Where the guest's thread table is.
    thread_table: Option<GuestAddress>,
    answer: Mutex<Option<Vec<String>>>,
}

/// The main thread's side.
#[derive(Debug)]
pub(super) struct Inspector {
    shared: Arc<Inspection>,
    kicks_left: u32,
}

/// What the main thread has to do for a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no request, or it is answered.
    None,
    /// Get the vCPU out of the guest.
    Kick,
    /// Send this answer to the supervisor.
    Answer(Vec<String>),
}

impl Inspection {
    /// Returns a value without a request, for a guest with this thread table.
    pub(super) fn new(thread_table: Option<GuestAddress>) -> Self {
        Self { thread_table, ..Self::default() }
    }

    /// Answers a request, if there is one. For the vCPU's thread, between two runs.
    pub(super) fn serve(&self, vcpu: &VcpuFd, memory: &GuestMemory, ignored: &Ignored) {
        if self.is_wanted.swap(false, Ordering::Acquire) {
            let read = |address| read(vcpu, memory, address);
            let mut lines = fault::describe(vcpu, ignored);
            lines.extend(backtrace(vcpu, read));
            lines.extend(self.threads(memory, read));
            *lock(&self.answer) = Some(lines);
        }
    }

    /// Describes the guest's threads, if its image names a table.
    fn threads(&self, memory: &GuestMemory, read: impl Fn(u64) -> Option<u64>) -> Vec<String> {
        let mut table = [0; threads::WORDS];
        match self.thread_table {
            Some(address) if memory.read_words(address, &mut table).is_ok() => thread_table::describe(&table, read),
            _ => Vec::new(),
        }
    }
}

impl Inspector {
    pub(super) fn new(shared: Arc<Inspection>) -> Self {
        Self { shared, kicks_left: 0 }
    }

    /// Makes a request.
    pub(super) fn ask(&mut self) {
        *lock(&self.shared.answer) = None;
        self.kicks_left = MOST_KICKS;
    }

    /// Returns what is to be done now. After a kick, this has to be called again soon.
    pub(super) fn advance(&mut self) -> Step {
        if self.kicks_left == 0 {
            return Step::None;
        }
        if let Some(lines) = lock(&self.shared.answer).take() {
            self.kicks_left = 0;
            return Step::Answer(lines);
        }
        self.kicks_left -= 1;
        if self.kicks_left == 0 {
            return Step::Answer(vec!["its processor can't be stopped".to_owned()]);
        }
        Step::Kick
    }
}

/// Reads a word at a virtual address of the guest.
fn read(vcpu: &VcpuFd, memory: &GuestMemory, address: u64) -> Option<u64> {
    let translation = vcpu.translate_gva(address).ok().filter(|translation| translation.valid != 0)?;
    let mut word = [0];
    memory.read_words(GuestAddress(translation.physical_address), &mut word).ok()?;
    Some(word[0])
}

/// Returns the guest's return addresses, innermost first.
fn backtrace(vcpu: &VcpuFd, read: impl Fn(u64) -> Option<u64>) -> Vec<String> {
    let Ok(registers) = vcpu.get_regs() else { return Vec::new() };
    let lines = chain(registers.rbp, read).map(|address| format!("  {address:#x}"));
    ["backtrace:".to_owned(), format!("  {:#x}", registers.rip)].into_iter().chain(lines).collect()
}

/// Follows the chain of frame pointers that begins at `frame`, as far as it leads up one stack;
/// returns the return addresses.
pub(super) fn chain(frame: u64, read: impl Fn(u64) -> Option<u64>) -> impl Iterator<Item = u64> {
    let mut frame = Some(frame);
    std::iter::from_fn(move || {
        let here = frame.take().filter(|here| *here != 0 && here.is_multiple_of(8))?;
        let address = read(here.checked_add(8)?).filter(|&address| address != 0)?;
        frame = read(here).filter(|&next| next > here);
        Some(address)
    })
    .take(MOST_FRAMES)
}

#[cfg(test)]
mod tests {
    use super::{Inspection, Inspector, MOST_FRAMES, MOST_KICKS, Step, chain};
    use crate::lock::lock;
    use std::sync::Arc;

    /// Returns the addresses that a stack of (address, word) leads to.
    fn chain_in(stack: &[(u64, u64)], frame: u64) -> Vec<u64> {
        chain(frame, |address| stack.iter().find(|(at, _)| *at == address).map(|(_, word)| *word)).collect()
    }

    #[test]
    fn a_chain_ends_where_it_leaves_the_stack() {
        let stack = [(0x100, 0x200), (0x108, 0xa), (0x200, 0x300), (0x208, 0xb), (0x308, 0xc)];
        assert_eq!(chain_in(&stack, 0x100), [0xa, 0xb, 0xc]);
        assert_eq!(chain_in(&stack, 0x101), [0; 0], "no frame is misaligned");
        assert_eq!(chain_in(&stack, u64::MAX - 7), [0; 0]);
    }

    #[test]
    fn a_chain_that_a_guest_has_made_up_ends() {
        assert_eq!(chain_in(&[(0x100, 0x100), (0x108, 0xa)], 0x100), [0xa], "no circles");
        assert_eq!(chain(8, |address| Some(address + 8)).count(), MOST_FRAMES);
    }

    #[test]
    fn a_request_is_answered_or_given_up() {
        let shared = Arc::new(Inspection::default());
        let mut inspector = Inspector::new(Arc::clone(&shared));
        assert_eq!(inspector.advance(), Step::None);
        inspector.ask();
        assert_eq!(inspector.advance(), Step::Kick);
        *lock(&shared.answer) = Some(vec!["here".to_owned()]);
        assert_eq!(inspector.advance(), Step::Answer(vec!["here".to_owned()]));
        assert_eq!(inspector.advance(), Step::None);
        inspector.ask();
        let kicks = (0..).take_while(|_| inspector.advance() == Step::Kick).count();
        assert_eq!(kicks, MOST_KICKS as usize - 1);
        assert_eq!(inspector.advance(), Step::None);
    }
}
