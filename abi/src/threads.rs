//! The thread table: what a guest's threads are doing, for the VMM process to read when it is asked
//! where the guest is. Nothing has to run in the guest for that.
//!
//! The table lies in the image, at the address that a note of the image names ([`NOTE_OWNER`],
//! [`NOTE_KIND`]). It is a header of [`HEADER_WORDS`] words and [`PLACES`] entries of
//! [`ENTRY_WORDS`] words, little-endian. The guest keeps it up to date; it is all zero until its
//! kernel has threads.
//!
//! | word of the header | |
//! |---|---|
//! | 0 | [`MAGIC`] |
//! | 1 | [`VERSION`] |
//! | others | zero |
//!
//! | word of an entry | |
//! |---|---|
//! | 0 | bits 0-7: 0 no thread, 1 ready, 2 running, 3 waiting; bits 8-15: for what ([`Wait`]) |
//! | 1 | the stack pointer of a thread that does not run |
//! | 2 | what it waits for: an address, or zero |
//! | 3 | until when it waits at most, in nanoseconds since boot; zero without a limit |
//! | 4-6 | its name, padded with zeros |
//! | 7 | zero |
//!
//! At the stack pointer lie the registers R15, R14, R13, R12, RBX and RBP, and the address at which
//! the thread goes on ([`SAVED_RBP`], [`SAVED_RIP`]).
//!
//! The reader trusts none of it: unknown values decode as nothing, and a name ends where it is not
//! printable.

use core::fmt;

/// The owner of the note, with its final zero.
pub const NOTE_OWNER: [u8; 9] = *b"AEROSTAT\0";
/// The type of the note. Its description is the table's address, 64 bits.
pub const NOTE_KIND: u32 = 1;

/// The first word of a table.
pub const MAGIC: u64 = u64::from_le_bytes(*b"threads\0");
/// The version of the layout.
pub const VERSION: u64 = 1;

/// Entries of a table.
pub const PLACES: usize = 64;
/// Words of the header.
pub const HEADER_WORDS: usize = 4;
/// Words of an entry.
pub const ENTRY_WORDS: usize = 8;
/// Words of a table.
pub const WORDS: usize = HEADER_WORDS + PLACES * ENTRY_WORDS;
/// The word of an entry that is its stack pointer.
pub const STACK_POINTER_WORD: usize = 1;
/// The first word of an entry's name.
pub const NAME_WORD: usize = 4;
/// Bytes of a name.
const NAME_BYTES: usize = 24;

/// The distance of the saved RBP from the stack pointer.
pub const SAVED_RBP: u64 = 40;
/// The distance of the saved RIP from the stack pointer.
pub const SAVED_RIP: u64 = 48;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wait {
    /// A moment.
    Timer = 1,
    /// Memory, from the host or from other threads.
    Memory = 2,
    /// A disk.
    Disk = 3,
    /// An answer of the host.
    Host = 4,
    /// A lock that another thread holds.
    Lock = 5,
    /// The end of another thread.
    Thread = 6,
    /// An event that the application signals.
    Event = 7,
    /// Work, as a thread of the kernel does.
    Work = 8,
}

impl Wait {
    const ALL: [Self; 8] =
        [Self::Timer, Self::Memory, Self::Disk, Self::Host, Self::Lock, Self::Thread, Self::Event, Self::Work];
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timer => "the timer",
            Self::Memory => "memory",
            Self::Disk => "a disk",
            Self::Host => "the host's answer",
            Self::Lock => "a lock",
            Self::Thread => "another thread's end",
            Self::Event => "an event",
            Self::Work => "work",
        })
    }
}

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It could run.
    Ready,
    /// It runs: its registers are the processor's.
    Running,
    /// It waits.
    Waiting {
        /// What for; `None` where the reader does not know it.
        wait: Option<Wait>,
        /// The address of what it waits for, or zero.
        key: u64,
        /// Until when at most, in nanoseconds since boot, or zero.
        until_ns: u64,
    },
}

impl State {
    /// Returns the words 0, 2 and 3 of an entry; `None` is a place without a thread.
    #[must_use]
    pub const fn encode(state: Option<Self>) -> [u64; 3] {
        match state {
            None => [0; 3],
            Some(Self::Ready) => [1, 0, 0],
            Some(Self::Running) => [2, 0, 0],
            Some(Self::Waiting { wait, key, until_ns }) => {
                let reason = match wait {
                    Some(wait) => (wait as u64) << 8,
                    None => 0,
                };
                [3 | reason, key, until_ns]
            }
        }
    }

    const fn decode([word, key, until_ns]: [u64; 3]) -> Option<Self> {
        match word & 0xff {
            1 => Some(Self::Ready),
            2 => Some(Self::Running),
            3 => {
                let reason = (word >> 8) & 0xff;
                let mut wait = None;
                let mut place = 0;
                while place < Wait::ALL.len() {
                    if Wait::ALL[place] as u64 == reason {
                        wait = Some(Wait::ALL[place]);
                    }
                    place += 1;
                }
                Some(Self::Waiting { wait, key, until_ns })
            }
            _ => None,
        }
    }
}

