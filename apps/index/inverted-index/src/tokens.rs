//! What counts as a term: every longest run of ASCII letters and digits, in lower case. All other
//! bytes separate, those of other alphabets too; markup is text like any other.

/// Bytes of the longest term: longer runs are cut off here, and what follows up to their end is
/// skipped.
pub const LONGEST_TERM: usize = 255;

/// For every byte the one that stands for it in a term; 0 separates.
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

/// The terms of a text, in order.
#[must_use]
pub fn tokens(text: &[u8]) -> Tokens<'_> {
    Tokens { text, at: 0, term: [0; LONGEST_TERM] }
}

/// An occurrence of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The term.
    pub term: &'a [u8],
    /// Where its run begins in the text, in bytes.
    pub start: usize,
}

/// Goes through a text. Not an `Iterator`, because each term is in lower case in the same place.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    term: [u8; LONGEST_TERM],
}

impl Tokens<'_> {
    /// The next term.
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
