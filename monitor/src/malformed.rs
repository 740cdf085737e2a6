//! The refusal of a file that is not the TOML it should be.

/// The parser's message on one line, with the line of the file that it is about.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub(crate) struct Malformed {
    line: usize,
    message: String,
}

impl Malformed {
    /// Makes the refusal of a file with this `text`.
    pub(crate) fn new(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
        Self { line, message: error.message().replace('\n', ", ") }
    }
}
