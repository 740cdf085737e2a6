//! The live table and the plain lines, made from a status. Pure.

use std::fmt::Write;

use aerostat_abi::units::{FrameCount, to_usize};

use super::columns::{
    Column, GAP, STATE_WIDTH, Width, few_mib, fitting_columns, fitting_rows, name_width, push, truncated, widths,
};
use super::{percent, printable};
use crate::supervisor::{FleetStatus, GuestState, GuestStatus, SwapStatus, seconds};

/// The width from which there is room for bars.
const WIDTH_WITH_BARS: usize = 110;
/// Cells of a bar, and of one that shares the line with the columns of swap.
const BAR_CELLS: u64 = 32;
const BAR_CELLS_BESIDE_SWAP: u64 = 16;
/// The columns of sizes: title, width, cell. The footer says that they are in MiB.
const SIZES: [Column<GuestStatus>; 4] = [
    Column { title: "size", width: 6, cell: |guest| guest.size.mib().to_string() },
    Column { title: "balloon", width: 7, cell: |guest| guest.balloon.mib().to_string() },
    Column { title: "target", width: 6, cell: |guest| guest.target.mib().to_string() },
    Column { title: "resident", width: 8, cell: |guest| guest.resident.mib().to_string() },
];
/// The columns of swap. Where the terminal is narrow, the last ones are left out first.
const SWAP: [Column<SwapStatus>; 5] = [
    Column { title: "compressed", width: 10, cell: |swap| swap.compressed.mib().to_string() },
    Column { title: "disk", width: 5, cell: |swap| swap.on_disk.mib().to_string() },
    Column { title: "pressure", width: 8, cell: |swap| percent(swap.pressure_per_mille) },
    Column { title: "in/s", width: 5, cell: |swap| few_mib(swap.in_per_s) },
    Column { title: "out/s", width: 5, cell: |swap| few_mib(swap.out_per_s) },
];

/// What a table shows, as far as the terminal has room for it.
struct Layout {
    name_width: usize,
    /// Zero where there are no bars.
    bar_cells: u64,
    swap: &'static [Column<SwapStatus>],
}

impl Layout {
    fn new(status: &FleetStatus, width: Width) -> Self {
        let swaps = status.guests.iter().any(|guest| guest.swap.is_some());
        let bar_cells = match (width.0 >= WIDTH_WITH_BARS, swaps) {
            (false, _) => 0,
            (true, false) => BAR_CELLS,
            (true, true) => BAR_CELLS_BESIDE_SWAP,
        };
        let mut layout = Self { name_width: name_width(names(status)), bar_cells, swap: &[] };
        if swaps {
            let used = layout.name_width + GAP + STATE_WIDTH + widths(&SIZES) + layout.bar_width();
            layout.swap = fitting_columns(&SWAP, used, width);
        }
        layout
    }

    fn heading(&self) -> String {
        let mut line = format!("{:<width$}  {:<STATE_WIDTH$}", "guest", "state", width = self.name_width);
        SIZES.iter().for_each(|column| push(&mut line, column.title, column.width));
        if self.bar_cells > 0 {
            let _ = write!(line, "  {:<width$}", "of its maximum", width = self.bar_width() - GAP);
        }
        self.swap.iter().for_each(|column| push(&mut line, column.title, column.width));
        line + "  activity"
    }

    fn row(&self, guest: &GuestStatus) -> String {
        let mut line = format!("{:<width$}  {:<STATE_WIDTH$}", guest.name, guest.state, width = self.name_width);
        SIZES.iter().for_each(|column| push(&mut line, &(column.cell)(guest), column.width));
        if self.bar_cells > 0 {
            let _ = write!(line, "  [{}]", bar(guest, self.bar_cells));
        }
        for column in self.swap {
            push(&mut line, &guest.swap.as_ref().map(column.cell).unwrap_or_default(), column.width);
        }
        let _ = write!(line, "  {}", printable(&activity(guest)));
        line
    }

    /// Returns the meanings of the columns, a line each.
    fn legend(&self) -> impl Iterator<Item = &'static str> {
        let sizes = if self.bar_cells > 0 {
            "sizes in MiB  bars: # resident  = guest size not resident  . balloon  | target"
        } else {
            "sizes in MiB"
        };
        let swap = "compressed, disk: pages put elsewhere  in, out: MiB/s from and to disk  pressure: time waited";
        [sizes].into_iter().chain((!self.swap.is_empty()).then_some(swap))
    }

    /// Returns the columns of a bar with its brackets and the gap before it.
    fn bar_width(&self) -> usize {
        if self.bar_cells == 0 { 0 } else { GAP + to_usize(self.bar_cells) + 2 }
    }
}

