//! A short text in a record of words.

use core::fmt;

/// Bytes of a text.
const BYTES: usize = 64;
/// Words of a text.
pub(crate) const WORDS: usize = BYTES / size_of::<u64>();

/// At most 64 bytes of UTF-8, padded with zeros. The bytes are untrusted: the text ends at the
/// first zero or at the first invalid byte, and may contain control characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text([u8; BYTES]);

impl Text {
    /// The empty text.
    pub const EMPTY: Self = Self([0; BYTES]);

    /// Returns `text`, cut at a character boundary to fit.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let end = text.floor_char_boundary(BYTES);
        let mut bytes = [0; BYTES];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self(bytes)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(BYTES);
        let text = &self.0[..end];
        match core::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
        }
    }

    pub(crate) fn encode(&self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }

    pub(crate) fn decode(words: &[u64; WORDS]) -> Self {
        let mut text = Self::EMPTY;
        for (bytes, word) in text.0.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        text
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Write for Text {
    /// Appends as much as fits; what does not is dropped without an error.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let used = self.as_str().len();
        let more = Self::new(&text[..text.floor_char_boundary(BYTES - used)]);
        self.0[used..].copy_from_slice(&more.0[..BYTES - used]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Text;
    use core::fmt::Write;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn text_is_cut_at_a_character(text in "[^\0]{0,100}") {
            let shown = Text::new(&text);
            let shown = shown.as_str();
            prop_assert_eq!(shown, &text[..shown.len()]);
            prop_assert!(shown.len() == text.len() || shown.len() > 60);
        }

        #[test]
        fn text_is_written_piece_by_piece(pieces in proptest::collection::vec("[^\0]{0,30}", 0..5)) {
            let mut written = Text::EMPTY;
            pieces.iter().for_each(|piece| written.write_str(piece).unwrap());
            let whole = pieces.concat();
            prop_assert!(whole.starts_with(written.as_str()) || written.as_str().len() > 60);
            prop_assert_eq!(Text::decode(&written.encode()), written);
        }
    }

    #[test]
    fn invalid_bytes_end_the_text() {
        let mut text = Text::new("walking");
        text.0[4] = 0xff;
        assert_eq!(text.as_str(), "walk");
    }
}
