//! A terminal whose whole screen belongs to a command for a while: the alternate screen, keys
//! without Enter, and the old state again when the value is dropped, on an error and a panic too.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use super::terminal_size;

/// To the alternate screen, without a cursor and without wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// To the first line.
const HOME: &str = "\x1b[H";
/// From the cursor to the end of its line, and of the screen.
const ERASE_REST_OF_LINE: &str = "\x1b[K";
const ERASE_BELOW: &str = "\x1b[J";
/// Bytes of keys that are read at a time.
const KEYS_AT_A_TIME: usize = 32;

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The end: `q` or Ctrl-C, or the terminal is gone.
    Quit,
    /// Another order: `s`.
    Sort,
    /// One line up.
    Up,
    /// One line down.
    Down,
}

/// The screen. There is one at a time.
#[derive(Debug)]
pub struct FullScreen {
    before: Termios,
}

impl FullScreen {
    /// Takes the screen over. Returns `None` where standard input or output is no terminal that can
    /// be drawn on.
    ///
    /// # Errors
    ///
    /// Returns the terminal's error.
    pub fn enter() -> io::Result<Option<Self>> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() || is_dumb {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        // Ctrl-C is a key here: what it ends must restore the screen.
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let screen = Self { before };
        write(ENTER)?;
        Ok(Some(screen))
    }

    /// Returns the columns and rows of the terminal.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        terminal_size()
    }

    /// Shows `lines` in place of what is shown, in one write.
    ///
    /// # Errors
    ///
    /// Returns the terminal's error.
    pub fn show(&mut self, lines: &[String]) -> io::Result<()> {
        write(&frame(lines))
    }

    /// Waits at most `patience` for keys. Ends early where a signal comes, such as that of a new
    /// size.
    ///
    /// # Errors
    ///
    /// Returns the terminal's error.
    pub fn keys(&mut self, patience: Duration) -> io::Result<Vec<Key>> {
        let stdin = io::stdin();
        let timeout = Timespec::try_from(patience).unwrap_or_default();
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut ready, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            result => result?,
        };
        let mut bytes = [0; KEYS_AT_A_TIME];
        match rustix::io::read(&stdin, &mut bytes) {
            // The terminal is gone.
            Ok(0) | Err(Errno::IO) => Ok(vec![Key::Quit]),
            Err(Errno::INTR | Errno::AGAIN) => Ok(Vec::new()),
            Ok(count) => Ok(keys(&bytes[..count])),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Returns what draws `lines` from the top. The last one has no line break, which would scroll.
fn frame(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}{ERASE_REST_OF_LINE}")).collect();
    format!("{HOME}{}{ERASE_BELOW}", lines.join("\r\n"))
}

/// Returns the keys in what a terminal sends; keys without a meaning are left out.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        // A cursor key is ESC, `[` or `O`, and a letter (ECMA-48, xterm).
        let (key, length) = match (first, after) {
            (0x1b, [b'[' | b'O', b'A', ..]) => (Some(Key::Up), 3),
            (0x1b, [b'[' | b'O', b'B', ..]) => (Some(Key::Down), 3),
            (0x1b, [b'[' | b'O', _, ..]) => (None, 3),
            (b'k', _) => (Some(Key::Up), 1),
            (b'j', _) => (Some(Key::Down), 1),
            (b's', _) => (Some(Key::Sort), 1),
            (b'q' | 3 | 4, _) => (Some(Key::Quit), 1),
            _ => (None, 1),
        };
        keys.extend(key);
        rest = &rest[length..];
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::{Key, frame, keys};

    #[test]
    fn keys_are_letters_and_cursor_keys() {
        assert_eq!(keys(b"jk\x1b[A\x1b[B\x1bOA"), [Key::Down, Key::Up, Key::Up, Key::Down, Key::Up]);
        assert_eq!(keys(b"s\x03"), [Key::Sort, Key::Quit]);
        assert_eq!(keys(b"\x1b[Dxq"), [Key::Quit]);
        assert_eq!(keys(b"\x1b"), []);
        assert_eq!(keys(b"\x1b["), []);
    }

    #[test]
    fn a_frame_erases_what_was_there_and_does_not_scroll() {
        let lines = ["one".to_owned(), "two".to_owned()];
        assert_eq!(frame(&lines), "\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J");
    }
}
