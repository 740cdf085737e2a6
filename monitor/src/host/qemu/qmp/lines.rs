//! Lines of bounded length, cut from bytes as they arrive.

/// Bytes of the longest line. The longest answer that is asked for lists the devices of a machine.
pub(super) const LONGEST_LINE: usize = 1 << 20;

/// Bytes of which no whole line has arrived yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the buffer that are known to have no end of line.
    searched: usize,
}

/// A line has more than [`LONGEST_LINE`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineTooLong;

impl Lines {
    /// Adds bytes that have arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole line, without its end. Empty lines are left out.
    pub(super) fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n');
            let Some(end) = found.map(|offset| self.searched + offset) else {
                self.searched = self.buffer.len();
                return if self.searched > LONGEST_LINE { Err(LineTooLong) } else { Ok(None) };
            };
            let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.searched = 0;
            line.truncate(line.trim_ascii_end().len());
            if line.len() > LONGEST_LINE {
                return Err(LineTooLong);
            }
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_LINE, LineTooLong, Lines};

    #[test]
    fn lines_are_cut_wherever_the_bytes_are() {
        let text = b"one\r\n\r\ntwo\nthree";
        for part in 1..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for bytes in text.chunks(part) {
                lines.push(bytes);
                while let Some(line) = lines.next_line().unwrap() {
                    found.push(line);
                }
            }
            assert_eq!(found, [&b"one"[..], b"two"]);
        }
    }

    #[test]
    fn a_line_without_an_end_is_an_error_before_it_takes_much_memory() {
        let mut lines = Lines::default();
        for _ in 0..=LONGEST_LINE / 4096 {
            assert_eq!(lines.next_line(), Ok(None));
            lines.push(&[b'x'; 4096]);
        }
        assert_eq!(lines.next_line(), Err(LineTooLong));
    }
}
