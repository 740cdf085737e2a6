//! What a guest reports about itself: a record of 64-bit words, little-endian, that REPORT names by
//! address.
//!
//! Sizes of memory are in bytes, now or since boot; counts are since boot. Where Linux has a name
//! for a value, the field's documentation has it: from the virtio balloon's statistics (virtio 1.3,
//! section 5.5.6.4) or from `/proc/meminfo`.
//!
//! The monitor treats every field as a hint, since a guest may lie. The monitor itself measures
//! resident memory and the balloon's size.

use crate::text::{self, Text};

/// Classes of age in [`Statistics::working_set_bytes`].
pub const AGES: usize = 4;
/// The number of entry statuses for which [`Statistics::refused_entries`] has room.
pub const STATUSES: usize = 16;

/// A type of field: it fills whole words of the record.
trait Field<const WORDS: usize>: Sized {
    fn encode(&self) -> [u64; WORDS];
    fn decode(words: &[u64; WORDS]) -> Self;
}

impl Field<1> for u64 {
    fn encode(&self) -> [u64; 1] {
        [*self]
    }

    fn decode(words: &[u64; 1]) -> Self {
        words[0]
    }
}

impl<const WORDS: usize> Field<WORDS> for [u64; WORDS] {
    fn encode(&self) -> [u64; WORDS] {
        *self
    }

    fn decode(words: &[u64; WORDS]) -> Self {
        *words
    }
}

impl Field<{ text::WORDS }> for Text {
    fn encode(&self) -> [u64; text::WORDS] {
        Text::encode(self)
    }

    fn decode(words: &[u64; text::WORDS]) -> Self {
        Text::decode(words)
    }
}