/// Returns the table's lines, none wider than `width`, and at most `rows` of them.
pub(super) fn table(status: &FleetStatus, width: Width, rows: usize) -> Vec<String> {
    let layout = Layout::new(status, width);
    let mut lines = vec![
        format!(
            "{}  pool {} MiB, granted {} MiB, resident {} MiB, moved between guests {} MiB",
            seconds(status.elapsed),
            status.pool.mib(),
            status.granted.mib(),
            status.resident.mib(),
            status.moved.mib()
        ),
        layout.heading(),
    ];
    let (shown, hidden) = fitting_rows(status.guests.len(), rows.saturating_sub(lines.len() + 1));
    lines.extend(status.guests.iter().take(shown).map(|guest| layout.row(guest)));
    if hidden == 0 {
        let room = rows.saturating_sub(lines.len()).max(1);
        lines.extend(layout.legend().take(room).map(Into::into));
    } else {
        lines.push(format!("and {hidden} more guests; the terminal is too small for them"));
    }
    lines.iter().map(|line| truncated(line, width)).collect()
}

/// Returns a line for every guest that has not ended.
pub(super) fn plain_lines(status: &FleetStatus) -> String {
    let name_width = name_width(names(status));
    let mut lines = String::new();
    for guest in status.guests.iter().filter(|guest| guest.state != GuestState::Ended) {
        let _ = write!(
            lines,
            "{}  {:<name_width$}  {:<STATE_WIDTH$}  guest size {} MiB, balloon size {} MiB, target {} MiB, resident {} MiB",
            seconds(status.elapsed),
            guest.name,
            guest.state,
            guest.size.mib(),
            guest.balloon.mib(),
            guest.target.mib(),
            guest.resident.mib()
        );
        if let Some(swap) = &guest.swap {
            let _ = write!(
                lines,
                ", compressed {} MiB, on disk {} MiB (in {} MiB/s, out {} MiB/s), pressure {}",
                swap.compressed.mib(),
                swap.on_disk.mib(),
                few_mib(swap.in_per_s),
                few_mib(swap.out_per_s),
                percent(swap.pressure_per_mille)
            );
        }
        if let Some(paged_out) = guest.paged_out.filter(|&out| out > FrameCount::ZERO) {
            let _ = write!(lines, ", paged out {} MiB", paged_out.mib());
        }
        let activity = activity(guest);
        if !activity.is_empty() {
            let _ = write!(lines, "; {}", printable(&activity));
        }
        lines.push('\n');
    }
    lines
}

fn names(status: &FleetStatus) -> impl Iterator<Item = &str> {
    status.guests.iter().map(|guest| guest.name.as_str())
}

