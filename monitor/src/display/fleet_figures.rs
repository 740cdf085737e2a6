//! What `stats` prints of a fleet and of a guest: a line for each subject. Pure.

use std::fmt::Write;

use super::fleet_table::{pool_lines, size, uptime};
use super::{percent, printable};
use crate::control::api::{Decision, Fleet, Guest, RestartRule};

/// The width of the column of subjects.
const SUBJECT: usize = 12;

/// Returns what there is to say of a fleet.
#[must_use]
pub fn fleet_figures(fleet: &Fleet) -> String {
    let mut text = String::new();
    let (name, process, program) = (&fleet.name, fleet.process, printable(&fleet.program_version));
    let up = uptime(fleet.elapsed_ms);
    line(&mut text, "fleet", &format!("{name}, up {up}, process {process}, version {program}"));
    for (subject, words) in ["memory", ""].into_iter().zip(pool_lines(fleet)) {
        line(&mut text, subject, &words);
    }
    line(&mut text, "guests", &format!("{}, at most {} together", fleet.guests, size(fleet.max_bytes)));
    line(&mut text, "settings", &format!("version {}", fleet.version));
    text
}

/// Returns what there is to say of a guest.
#[must_use]
pub fn guest_figures(guest: &Guest) -> String {
    let mut text = String::new();
    line(&mut text, "guest", &format!("{}, {}, starts {}", guest.name, guest.state.as_str(), guest.starts));
    if let Some(ending) = &guest.ending {
        line(&mut text, "ending", ending);
    }
    let restart = match guest.restart {
        RestartRule::Never => "never",
        RestartRule::OnFailure => "on failure",
        RestartRule::Always => "always",
    };
    let (min, max) = (size(guest.min_bytes), size(guest.max_bytes));
    let (reservation, shares) = (size(guest.reservation_bytes), guest.shares);
    let settings = format!("min {min}, max {max}, shares {shares}, reservation {reservation}, restart {restart}");
    line(&mut text, "settings", &format!("{settings}; version {}", guest.version));
    line(&mut text, "machine", guest.machine.as_str());
    let by = if guest.pinned_target_bytes.is_some() { "a user" } else { "the scheduler" };
    let (now, target) = (size(guest.size_bytes), size(guest.target_bytes));
    line(&mut text, "size", &format!("{now}, target {target} by {by}, balloon {}", size(guest.balloon_bytes)));
    line(&mut text, "resident", &size(guest.resident_bytes));
    if let Some(memory) = &guest.memory {
        let (used, active, idle) = (size(memory.used_bytes), size(memory.active_bytes), size(memory.idle_bytes));
        let (droppable, least) = (size(memory.droppable_bytes), size(memory.unshrinkable_bytes));
        let parts = format!("active {active}, idle {idle}, droppable {droppable}, unshrinkable {least}");
        line(&mut text, "memory", &format!("{used} in use: {parts}"));
    }
    if guest.wanted_bytes > 0 {
        line(&mut text, "waits for", &size(guest.wanted_bytes));
    }
    if let Some(swap) = &guest.swap {
        let (compressed, on_disk) = (size(swap.compressed_bytes), size(swap.on_disk_bytes));
        let (reads, writes) = (size(swap.in_bytes_per_s), size(swap.out_bytes_per_s));
        let rates = format!("in {reads}/s, out {writes}/s");
        line(&mut text, "swap", &format!("compressed {compressed}, on disk {on_disk}, {rates}"));
    }
    line(&mut text, "pressure", &percent(guest.pressure_per_mille));
    for (subject, words) in [("driver", &guest.balloon_state), ("activity", &guest.activity)] {
        if !words.is_empty() {
            line(&mut text, subject, words);
        }
    }
    if let Some(decision) = &guest.decision {
        line(&mut text, "decision", &of_decision(decision));
    }
    if let Some(change) = &guest.last_change {
        line(&mut text, "last change", &format!("at {}: {}", uptime(change.at_ms), of_decision(&change.decision)));
    }
    text
}

fn of_decision(decision: &Decision) -> String {
    let (from, to, why) = (decision.from_bytes, decision.to_bytes, &decision.text);
    if from == to { format!("kept at {}: {why}", size(to)) } else { format!("{} to {}: {why}", size(from), size(to)) }
}

/// Appends a line. Its words may be a guest's.
fn line(text: &mut String, subject: &str, words: &str) {
    let _ = writeln!(text, "{subject:<SUBJECT$} {}", printable(words));
}

#[cfg(test)]
mod tests {
    use super::{fleet_figures, guest_figures};
    use crate::display::fleet_table::tests::{fleet, guest};

    #[test]
    fn a_fleet_has_its_figures() {
        let expected = "\
fleet        demo, up 1:02:03, process 17, version 0.1.0
memory       pool 640.0 MiB, soft (32.0 MiB free, 5 %)  overcommit 100 %  idle tax 75 %  violations 0
             granted 600.0 MiB, resident 580.0 MiB, physical 590.0 MiB  guaranteed 192.0 MiB  moved 1024.0 MiB
guests       2, at most 1280.0 MiB together
settings     version 3
";
        assert_eq!(fleet_figures(&fleet()), expected);
    }

    #[test]
    fn a_guest_has_its_figures_and_no_control_characters() {
        let text = guest_figures(&guest("ebb"));
        let expected = "\
guest        ebb, running, starts 1
settings     min 64.0 MiB, max 512.0 MiB, shares 1000, reservation 0.0 MiB, restart never; version 1
machine      aerostat
size         128.0 MiB, target 128.0 MiB by the scheduler, balloon 384.0 MiB
resident     100.0 MiB
memory       96.0 MiB in use: active 60.0 MiB, idle 36.0 MiB, droppable 0.0 MiB, unshrinkable 16.0 MiB
swap         compressed 8.0 MiB, on disk 12.0 MiB, in 0.5 MiB/s, out 0.0 MiB/s
pressure     4.2 %
activity     walk?[2Jing
";
        assert_eq!(text, expected);
    }
}