/// Defines the record from one list of fields: each with its docs, its type and the words that it
/// takes.
macro_rules! record {
    ($($(#[$docs:meta])* $field:ident: $type:ty, $words:expr;)*) => {
        /// A guest's report.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Statistics {
            $($(#[$docs])* pub $field: $type,)*
        }

        /// The number of words in the record.
        pub const WORDS: usize = 0 $(+ $words)*;

        impl Statistics {
            /// Returns the record's words.
            #[must_use]
            pub fn encode(&self) -> [u64; WORDS] {
                let mut words = [0; WORDS];
                let rest = &mut words[..];
                $(
                    let (field, rest) = rest.split_at_mut($words);
                    field.copy_from_slice(&Field::<{ $words }>::encode(&self.$field));
                )*
                debug_assert!(rest.is_empty());
                words
            }

            /// Returns the report in the record's words.
            #[must_use]
            pub fn decode(words: &[u64; WORDS]) -> Self {
                let rest = &words[..];
                $(
                    let (field, rest) = rest.split_first_chunk::<{ $words }>().expect("the fields add up to the words");
                    let $field = Field::<{ $words }>::decode(field);
                )*
                debug_assert!(rest.is_empty());
                Self { $($field,)* }
            }
        }

        /// Names of the fields and their words, in order.
        #[cfg(test)]
        const FIELDS: &[(&str, usize)] = &[$((stringify!($field), $words),)*];
    };
}

record! {
    /// All memory of the machine, balloon included. `total-memory`, `MemTotal`.
    total_memory_bytes: u64, 1;
    /// Free memory. `free-memory`, `MemFree`.
    free_memory_bytes: u64, 1;
    /// Memory that could be used without eviction: what is free and the pages of files, less the
    /// kernel's floor. `available-memory`, `MemAvailable`.
    available_memory_bytes: u64, 1;
    /// Pages of files in memory. `disk-caches`, `Cached`.
    disk_caches_bytes: u64, 1;
    /// Memory in the balloon, as the driver counts it.
    balloon_bytes: u64, 1;
    /// What would be in use if nothing were evicted and every commit charge to an application kept.
    /// `Committed_AS`, the kernel's own memory included.
    committed_bytes: u64, 1;
    /// Memory that can still be committed to applications, in free memory and in swap that are not
    /// committed. `CommitLimit` less `Committed_AS`.
    committable_bytes: u64, 1;
    /// Memory that threads of the guest wait for now, in addition to what is committed.
    wanted_bytes: u64, 1;
    /// Pages in the compressed pool, in their size outside it. `Zswapped`.
    zswapped_bytes: u64, 1;
    /// Memory that these pages take in it. `Zswap`.
    zswap_bytes: u64, 1;
    /// Size of the swap disk. `SwapTotal`.
    swap_total_bytes: u64, 1;
    /// The unused part of it. `SwapFree`.
    swap_free_bytes: u64, 1;
    /// Pages on the swap disk, in their size in memory; those that went there compressed take less.
    swapped_bytes: u64, 1;
    /// Free memory in whole huge frames that the host still backs. The driver inflates this first,
    /// as it costs the guest nothing and frees memory on the host.
    backed_free_bytes: u64, 1;
    /// The pages of applications and files in memory by age: in use, two classes between, idle. A
    /// guest that samples has pages in the first and the last class only; zero where nothing is
    /// known.
    working_set_bytes: [u64; AGES], AGES;
    /// Read from the swap disk since boot. `swap-in`.
    swap_in_bytes: u64, 1;
    /// Written to the swap disk since boot. `swap-out`.
    swap_out_bytes: u64, 1;
    /// Page faults since boot that waited for a disk. `major-faults`.
    major_faults: u64, 1;
    /// Page faults since boot that did not wait for one. `minor-faults`.
    minor_faults: u64, 1;
    /// Of those, faults that mapped 2 MiB at once. Linux's `thp_fault_alloc`.
    huge_faults: u64, 1;
    /// Commit charges and page faults since boot that found no memory and had to wait for the host
    /// or for eviction. `alloc-stalls`.
    alloc_stalls: u64, 1;
    /// Of those, the ones that failed in the end.
    alloc_failures: u64, 1;
    /// Memory that was scanned since boot in the background, or for the balloon. `async-scan`.
    async_scan_bytes: u64, 1;
    /// Memory that direct reclaim scanned since boot. `direct-scan`.
    direct_scan_bytes: u64, 1;
    /// Memory that reclaim made free since boot, in the background, or for the balloon.
    /// `async-reclaim`.
    async_reclaim_bytes: u64, 1;
    /// Memory that direct reclaim made free since boot. `direct-reclaim`.
    direct_reclaim_bytes: u64, 1;
    /// Pages evicted since boot, to any place.
    evictions: u64, 1;
    /// Evicted pages brought back since boot.
    restores: u64, 1;
    /// Of those, pages that had been evicted shortly before: memory is too small for the load.
    refaults: u64, 1;
    /// Nanoseconds since boot in which at least one thread waited for memory.
    stalled_ns: u64, 1;
    /// The recent share of time in which a thread waited for memory, in thousandths.
    pressure_per_mille: u64, 1;
    /// How fast the driver allows itself to inflate.
    rate_bytes_per_s: u64, 1;
    /// Times since boot that the driver found no memory to inflate.
    balloon_alloc_failures: u64, 1;
    /// Nanoseconds since boot that the driver spent on inflating.
    inflating_ns: u64, 1;
    /// Nanoseconds since boot that it spent on deflating.
    deflating_ns: u64, 1;
    /// Entries since boot that were not done, by the code of their [`crate::batch::EntryStatus`].
    refused_entries: [u64; STATUSES], STATUSES;
    /// The driver's state and its stall reason, as a text of the driver.
    balloon_state: Text, text::WORDS;
    /// The driver's last error, as a text of the driver.
    balloon_error: Text, text::WORDS;
    /// Bytes since boot that the application read back and found correct.
    verified_bytes: u64, 1;
    /// Errors since boot that the application found.
    app_errors: u64, 1;
    /// The application's activity, as a text of the application.
    activity: Text, text::WORDS;
}

/// The size of the record in bytes.
pub const BYTES: usize = WORDS * size_of::<u64>();

#[cfg(test)]
mod tests {
    use super::{BYTES, FIELDS, STATUSES, Statistics, WORDS};
    use crate::batch::EntryStatus;
    use crate::text::Text;
    use proptest::{prop_assert_eq, proptest};
    use std::format;

    proptest! {
        #[test]
        fn records_survive_a_round_trip(words: [u64; WORDS]) {
            prop_assert_eq!(Statistics::decode(&words).encode(), words);
        }
    }

    #[test]
    fn the_documentation_has_the_offset_of_each_field() {
        let documentation = include_str!("../../docs/balloon-port.md");
        let mut offset = 0;
        for (name, words) in FIELDS {
            let row = format!("| {offset} | `{name}` |");
            assert!(documentation.lines().any(|line| line.starts_with(&row)), "a row that begins with {row}");
            offset += words * 8;
        }
        assert_eq!(offset, BYTES);
        assert!(documentation.contains(&format!("a record of {BYTES} bytes")));
    }

    #[test]
    fn each_field_is_encoded_at_its_offset() {
        let mut words = [0; WORDS];
        words[7] = 77;
        words[WORDS - 8] = u64::from(b'x');
        let expected = Statistics { wanted_bytes: 77, activity: Text::new("x"), ..Statistics::default() };
        assert_eq!(Statistics::decode(&words), expected);
    }

    #[test]
    fn refused_entries_has_room_for_every_status() {
        assert!(EntryStatus::ALL.into_iter().all(|status| usize::from(status.code()) < STATUSES));
    }
}
