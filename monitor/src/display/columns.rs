//! What all tables have in common: columns that are shown whole or not at all, and lines that are
//! cut to the width of a terminal. Pure.

use std::fmt::Write;

use aerostat_abi::units::{FRAMES_PER_MIB, FrameCount};
use unicode_width::UnicodeWidthChar;

/// The width of a line in columns of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width(pub(super) usize);

/// The spaces before a column.
pub(super) const GAP: usize = 2;
/// The width of the column of states.
pub(super) const STATE_WIDTH: usize = 9;

/// A column of a table, aligned right.
pub(super) struct Column<T> {
    pub(super) title: &'static str,
    pub(super) width: usize,
    pub(super) cell: fn(&T) -> String,
}

/// Appends a cell.
pub(super) fn push(line: &mut String, cell: &str, width: usize) {
    let _ = write!(line, "  {cell:>width$}");
}

/// Returns the width of all columns together.
pub(super) fn widths<T>(columns: &[Column<T>]) -> usize {
    columns.iter().map(|column| GAP + column.width).sum()
}

/// Returns the first columns, as many as fit beside what is `used` already.
pub(super) fn fitting_columns<T>(columns: &[Column<T>], used: usize, width: Width) -> &[Column<T>] {
    let mut used = used;
    let fits = |column: &&Column<T>| {
        used += GAP + column.width;
        used <= width.0
    };
    &columns[..columns.iter().take_while(fits).count()]
}

/// Returns how many of `count` rows are shown in `room` lines, and how many are not.
pub(super) fn fitting_rows(count: usize, room: usize) -> (usize, usize) {
    let shown = count.min(room);
    (shown, count - shown)
}

/// Returns as much of `line` as fits `width`. A terminal shows some characters of a guest's text in
/// two columns, and some in none.
pub(super) fn truncated(line: &str, width: Width) -> String {
    let mut used = 0;
    let fits = |character: &char| {
        used += character.width().unwrap_or(0);
        used <= width.0
    };
    line.chars().take_while(fits).collect()
}

/// Returns the width of the column of names.
pub(super) fn name_width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(str::len).max().unwrap_or(0).max("guest".len())
}

/// Formats mebibytes, with a decimal below ten.
pub(super) fn few_mib(count: FrameCount) -> String {
    let tenths = u128::from(count.0) * 10 / u128::from(FRAMES_PER_MIB);
    if tenths < 100 { format!("{}.{}", tenths / 10, tenths % 10) } else { count.mib().to_string() }
}

#[cfg(test)]
mod tests {
    use super::few_mib;
    use aerostat_abi::units::FrameCount;

    #[test]
    fn few_mebibytes_have_a_decimal() {
        assert_eq!([0, 26, 2559, 2560].map(|count| few_mib(FrameCount(count))), ["0.0", "0.1", "9.9", "10"]);
        assert_eq!(few_mib(FrameCount(u64::MAX)), "72057594037927935");
    }
}
