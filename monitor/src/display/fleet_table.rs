//! The tables of a running fleet, from the control interface's answers: that of `ps`, and the
//! screen of `top`. Pure.
//!
//! The columns of `top` are those that esxtop's memory screen has, as far as they exist here;
//! `docs/cli.md` compares the names.

use std::cmp::Reverse;
use std::fmt::Write;

use aerostat_abi::units::FrameCount;

use super::columns::{
    Column, GAP, STATE_WIDTH, Width, few_mib, fitting_columns, fitting_rows, name_width, push, truncated,
};
use super::{percent, printable};
use crate::control::api::{EnforcementCause, EnforcementStep, Fleet, Guest, MemoryUse, SwapUse};

/// The columns of `top`. Where the terminal is narrow, the last ones are left out first.
const TOP: [Column<Guest>; 12] = [
    Column { title: "max", width: 6, cell: |guest| mib(guest.max_bytes) },
    Column { title: "size", width: 6, cell: |guest| mib(guest.size_bytes) },
    Column { title: "target", width: 7, cell: target },
    Column { title: "balloon", width: 7, cell: |guest| mib(guest.balloon_bytes) },
    Column { title: "resident", width: 8, cell: |guest| mib(guest.resident_bytes) },
    Column { title: "paged", width: 6, cell: paged_out },
    Column { title: "active", width: 6, cell: |guest| memory(guest, |memory| memory.active_bytes) },
    Column { title: "idle", width: 6, cell: |guest| memory(guest, |memory| memory.idle_bytes) },
    Column { title: "pressure", width: 8, cell: |guest| percent(guest.pressure_per_mille) },
    Column { title: "swapped", width: 7, cell: |guest| swap(guest, |swap| mib(swapped(swap))) },
    Column { title: "in/s", width: 5, cell: |guest| swap(guest, |swap| few(swap.in_bytes_per_s)) },
    Column { title: "out/s", width: 5, cell: |guest| swap(guest, |swap| few(swap.out_bytes_per_s)) },
];
/// The columns of `ps`.
const PS: [Column<Guest>; 8] = [
    Column { title: "size", width: 6, cell: |guest| mib(guest.size_bytes) },
    Column { title: "target", width: 7, cell: target },
    Column { title: "resident", width: 8, cell: |guest| mib(guest.resident_bytes) },
    Column { title: "min", width: 6, cell: |guest| mib(guest.min_bytes) },
    Column { title: "max", width: 6, cell: |guest| mib(guest.max_bytes) },
    Column { title: "shares", width: 7, cell: |guest| guest.shares.to_string() },
    Column { title: "reserved", width: 8, cell: |guest| mib(guest.reservation_bytes) },
    Column { title: "starts", width: 6, cell: |guest| guest.starts.to_string() },
];
/// What stands for a value that is not known.
const UNKNOWN: &str = "-";

/// The order of the guests on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// That of the fleet file.
    #[default]
    Fleet,
    /// The guest with most resident memory first.
    Resident,
    /// The guest under most pressure first.
    Pressure,
}

impl Order {
    /// Returns the order that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Fleet => Self::Resident,
            Self::Resident => Self::Pressure,
            Self::Pressure => Self::Fleet,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet file",
            Self::Resident => "resident",
            Self::Pressure => "pressure",
        }
    }
}

/// Which part of the guests the screen of `top` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopView {
    /// The order.
    pub order: Order,
    /// Guests that are above the screen.
    pub skipped: usize,
}

/// Returns the guests in a table for `ps`, sizes in MiB.
#[must_use]
pub fn guest_table(guests: &[Guest]) -> String {
    let names = name_width(guests.iter().map(|guest| guest.name.as_str()));
    let mut text = heading(names, &PS) + "  activity\n";
    for guest in guests {
        let _ = writeln!(text, "{}  {}", row(names, guest, &PS), printable(&activity(guest)));
    }
    text
}