/// Returns what the guest says that it does, what it waits for, and, while its size is not its
/// target, what its balloon does.
fn activity(guest: &GuestStatus) -> String {
    let mut parts = vec![guest.activity.clone()];
    if guest.state == GuestState::Waiting {
        parts.push(format!("waits for {} MiB", few_mib(guest.wanted)));
    }
    if guest.size != guest.target && !guest.balloon_state.is_empty() {
        match guest.state {
            GuestState::Shrinking => {
                let rate = few_mib(guest.rate_per_s);
                parts.push(format!("balloon: {}, at most {rate} MiB/s", guest.balloon_state));
            }
            GuestState::Growing | GuestState::Waiting => parts.push(format!("balloon: {}", guest.balloon_state)),
            GuestState::Starting
            | GuestState::Running
            | GuestState::Silent
            | GuestState::Paused
            | GuestState::Stopping
            | GuestState::Ended
            | GuestState::Queued
            | GuestState::BackingOff
            | GuestState::Down => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

/// Draws a guest against its maximum in `cells` cells: `#####===|........`.
fn bar(guest: &GuestStatus, cells: u64) -> String {
    let reached = |count: FrameCount| count.0.saturating_mul(cells).div_ceil(guest.limits.max.0.max(1)).min(cells);
    let (resident, size, target) = (reached(guest.resident), reached(guest.size), reached(guest.target));
    let cell = |place: u64| match place {
        _ if target > 0 && place + 1 == target => '|',
        _ if place < resident => '#',
        _ if place < size => '=',
        _ => '.',
    };
    (0..cells).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::{BAR_CELLS, Width, bar, plain_lines, table};
    use crate::supervisor::{FleetStatus, GuestState, GuestStatus, SwapStatus};
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;
    use unicode_width::UnicodeWidthStr;

    fn guest(size: u64, resident: u64, target: u64) -> GuestStatus {
        GuestStatus {
            state: GuestState::Running,
            size: FrameCount(size),
            balloon: FrameCount(512_u64.saturating_sub(size)),
            target: FrameCount(target),
            resident: FrameCount(resident),
            rate_per_s: FrameCount(1000),
            balloon_state: "nothing free".into(),
            activity: "filling ünïcode".into(),
            ..GuestStatus::for_tests("a-longer-name", FrameCount(512))
        }
    }

    fn fleet(guests: Vec<GuestStatus>) -> FleetStatus {
        FleetStatus {
            elapsed: Duration::from_secs(3),
            granted: FrameCount(512),
            resident: FrameCount(512),
            moved: FrameCount(512),
            guests,
            ..FleetStatus::for_tests(FrameCount(512))
        }
    }

    fn swapping(swap: SwapStatus) -> GuestStatus {
        GuestStatus { name: "ebb".into(), swap: Some(swap), activity: "walking".into(), ..guest(256, 128, 384) }
    }

    const SWAP: SwapStatus = SwapStatus {
        compressed: FrameCount::from_mib(120),
        on_disk: FrameCount::from_mib(300),
        in_per_s: FrameCount(794),
        out_per_s: FrameCount::from_mib(12),
        pressure_per_mille: 42,
    };

    const ABSURD: SwapStatus = SwapStatus {
        compressed: FrameCount(u64::MAX),
        on_disk: FrameCount(u64::MAX),
        in_per_s: FrameCount(u64::MAX),
        out_per_s: FrameCount(u64::MAX),
        pressure_per_mille: u16::MAX,
    };

    #[test]
    fn bars_show_all_four_counts() {
        assert_eq!(bar(&guest(256, 128, 384), BAR_CELLS), "########========.......|........");
        assert_eq!(bar(&guest(0, 0, 0), BAR_CELLS), "................................");
        assert_eq!(bar(&guest(u64::MAX, u64::MAX, u64::MAX), BAR_CELLS), "###############################|");
        assert_eq!(bar(&guest(256, 128, 384), 16), "####====...|....");
    }

    #[test]
    fn guests_that_swap_have_columns_for_it() {
        let flow = GuestStatus { name: "flow".into(), swap: None, ..swapping(SWAP) };
        let status = fleet(vec![swapping(SWAP), flow]);
        let rows = |width| table(&status, Width(width), 24)[1..4].join("\n");
        let wide = [
            "guest  state        size  balloon  target  resident  of its maximum      compressed   disk  pressure   in/s  out/s  activity",
            "ebb    running         1        1       1         0  [####====...|....]         120    300     4.2 %    3.1     12  walking",
            "flow   running         1        1       1         0  [####====...|....]                                             walking",
        ]
        .join("\n");
        assert_eq!(rows(130), wide);
        let narrow = "\
guest  state        size  balloon  target  resident  compressed   disk  pressure
ebb    running         1        1       1         0         120    300     4.2 %
flow   running         1        1       1         0                             ";
        assert_eq!(rows(80), narrow);
        assert!(!rows(79).contains("pressure"), "a column is shown whole or not at all");
    }

    #[test]
    fn a_fleet_that_does_not_swap_has_no_columns_for_it() {
        let status = fleet(vec![guest(256, 128, 384)]);
        assert!(table(&status, Width(200), 24).iter().all(|line| !line.contains("compressed")));
        assert!(!plain_lines(&status).contains("compressed"));
    }

    #[test]
    fn plain_lines_show_swap() {
        let line = plain_lines(&fleet(vec![swapping(SWAP)]));
        let swap = "resident 0 MiB, compressed 120 MiB, on disk 300 MiB (in 3.1 MiB/s, out 12 MiB/s), pressure 4.2 %; walking\n";
        assert!(line.ends_with(swap), "{line}");
        assert!(plain_lines(&fleet(vec![swapping(ABSURD)])).contains("pressure 6553.5 %"));
    }

    #[test]
    fn a_balloon_that_moves_shows_its_state() {
        let state = |state| GuestStatus { state, ..guest(256, 128, 384) };
        let line = |guest: GuestStatus| plain_lines(&fleet(vec![guest]));
        assert!(line(state(GuestState::Running)).ends_with("; filling ünïcode\n"));
        let shrinking = line(state(GuestState::Shrinking));
        assert!(shrinking.ends_with("; filling ünïcode; balloon: nothing free, at most 3.9 MiB/s\n"), "{shrinking}");
        let mute = GuestStatus { activity: String::new(), ..state(GuestState::Growing) };
        assert!(line(mute.clone()).ends_with("; balloon: nothing free\n"));
        assert!(table(&fleet(vec![mute.clone()]), Width(200), 24)[2].ends_with("]  balloon: nothing free"));
        assert!(!line(GuestStatus { balloon_state: String::new(), ..mute }).contains("balloon:"));
    }

    #[test]
    fn a_guest_that_waits_shows_for_how_much() {
        let waiting =
            GuestStatus { state: GuestState::Waiting, wanted: FrameCount::from_mib(184), ..guest(256, 128, 384) };
        let line = plain_lines(&fleet(vec![waiting]));
        assert!(line.contains("  waiting    "), "{line}");
        assert!(line.ends_with("; filling ünïcode; waits for 184 MiB; balloon: nothing free\n"), "{line}");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let wide = GuestStatus { activity: "記憶".repeat(100), ..guest(256, 128, 384) };
        let row = &table(&fleet(vec![wide]), Width(80), 24)[2];
        assert!((79..=80).contains(&row.width()), "{} columns: {row}", row.width());
    }

    #[test]
    fn no_line_leaves_the_terminal() {
        for guests in [vec![guest(1, 2, 3); 30], vec![swapping(SWAP); 2], vec![swapping(ABSURD); 30]] {
            let status = fleet(guests);
            for (width, rows) in [(200, 50), (110, 24), (80, 24), (10, 5), (1, 1)] {
                let lines = table(&status, Width(width), rows);
                assert!(lines.iter().all(|line| line.width() <= width));
                assert!(lines.len() <= rows.max(3), "{} lines in {rows} rows", lines.len());
            }
        }
    }
}
