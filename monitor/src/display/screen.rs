//! Text on its way out: lines one below the other, and a table that stays in place below them.

use std::io::{self, ErrorKind, Write};

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// From the cursor to the end of the screen.
const ERASE_BELOW: &str = "\x1b[J";

/// What takes a run's text.
pub trait Output {
    /// Shows whole lines, newlines included.
    fn text(&mut self, text: String);

    /// Shows the lines of a table in place of the table before it.
    fn frame(&mut self, lines: Vec<String>);
}

/// Text as it is written to `output`, each piece in one go where the system takes it so.
#[derive(Debug)]
pub struct Screen<W: Write> {
    output: W,
    /// Lines of the table that stands on the screen.
    age: usize,
    is_cursor_hidden: bool,
    /// The last piece was written in part only.
    is_cut: bool,
}

impl<W: Write> Screen<W> {
    /// A screen without a table.
    pub const fn new(output: W) -> Self {
        Self { output, age: 0, is_cursor_hidden: false, is_cut: false }
    }

    /// Writes whole lines. They take the place of the table, which is drawn anew below them.
    pub(super) fn write_text(&mut self, text: &str) -> io::Result<()> {
        let top = self.back_to_top();
        let erase = if self.age == 0 { "" } else { ERASE_BELOW };
        self.age = 0;
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
        self.age = lines.len();
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

    /// Moves the cursor to the table's first line.
    fn back_to_top(&self) -> String {
        if self.age == 0 { String::new() } else { format!("\x1b[{}A\r", self.age) }
    }
}

/// Writes at once, and ignores what can't be written: for tests, and for what has no end to come
/// to.
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