/// Returns the screen of `top`: no line is wider than `columns`, and there are at most `rows`.
#[must_use]
pub fn top(fleet: &Fleet, guests: &[Guest], view: TopView, columns: usize, rows: usize) -> Vec<String> {
    let width = Width(columns);
    let mut lines = vec![first_line(fleet, guests)];
    lines.extend(pool_lines(fleet));
    let names = name_width(guests.iter().map(|guest| guest.name.as_str()));
    let shown = fitting_columns(&TOP, names + GAP + STATE_WIDTH, width);
    lines.push(String::new());
    lines.push(heading(names, shown) + "  activity");
    let mut sorted: Vec<&Guest> = guests.iter().collect();
    match view.order {
        Order::Fleet => {}
        Order::Resident => sorted.sort_by_key(|guest| Reverse(guest.resident_bytes)),
        Order::Pressure => sorted.sort_by_key(|guest| Reverse((guest.pressure_per_mille, guest.wanted_bytes))),
    }
    // The last line explains the keys, or says how many guests are below it.
    let room = rows.saturating_sub(lines.len() + 1);
    let skipped = view.skipped.min(guests.len().saturating_sub(room));
    let (fitting, below) = fitting_rows(guests.len() - skipped, room);
    let of_guest = |guest: &&Guest| format!("{}  {}", row(names, guest, shown), printable(&activity(guest)));
    lines.extend(sorted.iter().skip(skipped).take(fitting).map(of_guest));
    let hidden = if skipped + below > 0 { format!("{skipped} guests above, {below} below; ") } else { String::new() };
    let order = view.order.name();
    lines.push(format!("{hidden}sizes in MiB, sorted by {order}; keys: s sorts, arrows scroll, q ends"));
    lines.truncate(rows.max(1));
    lines.iter().map(|line| truncated(line, width)).collect()
}

/// Returns what there is to say of the pool, a line each.
#[must_use]
pub fn pool_lines(fleet: &Fleet) -> [String; 2] {
    let of_pool = |bytes: u64| (u128::from(bytes) * 100).checked_div(u128::from(fleet.pool_bytes)).unwrap_or(0);
    let physical = fleet.physical_bytes.map_or(String::new(), |bytes| format!(", physical {}", size(bytes)));
    [
        format!(
            "pool {}, {} ({} free, {} %)  overcommit {} %  idle tax {} %  violations {}",
            size(fleet.pool_bytes),
            fleet.state.as_str(),
            size(fleet.free_bytes),
            of_pool(fleet.free_bytes),
            fleet.overcommit_percent,
            fleet.idle_tax_percent,
            fleet.violations
        ),
        format!(
            "granted {}, resident {}{physical}  guaranteed {}  moved {}",
            size(fleet.granted_bytes),
            size(fleet.resident_bytes),
            size(fleet.guaranteed_bytes),
            size(fleet.moved_bytes)
        ),
    ]
}

fn first_line(fleet: &Fleet, guests: &[Guest]) -> String {
    let running = guests.iter().filter(|guest| guest.state.is_up()).count();
    format!("{}  up {}  guests {}, {running} of them up", fleet.name, uptime(fleet.elapsed_ms), guests.len())
}

