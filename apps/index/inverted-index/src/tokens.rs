//! Splits text into terms. A term is a longest run of ASCII letters and digits, in lower case. All
//! other bytes separate terms, those of other alphabets included. Markup is text like any other.

/// Bytes of the longest term. The rest of a longer run is skipped.
pub const LONGEST_TERM: usize = 255;

/// For every byte, its lower-case byte in a term; 0 for bytes that separate terms.
const FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            folded[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    folded
};

/// Returns the terms of a text, in order.
#[must_use]
pub fn tokens(text: &[u8]) -> Tokens<'_> {
    Tokens { text, at: 0, term: [0; LONGEST_TERM] }
}

/// An occurrence of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The term.
    pub term: &'a [u8],
    /// The beginning of its run in the text, in bytes.
    pub start: usize,
}

/// The terms of a text. It is not an `Iterator`, since all terms are written to the same buffer.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    term: [u8; LONGEST_TERM],
}

impl Tokens<'_> {
    /// Returns the next term.
    pub fn next_token(&mut self) -> Option<Token<'_>> {
        let rest = &self.text[self.at..];
        let start = self.at + rest.iter().position(|&byte| FOLDED[usize::from(byte)] != 0)?;
        let mut length = 0;
        self.at = start;
        while let Some(&byte) = self.text.get(self.at) {
            let folded = FOLDED[usize::from(byte)];
            if folded == 0 {
                break;
            }
            if let Some(place) = self.term.get_mut(length) {
                *place = folded;
                length += 1;
            }
            self.at += 1;
        }
        Some(Token { term: &self.term[..length], start })
    }
}
