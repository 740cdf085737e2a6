//! What a guest reports about itself: a record of 64-bit words, little-endian, that REPORT names by address.
//!
//! The monitor treats every field as a hint: a guest may lie, and what counts (resident memory, the balloon's size) the monitor
//! measures itself.

/// Bytes of activity text.
pub const ACTIVITY_BYTES: usize = 64;
/// Words before the text.
const NUMBERS: usize = 25;
/// Words in the record.
pub const WORDS: usize = NUMBERS + ACTIVITY_BYTES / 8;
/// Bytes in the record.
pub const BYTES: usize = WORDS * 8;

/// A guest's report. Counts of frames are 4 KiB frames; event counts run from boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Frames that the machine has, ballooned ones included.
    pub total_frames: u64,
    /// Frames that nobody uses.
    pub free_frames: u64,
    /// Frames in use, frames promised to applications that have not touched them yet, and frames that evicted pages would take.
    pub committed_frames: u64,
    /// Frames that somebody waits for now, promised by nobody yet: what the guest asks its host for on top.
    pub wanted_frames: u64,
    /// Frames in the balloon, as the driver counts them.
    pub balloon_frames: u64,
    /// Page faults resolved with a 2 MiB mapping.
    pub huge_faults: u64,
    /// Page faults resolved with 4 KiB mappings.
    pub small_faults: u64,
    /// Allocations that failed for want of memory.
    pub allocation_failures: u64,
    /// Entries of the driver's calls that did not come back as done.
    pub refused_entries: u64,
    /// Frames per second that the driver allows itself.
    pub rate_frames_per_s: u64,
    /// Bytes that the application read back and found right.
    pub verified_bytes: u64,
    /// Errors that the application found.
    pub app_errors: u64,
    /// Frames that can still be promised to applications: free memory and swap that nothing has been promised.
    pub available_frames: u64,
    /// Frames that hold pages of files.
    pub file_frames: u64,
    /// Pages in the compressed tier, and the frames that they occupy there.
    pub compressed_pages: u64,
    /// Frames of the compressed tier.
    pub compressed_frames: u64,
    /// Pages on the swap disk, compressed or not.
    pub swapped_pages: u64,
    /// Slots of 4 KiB read from the swap disk.
    pub swap_in: u64,
    /// Slots of 4 KiB written to the swap disk.
    pub swap_out: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// Pages evicted, to whatever tier.
    pub evictions: u64,
    /// Evicted pages brought back.
    pub restores: u64,
    /// Of those, pages that had been evicted shortly before: memory is too small for what goes on.
    pub refaults: u64,
    /// Nanoseconds in which at least one thread waited for memory.
    pub stalled_ns: u64,
    /// The same of late, in thousandths of the time.
    pub pressure_per_mille: u64,
    /// What the application does, in its own words: UTF-8, padded with zeros.
    pub activity: [u8; ACTIVITY_BYTES],
}

impl Default for Statistics {
    fn default() -> Self {
        Self::decode(&[0; WORDS])
    }
}

impl Statistics {
    /// The record's words.
    #[must_use]
    pub fn encode(&self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        let (numbers, text) = words.split_at_mut(NUMBERS);
        numbers.copy_from_slice(&[
            self.total_frames,
            self.free_frames,
            self.committed_frames,
            self.wanted_frames,
            self.balloon_frames,
            self.huge_faults,
            self.small_faults,
            self.allocation_failures,
            self.refused_entries,
            self.rate_frames_per_s,
            self.verified_bytes,
            self.app_errors,
            self.available_frames,
            self.file_frames,
            self.compressed_pages,
            self.compressed_frames,
            self.swapped_pages,
            self.swap_in,
            self.swap_out,
            self.major_faults,
            self.evictions,
            self.restores,
            self.refaults,
            self.stalled_ns,
            self.pressure_per_mille,
        ]);
        for (word, bytes) in text.iter_mut().zip(self.activity.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }

    /// The report in the record's words.
    #[must_use]
    pub fn decode(words: &[u64; WORDS]) -> Self {
        let mut activity = [0; ACTIVITY_BYTES];
        for (bytes, word) in activity.as_chunks_mut().0.iter_mut().zip(&words[NUMBERS..]) {
            *bytes = word.to_le_bytes();
        }
        Self {
            total_frames: words[0],
            free_frames: words[1],
            committed_frames: words[2],
            wanted_frames: words[3],
            balloon_frames: words[4],
            huge_faults: words[5],
            small_faults: words[6],
            allocation_failures: words[7],
            refused_entries: words[8],
            rate_frames_per_s: words[9],
            verified_bytes: words[10],
            app_errors: words[11],
            available_frames: words[12],
            file_frames: words[13],
            compressed_pages: words[14],
            compressed_frames: words[15],
            swapped_pages: words[16],
            swap_in: words[17],
            swap_out: words[18],
            major_faults: words[19],
            evictions: words[20],
            restores: words[21],
            refaults: words[22],
            stalled_ns: words[23],
            pressure_per_mille: words[24],
            activity,
        }
    }

    /// The activity as text: what precedes the first zero or the first byte that is not UTF-8.
    #[must_use]
    pub fn activity_text(&self) -> &str {
        let end = self.activity.iter().position(|&byte| byte == 0).unwrap_or(ACTIVITY_BYTES);
        let text = &self.activity[..end];
        match core::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
        }
    }
}

/// `text` as an activity field: cut at a character's border to fit.
#[must_use]
pub fn activity(text: &str) -> [u8; ACTIVITY_BYTES] {
    let mut end = text.len().min(ACTIVITY_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0; ACTIVITY_BYTES];
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Statistics, WORDS, activity};
    use proptest::{prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn records_survive_a_round_trip(words: [u64; WORDS]) {
            prop_assert_eq!(Statistics::decode(&words).encode(), words);
        }

        #[test]
        fn text_is_cut_at_a_character(text in ".{0,100}") {
            let statistics = Statistics { activity: activity(&text), ..Statistics::default() };
            let shown = statistics.activity_text();
            prop_assert_eq!(shown, &text[..shown.len()]);
        }
    }

    #[test]
    fn foreign_bytes_end_the_text() {
        let mut statistics = Statistics { activity: activity("walking"), ..Statistics::default() };
        statistics.activity[4] = 0xff;
        assert_eq!(statistics.activity_text(), "walk");
    }
}