/// Formats a time as hours, minutes and seconds.
pub(super) fn uptime(ms: u64) -> String {
    let seconds = ms / 1000;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn heading(names: usize, columns: &[Column<Guest>]) -> String {
    let mut line = format!("{:<names$}  {:<STATE_WIDTH$}", "guest", "state");
    columns.iter().for_each(|column| push(&mut line, column.title, column.width));
    line
}

fn row(names: usize, guest: &Guest, columns: &[Column<Guest>]) -> String {
    let mut line = format!("{:<names$}  {:<STATE_WIDTH$}", printable(&guest.name), guest.state.as_str());
    columns.iter().for_each(|column| push(&mut line, &(column.cell)(guest), column.width));
    line
}

/// Returns what the guest does, or how it ended.
fn activity(guest: &Guest) -> String {
    let mut parts = Vec::new();
    match &guest.ending {
        Some(ending) if !guest.state.is_up() => parts.push(ending.clone()),
        _ => parts.push(guest.activity.clone()),
    }
    if let Some(enforcement) = guest.enforcement.filter(|enforcement| enforcement.step != EnforcementStep::Asked) {
        let how = match enforcement.cause {
            EnforcementCause::IgnoresTarget => "ignores its target",
            EnforcementCause::DoesNotAnswer => "does not answer",
            EnforcementCause::DoesNotKeepLimits => "keeps no limit",
        };
        parts.push(format!("{how} by {} MiB", few(enforcement.withheld_bytes)));
    }
    if guest.wanted_bytes > 0 {
        parts.push(format!("waits for {} MiB", few(guest.wanted_bytes)));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

fn paged_out(guest: &Guest) -> String {
    guest.paged_out_bytes.map_or_else(|| UNKNOWN.into(), mib)
}

/// A target that a user has set has a mark.
fn target(guest: &Guest) -> String {
    let mark = if guest.pinned_target_bytes.is_some() { "*" } else { "" };
    mib(guest.target_bytes) + mark
}

fn memory(guest: &Guest, of: fn(&MemoryUse) -> u64) -> String {
    guest.memory.as_ref().map_or_else(|| UNKNOWN.into(), |memory| mib(of(memory)))
}

fn swap(guest: &Guest, of: fn(&SwapUse) -> String) -> String {
    guest.swap.as_ref().map_or_else(|| UNKNOWN.into(), of)
}

fn swapped(swap: &SwapUse) -> u64 {
    swap.compressed_bytes.saturating_add(swap.on_disk_bytes)
}

fn mib(bytes: u64) -> String {
    (bytes >> 20).to_string()
}

fn few(bytes: u64) -> String {
    few_mib(FrameCount::from_bytes_floor(bytes))
}

/// Formats an amount with its unit.
pub(super) fn size(bytes: u64) -> String {
    FrameCount::from_bytes_floor(bytes).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Order, TopView, guest_table, top};
    use crate::control::api::{
        Enforcement, EnforcementCause, EnforcementStep, Fleet, Guest, GuestState, IgnoredTarget, MachineKind,
        MemoryUse, PoolState, RestartRule, SupervisorLoop, SwapUse,
    };
    use unicode_width::UnicodeWidthStr;

    const MIB: u64 = 1 << 20;

    pub(in crate::display) fn fleet() -> Fleet {
        Fleet {
            name: "demo".into(),
            version: 3,
            process: 17,
            program_version: "0.1.0".into(),
            taken_unix_ms: 0,
            elapsed_ms: 3_723_456,
            pool_bytes: 640 * MIB,
            state: PoolState::Soft,
            free_bytes: 32 * MIB,
            granted_bytes: 600 * MIB,
            resident_bytes: 580 * MIB,
            physical_bytes: Some(590 * MIB),
            guaranteed_bytes: 192 * MIB,
            max_bytes: 1280 * MIB,
            overcommit_percent: 100,
            moved_bytes: 1024 * MIB,
            idle_tax_percent: 75,
            violations: 0,
            supervisor: SupervisorLoop::default(),
            guests: 2,
            last_event: 9,
        }
    }

    pub(in crate::display) fn guest(name: &str) -> Guest {
        Guest {
            name: name.into(),
            machine: MachineKind::Aerostat,
            state: GuestState::Running,
            version: 1,
            min_bytes: 64 * MIB,
            max_bytes: 512 * MIB,
            reservation_bytes: 0,
            shares: 1000,
            restart: RestartRule::Never,
            pinned_target_bytes: None,
            starts: 1,
            until_ms: None,
            machine_bytes: 512 * MIB,
            size_bytes: 128 * MIB,
            target_bytes: 128 * MIB,
            balloon_bytes: 384 * MIB,
            resident_bytes: 100 * MIB,
            paged_out_bytes: None,
            ignored_target: IgnoredTarget::Page,
            enforcement: None,
            memory: Some(MemoryUse {
                used_bytes: 96 * MIB,
                active_bytes: 60 * MIB,
                idle_bytes: 36 * MIB,
                droppable_bytes: 0,
                unshrinkable_bytes: 16 * MIB,
            }),
            wanted_bytes: 0,
            swap: Some(SwapUse {
                compressed_bytes: 8 * MIB,
                on_disk_bytes: 12 * MIB,
                in_bytes_per_s: MIB / 2,
                out_bytes_per_s: 0,
            }),
            pressure_per_mille: 42,
            balloon_rate_bytes_per_s: 0,
            balloon_state: String::new(),
            activity: "walk\x1b[2Jing".into(),
            ending: None,
            decision: None,
            last_change: None,
        }
    }

    fn screen(guests: &[Guest], view: TopView, columns: usize, rows: usize) -> Vec<String> {
        top(&fleet(), guests, view, columns, rows)
    }

    #[test]
    fn the_screen_has_the_pool_and_a_row_for_each_guest() {
        let enforcement = Enforcement {
            step: EnforcementStep::Paging,
            cause: EnforcementCause::IgnoresTarget,
            withheld_bytes: 28 * MIB,
            since_unix_ms: 0,
            step_since_unix_ms: 0,
            next: None,
            next_in_ms: None,
        };
        let new = Guest {
            memory: None,
            swap: None,
            pinned_target_bytes: Some(128 * MIB),
            paged_out_bytes: Some(28 * MIB),
            enforcement: Some(enforcement),
            ..guest("longer-name")
        };
        let lines = screen(&[guest("ebb"), new], TopView::default(), 200, 24);
        let expected = [
            "demo  up 1:02:03  guests 2, 2 of them up",
            "pool 640.0 MiB, soft (32.0 MiB free, 5 %)  overcommit 100 %  idle tax 75 %  violations 0",
            "granted 600.0 MiB, resident 580.0 MiB, physical 590.0 MiB  guaranteed 192.0 MiB  moved 1024.0 MiB",
            "",
            "guest        state         max    size   target  balloon  resident   paged  active    idle  pressure  swapped   in/s  out/s  activity",
            "ebb          running       512     128      128      384       100       -      60      36     4.2 %       20    0.5    0.0  walk?[2Jing",
            "longer-name  running       512     128     128*      384       100      28       -       -     4.2 %        -      -      -  walk?[2Jing; ignores its target by 28 MiB",
            "sizes in MiB, sorted by fleet file; keys: s sorts, arrows scroll, q ends",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn no_line_leaves_the_terminal() {
        let guests: Vec<Guest> = (0..30).map(|number| guest(&format!("guest-{number}"))).collect();
        for (columns, rows) in [(200, 50), (110, 24), (80, 24), (10, 5), (1, 1), (0, 0)] {
            for skipped in [0, 7, 1000] {
                let lines = screen(&guests, TopView { order: Order::Fleet, skipped }, columns, rows);
                assert!(lines.iter().all(|line| line.width() <= columns), "{lines:?}");
                assert!(lines.len() <= rows.max(1), "{} lines in {rows} rows", lines.len());
            }
        }
        let narrow = screen(&guests, TopView::default(), 80, 24);
        assert!(narrow[4].contains("resident") && !narrow[4].contains("swapped"), "whole columns: {}", narrow[4]);
    }

    #[test]
    fn guests_scroll_and_are_sorted() {
        let mut guests: Vec<Guest> = (0..30).map(|number| guest(&format!("guest-{number}"))).collect();
        guests[29].resident_bytes *= 2;
        guests[28].pressure_per_mille = 900;
        let first = |view| screen(&guests, view, 100, 16)[5].split(' ').next().map(str::to_owned);
        let sorted = |order| first(TopView { order, skipped: 0 });
        assert_eq!(sorted(Order::Fleet).as_deref(), Some("guest-0"));
        assert_eq!(sorted(Order::Resident).as_deref(), Some("guest-29"));
        assert_eq!(sorted(Order::Pressure).as_deref(), Some("guest-28"));
        assert_eq!(first(TopView { order: Order::Fleet, skipped: 3 }).as_deref(), Some("guest-3"));
        let last = screen(&guests, TopView { order: Order::Fleet, skipped: 1000 }, 100, 16);
        assert!(last[15].starts_with("20 guests above, 0 below; "), "{}", last[15]);
    }

    #[test]
    fn the_list_shows_settings_and_endings() {
        let ended =
            Guest { state: GuestState::Ended, ending: Some("panic".into()), wanted_bytes: 3 * MIB, ..guest("flow") };
        let expected = "\
guest  state        size   target  resident     min     max   shares  reserved  starts  activity
ebb    running       128      128       100      64     512     1000         0       1  walk?[2Jing
flow   ended         128      128       100      64     512     1000         0       1  panic; waits for 3.0 MiB
";
        assert_eq!(guest_table(&[guest("ebb"), ended]), expected);
    }
}
