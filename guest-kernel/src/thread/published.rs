//! The thread table that the VMM process reads when it is asked where the guest is; see
//! [`aerostat_abi::threads`].
//!
//! The scheduler's lock is held for every change. The reader stops the processor first, so at worst
//! it meets a change that is half done.

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::threads::{
    ENTRY_WORDS, HEADER_WORDS, MAGIC, NAME_WORD, Name, PLACES, STACK_POINTER_WORD, State, VERSION, WORDS,
};

use super::table::ThreadId;
use crate::config::MAX_THREADS;

const _: () = assert!(MAX_THREADS <= PLACES);

/// The guest's table.
pub(super) static PUBLISHED: Published = Published::new();

/// A thread table as the reader finds it.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Published([AtomicU64; WORDS]);

impl Published {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Completes the header: from now on it is a table.
    pub(super) fn begin(&self) {
        self.0[1].store(VERSION, Ordering::Relaxed);
        self.0[0].store(MAGIC, Ordering::Relaxed);
    }

    pub(super) fn set_name(&self, thread: ThreadId, name: &str) {
        for (place, word) in (NAME_WORD..).zip(Name::new(name).encode()) {
            self.word(thread, place).store(word, Ordering::Relaxed);
        }
    }

    /// Sets what a thread is doing; `None` where there is no thread any more.
    pub(super) fn set_state(&self, thread: ThreadId, state: Option<State>) {
        let [word, key, until] = State::encode(state);
        self.word(thread, 2).store(key, Ordering::Relaxed);
        self.word(thread, 3).store(until, Ordering::Relaxed);
        self.word(thread, 0).store(word, Ordering::Relaxed);
    }

    /// Returns the word that holds the stack pointer of a thread that does not run.
    pub(super) fn stack_pointer(&self, thread: ThreadId) -> &AtomicU64 {
        self.word(thread, STACK_POINTER_WORD)
    }

    fn word(&self, thread: ThreadId, word: usize) -> &AtomicU64 {
        &self.0[HEADER_WORDS + thread.index() * ENTRY_WORDS + word]
    }

    #[cfg(test)]
    pub(super) fn words(&self) -> [u64; WORDS] {
        self.0.each_ref().map(|word| word.load(Ordering::Relaxed))
    }
}

/// The note of the image that names the table's address.
#[cfg(target_os = "none")]
mod note {
    #![allow(unsafe_code, reason = "places the note")]

    use aerostat_abi::threads::{NOTE_KIND, NOTE_OWNER};

    use super::{PUBLISHED, Published};

    /// A note as ELF has it, with an alignment of four bytes.
    #[repr(C, packed(4))]
    struct Note {
        owner_bytes: u32,
        description_bytes: u32,
        kind: u32,
        owner: [u8; 12],
        table: &'static Published,
    }

    #[used]
    // SAFETY: the section holds notes of this form only.
    #[unsafe(link_section = ".note.aerostat")]
    static NOTE: Note = Note {
        owner_bytes: 9,
        description_bytes: 8,
        kind: NOTE_KIND,
        owner: {
            let mut padded = [0; 12];
            padded.split_at_mut(9).0.copy_from_slice(&NOTE_OWNER);
            padded
        },
        table: &PUBLISHED,
    };
}
