//! A guest's threads, from the table that its kernel keeps in its image
//! ([`aerostat_abi::threads`]). Pure; nothing in the table is trusted.

use aerostat_abi::threads::{self, SAVED_RBP, SAVED_RIP, State, WORDS};

use super::inspection::chain;

/// Return addresses that are followed for each thread. All threads together must fit a message.
const MOST_FRAMES: usize = 12;

/// Describes the threads of a table, two lines each: what it is doing, and for one that does not
/// run, where it goes on and its return addresses, innermost first. `read` reads a word of the
/// guest's virtual memory.
pub(super) fn describe(table: &[u64; WORDS], read: impl Fn(u64) -> Option<u64>) -> Vec<String> {
    let threads = match threads::decode(table) {
        Ok(threads) => threads,
        Err(error) => return vec![format!("threads: {error}")],
    };
    let mut lines = vec!["threads:".to_owned()];
    for (place, thread) in threads {
        lines.push(format!("  {place} {}: {}", thread.name.as_str(), activity(thread.state)));
        if thread.state != State::Running {
            lines.extend(addresses(thread.stack_pointer, &read));
        }
    }
    lines
}

fn activity(state: State) -> String {
    let State::Waiting { wait, key, until_ns } = state else {
        return if state == State::Running { "runs, with the registers above" } else { "ready to run" }.to_owned();
    };
    let mut text = match wait {
        Some(wait) => format!("waits for {wait}"),
        None => "waits for something that this monitor does not know".to_owned(),
    };
    if key != 0 {
        text += &format!(" at {key:#x}");
    }
    if until_ns != 0 {
        // As the guest's log writes it.
        let micros = until_ns / 1000;
        text += &format!(", until [{:5}.{:06}]", micros / 1_000_000, micros % 1_000_000);
    }
    text
}

/// Returns the addresses of a thread whose registers lie at its stack pointer, as a line.
fn addresses(stack_pointer: u64, read: &impl Fn(u64) -> Option<u64>) -> Option<String> {
    let rip = read(stack_pointer.checked_add(SAVED_RIP)?)?;
    let rbp = read(stack_pointer.checked_add(SAVED_RBP)?)?;
    let mut line = format!("    {rip:#x}");
    for address in chain(rbp, read).take(MOST_FRAMES) {
        line += &format!(" {address:#x}");
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::{MOST_FRAMES, describe};
    use aerostat_abi::threads::{
        ENTRY_WORDS, HEADER_WORDS, MAGIC, NAME_WORD, Name, PLACES, State, VERSION, WORDS, Wait,
    };
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::{prop_assert, proptest};

    fn table(threads: &[(&str, State, u64)]) -> [u64; WORDS] {
        let mut table = [0; WORDS];
        (table[0], table[1]) = (MAGIC, VERSION);
        for (place, (name, state, stack_pointer)) in threads.iter().enumerate() {
            let entry = &mut table[HEADER_WORDS + place * ENTRY_WORDS..][..ENTRY_WORDS];
            let [word, key, until] = State::encode(Some(*state));
            (entry[0], entry[1], entry[2], entry[3]) = (word, *stack_pointer, key, until);
            entry[NAME_WORD..NAME_WORD + 3].copy_from_slice(&Name::new(name).encode());
        }
        table
    }

    #[test]
    fn each_thread_is_described() {
        let memory = State::Waiting { wait: Some(Wait::Memory), key: 0x20_0040, until_ns: 12_345_678_000 };
        let table = table(&[("idle", State::Ready, 0), ("main", State::Running, 0x10), ("worker", memory, 0x1000)]);
        // Six registers, the last of them RBP, and an address; then a frame.
        let read = |address| match address {
            0x1028 => Some(0x1100),
            0x1030 => Some(0xa1),
            0x1100 => Some(0),
            0x1108 => Some(0xa2),
            _ => None,
        };
        assert_eq!(
            describe(&table, read),
            [
                "threads:",
                "  0 idle: ready to run",
                "  1 main: runs, with the registers above",
                "  2 worker: waits for memory at 0x200040, until [   12.345678]",
                "    0xa1 0xa2",
            ]
        );
    }

    #[test]
    fn memory_without_a_table_is_no_table() {
        assert_eq!(describe(&[0; WORDS], |_| Some(1)), ["threads: its kernel has no threads yet"]);
        assert_eq!(describe(&[u64::MAX; WORDS], |_| Some(1)), ["threads: its kernel has no threads yet"]);
    }

    proptest! {
        /// The answer fits a message, whatever the guest writes.
        #[test]
        fn a_hostile_table_has_a_short_answer(words in vec(any::<u64>(), WORDS)) {
            let mut table: [u64; WORDS] = words.try_into().unwrap();
            (table[0], table[1]) = (MAGIC, VERSION);
            for place in 0..PLACES {
                table[HEADER_WORDS + place * ENTRY_WORDS] |= 3;
            }
            let lines = describe(&table, |address| Some(address.wrapping_add(8)));
            prop_assert!(lines.len() <= 1 + 2 * PLACES);
            let longest = 4 + (1 + MOST_FRAMES) * 19;
            prop_assert!(lines.iter().all(|line| line.len() <= longest && line.is_ascii()));
        }
    }
}
