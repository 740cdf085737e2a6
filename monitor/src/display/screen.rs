//! Writing to a terminal or a file: lines below each other, and a table that stays in place below
//! them.

use std::io::{self, ErrorKind, Write};

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// From the cursor to the end of the screen.
const ERASE_BELOW: &str = "\x1b[J";

/// A receiver of a run's text.
pub trait Output {
    /// Shows whole lines, newlines included.
    fn text(&mut self, text: String);

    /// Shows the lines of a table in place of the table before it.
    fn frame(&mut self, lines: Vec<String>);
}

/// A screen on `output`. Each piece of text is one write where the system accepts all of it.
#[derive(Debug)]
pub struct Screen<W: Write> {
    output: W,
    /// Lines of the table that is on the screen.
    table_lines: usize,
    is_cursor_hidden: bool,
    /// Only a part of the last piece was written.
    is_cut: bool,
}

impl<W: Write> Screen<W> {
    /// Creates a screen without a table.
    pub const fn new(output: W) -> Self {
        Self { output, table_lines: 0, is_cursor_hidden: false, is_cut: false }
    }

    /// Writes whole lines in place of the table, which the next frame draws again below them.
    pub(super) fn write_text(&mut self, text: &str) -> io::Result<()> {
        let top = self.back_to_top();
        let erase = if self.table_lines == 0 { "" } else { ERASE_BELOW };
        self.table_lines = 0;
        self.put(&format!("{top}{erase}{text}"))
    }

    /// Writes a table in place of the last one.
    pub(super) fn write_frame(&mut self, lines: &[String]) -> io::Result<()> {
        let mut frame = self.back_to_top();
        frame.push_str(HIDE_CURSOR);
        for line in lines {
            frame.push_str(line);
            frame.push_str("\x1b[K\n");
        }
        frame.push_str(ERASE_BELOW);
        self.table_lines = lines.len();
        self.is_cursor_hidden = true;
        self.put(&frame)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        let start = if self.is_cut { "\n" } else { "" };
        let whole = format!("{start}{text}");
        let mut rest = whole.as_bytes();
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.is_cut = !rest.is_empty();
        }
        self.output.flush()
    }

    /// Returns what moves the cursor to the table's first line.
    fn back_to_top(&self) -> String {
        if self.table_lines == 0 { String::new() } else { format!("\x1b[{}A\r", self.table_lines) }
    }
}

/// Writes at once, and ignores errors: for tests.
impl<W: Write> Output for Screen<W> {
    fn text(&mut self, text: String) {
        let _ = self.write_text(&text);
    }

    fn frame(&mut self, lines: Vec<String>) {
        let _ = self.write_frame(&lines);
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        if self.is_cursor_hidden {
            let _ = self.put(SHOW_CURSOR);
        }
    }
}
