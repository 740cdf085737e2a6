//! The live table and the plain line: text from a status, no I/O.

use std::fmt::Write;

use aerostat_abi::units::FrameCount;

use super::printable;
use crate::supervisor::{FleetStatus, GuestState, GuestStatus, seconds};

/// Columns of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width(pub(super) usize);

/// Width from which there is room for the bars.
const WIDTH_WITH_BARS: usize = 110;
/// Cells of a bar.
const BAR_CELLS: u64 = 32;

/// The table's lines, none wider than `width`, and at most `rows` of them.
pub(super) fn table(status: &FleetStatus, width: Width, rows: usize) -> Vec<String> {
    let name_width = name_width(status);
    let bars = if width.0 >= WIDTH_WITH_BARS { Bars::Shown } else { Bars::Hidden };
    let mut lines = vec![
        format!(
            "{}  pool {} MiB, granted {} MiB, resident {} MiB, moved between guests {} MiB",
            seconds(status.elapsed),
            status.pool.mib(),
            status.granted.mib(),
            status.resident.mib(),
            status.moved.mib()
        ),
        heading(name_width, bars),
    ];
    let (shown, hidden) = fitting(status.guests.len(), rows.saturating_sub(lines.len() + 1));
    lines.extend(status.guests.iter().take(shown).map(|guest| row(guest, name_width, bars)));
    lines.push(match (hidden, bars) {
        (0, Bars::Shown) => "bars: # resident  = guest size not resident  . balloon  | target".into(),
        (0, Bars::Hidden) => "sizes in MiB".into(),
        _ => format!("and {hidden} more guests; the terminal is too small for them"),
    });
    lines.iter().map(|line| line.chars().take(width.0).collect()).collect()
}

/// A line for every guest that has not ended.
pub(super) fn plain_lines(status: &FleetStatus) -> String {
    let name_width = name_width(status);
    let mut lines = String::new();
    for guest in status.guests.iter().filter(|guest| guest.state != GuestState::Ended) {
        let _ = write!(
            lines,
            "{}  {:<name_width$}  {:<9}  guest size {} MiB, balloon size {} MiB, target {} MiB, resident {} MiB",
            seconds(status.elapsed),
            guest.name,
            guest.state,
            guest.size.mib(),
            guest.balloon.mib(),
            guest.target.mib(),
            guest.resident.mib()
        );
        if !guest.activity.is_empty() {
            let _ = write!(lines, "; {}", printable(&guest.activity));
        }
        lines.push('\n');
    }
    lines
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bars {
    Shown,
    Hidden,
}

fn heading(name_width: usize, bars: Bars) -> String {
    let mut line = format!("{:<name_width$}  {:<9}", "guest", "state");
    if bars == Bars::Shown {
        // The titles of the columns carry the unit; "guest size" and "balloon size" are never both "memory".
        for title in ["guest size MiB", "balloon size MiB", "target MiB", "resident MiB"] {
            let _ = write!(line, "  {title}");
        }
        let _ = write!(line, "  {:<width$}  activity", "of its maximum", width = bar_width());
    } else {
        line.push_str("  guest size  balloon size  target  resident  activity");
    }
    line
}

fn row(guest: &GuestStatus, name_width: usize, bars: Bars) -> String {
    let mut line = format!("{:<name_width$}  {:<9}", guest.name, guest.state);
    let widths = if bars == Bars::Shown { [14, 16, 10, 12] } else { [10, 12, 6, 8] };
    for (count, width) in [guest.size, guest.balloon, guest.target, guest.resident].into_iter().zip(widths) {
        let _ = write!(line, "  {:>width$}", count.mib());
    }
    if bars == Bars::Shown {
        let _ = write!(line, "  [{}]", bar(guest));
    }
    let _ = write!(line, "  {}", printable(&guest.activity));
    line
}

/// A guest against its maximum: `[#####===|........]`.
fn bar(guest: &GuestStatus) -> String {
    let cells = |count: FrameCount| count.0.saturating_mul(BAR_CELLS).div_ceil(guest.max.0.max(1)).min(BAR_CELLS);
    let (resident, size, target) = (cells(guest.resident), cells(guest.size), cells(guest.target));
    let cell = |place: u64| match place {
        _ if target > 0 && place + 1 == target => '|',
        _ if place < resident => '#',
        _ if place < size => '=',
        _ => '.',
    };
    (0..BAR_CELLS).map(cell).collect()
}

/// Columns of a bar with its brackets.
fn bar_width() -> usize {
    aerostat_abi::units::to_usize(BAR_CELLS) + 2
}

fn name_width(status: &FleetStatus) -> usize {
    status.guests.iter().map(|guest| guest.name.len()).max().unwrap_or(0).max("guest".len())
}

/// How many of `count` rows are shown in `room` lines, and how many are not.
fn fitting(count: usize, room: usize) -> (usize, usize) {
    let shown = count.min(room);
    (shown, count - shown)
}

#[cfg(test)]
mod tests {
    use super::{Width, bar, table};
    use crate::supervisor::{FleetStatus, GuestState, GuestStatus};
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    fn guest(size: u64, resident: u64, target: u64) -> GuestStatus {
        GuestStatus {
            name: "a-longer-name".into(),
            state: GuestState::Running,
            max: FrameCount(512),
            size: FrameCount(size),
            balloon: FrameCount(512_u64.saturating_sub(size)),
            target: FrameCount(target),
            resident: FrameCount(resident),
            activity: "filling ünïcode".into(),
        }
    }

    #[test]
    fn bars_show_all_four_counts() {
        assert_eq!(bar(&guest(256, 128, 384)), "########========.......|........");
        assert_eq!(bar(&guest(0, 0, 0)), "................................");
        assert_eq!(bar(&guest(u64::MAX, u64::MAX, u64::MAX)), "###############################|");
    }

    #[test]
    fn no_line_leaves_the_terminal() {
        let status = FleetStatus {
            elapsed: Duration::from_secs(3),
            pool: FrameCount(512),
            granted: FrameCount(512),
            resident: FrameCount(512),
            moved: FrameCount(512),
            guests: vec![guest(1, 2, 3); 30],
        };
        for (width, rows) in [(200, 50), (110, 24), (80, 24), (10, 5), (1, 1)] {
            let lines = table(&status, Width(width), rows);
            assert!(lines.iter().all(|line| line.chars().count() <= width));
            assert!(lines.len() <= rows.max(3), "{} lines in {rows} rows", lines.len());
        }
    }
}