/// A thread's name: printable ASCII, 24 bytes at most.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name([u8; NAME_BYTES]);

impl Name {
    /// Returns `name`, cut to fit and where it is not printable.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; NAME_BYTES];
        for (place, byte) in bytes.iter_mut().zip(name.bytes().take_while(|byte| is_printable(*byte))) {
            *place = byte;
        }
        Self(bytes)
    }

    /// Returns the words from [`NAME_WORD`] on.
    #[must_use]
    pub fn encode(&self) -> [u64; 3] {
        let mut words = [0; 3];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }

    fn decode(words: [u64; 3]) -> Self {
        let mut bytes = [0; NAME_BYTES];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        Self(bytes)
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| !is_printable(byte)).unwrap_or(NAME_BYTES);
        core::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

const fn is_printable(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}

/// An entry that is a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its name.
    pub name: Name,
    /// What it is doing.
    pub state: State,
    /// Its stack pointer, unless it runs.
    pub stack_pointer: u64,
}

/// Why a table can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// It is no table, or the kernel has not begun it.
    Absent,
    /// It has another version.
    Version(u64),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("its kernel has no threads yet"),
            Self::Version(version) => write!(f, "its thread table has version {version}, this monitor reads {VERSION}"),
        }
    }
}

/// Returns the threads of a table with their places.
///
/// # Errors
/// [`TableError`].
pub fn decode(table: &[u64; WORDS]) -> Result<impl Iterator<Item = (usize, Thread)>, TableError> {
    if table[0] != MAGIC {
        return Err(TableError::Absent);
    }
    if table[1] != VERSION {
        return Err(TableError::Version(table[1]));
    }
    let entries = table[HEADER_WORDS..].as_chunks::<ENTRY_WORDS>().0.iter().enumerate();
    Ok(entries.filter_map(|(place, &[state, stack_pointer, key, until_ns, first, second, third, _])| {
        let state = State::decode([state, key, until_ns])?;
        Some((place, Thread { name: Name::decode([first, second, third]), state, stack_pointer }))
    }))
}

#[cfg(test)]
mod tests {
    use super::{HEADER_WORDS, MAGIC, Name, State, TableError, VERSION, WORDS, Wait, decode};
    use proptest::array::uniform3;
    use proptest::prelude::any;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use std::vec::Vec;

    fn table(entries: &[[u64; 8]]) -> [u64; WORDS] {
        let mut table = [0; WORDS];
        (table[0], table[1]) = (MAGIC, VERSION);
        for (words, entry) in table[HEADER_WORDS..].as_chunks_mut().0.iter_mut().zip(entries) {
            *words = *entry;
        }
        table
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let waiting = State::Waiting { wait: Some(Wait::Disk), key: 0x20_0010, until_ns: 7 };
        let [state, key, until] = State::encode(Some(waiting));
        let [first, second, third] = Name::new("worker").encode();
        let [running, ..] = State::encode(Some(State::Running));
        let entries = [[running, 0, 0, 0, 0, 0, 0, 0], [0; 8], [state, 0x4000, key, until, first, second, third, 0]];
        let threads: Vec<_> = decode(&table(&entries)).unwrap().collect();
        assert_eq!(threads.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 2]);
        let (_, worker) = threads[1];
        assert_eq!((worker.name.as_str(), worker.state, worker.stack_pointer), ("worker", waiting, 0x4000));
        assert_eq!(State::encode(None), [0; 3]);
    }

    #[test]
    fn other_versions_and_memory_without_a_table_are_refused() {
        assert_eq!(decode(&[0; WORDS]).err(), Some(TableError::Absent));
        let mut other = table(&[]);
        other[1] = 2;
        assert_eq!(decode(&other).err(), Some(TableError::Version(2)));
    }

    #[test]
    fn names_are_cut_where_they_are_not_printable() {
        assert_eq!(Name::new("a thread with a very long name").as_str(), "a thread with a very lon");
        assert_eq!(Name::new("bell\u{7}").as_str(), "bell");
        assert_eq!(Name::decode([u64::MAX; 3]).as_str(), "");
    }

    proptest! {
        #[test]
        fn hostile_tables_decode_to_printable_names(
            words in uniform3(any::<u64>()),
            noise: [u64; 16],
            at in 0..WORDS - 16,
        ) {
            let mut hostile = table(&[]);
            hostile[at..at + 16].copy_from_slice(&noise);
            (hostile[0], hostile[1]) = (MAGIC, VERSION);
            for (place, thread) in decode(&hostile).unwrap() {
                prop_assert!(place < super::PLACES);
                prop_assert!(thread.name.as_str().bytes().all(super::is_printable));
            }
            prop_assert!(Name::decode(words).as_str().len() <= 24);
            let state = State::decode(words);
            if let Some(state @ (State::Ready | State::Running)) = state {
                prop_assert_eq!(State::decode(State::encode(Some(state))), Some(state));
            }
        }
    }
}
