//! The summary of a run.

use std::io::{self, Write};
use std::time::Duration;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::units::FrameCount;

use super::{percent, printable};
use crate::supervisor::{AppTotals, BalloonTotals, EnforcementTotals, GuestOutcome, Outcome};

/// Writes the summary of a run.
///
/// # Errors
///
/// Returns the error of a write to `output`.
pub fn write_summary(outcome: &Outcome, mut output: impl Write) -> io::Result<()> {
    let sum = |one: AppTotals, other: AppTotals| AppTotals {
        verified_bytes: one.verified_bytes.saturating_add(other.verified_bytes),
        errors: one.errors.saturating_add(other.errors),
    };
    let verified = match outcome.guests.iter().filter_map(|guest| guest.app).reduce(sum) {
        Some(AppTotals { verified_bytes, errors }) => format!("{}, {errors} errors", bytes(verified_bytes)),
        None => "unknown, as no application reports to the host".to_owned(),
    };
    writeln!(output)?;
    writeln!(output, "ran for                {:.1} s", outcome.elapsed.as_secs_f64())?;
    writeln!(output, "moved between guests   {}", outcome.moved)?;
    writeln!(output, "peak resident          {} of a pool of {}", outcome.peak_resident, outcome.pool)?;
    writeln!(output, "peak physical          {}, the processes' own included", outcome.peak_physical)?;
    writeln!(output, "data verified          {verified}")?;
    writeln!(output, "pool violations        {}", outcome.violations)?;
    writeln!(output)?;
    let name_width = outcome.guests.iter().map(|guest| guest.name.len()).max().unwrap_or(0).max("guest".len());
    writeln!(output, "{:<name_width$}  spawn to main  data verified  errors  ending", "guest")?;
    for guest in &outcome.guests {
        write_guest(guest, name_width, &mut output)?;
    }
    write_balloons(&outcome.guests, name_width, &mut output)?;
    write_requests(&outcome.guests, name_width, &mut output)?;
    write_swap(&outcome.guests, name_width, &mut output)?;
    output.flush()
}

fn write_guest(guest: &GuestOutcome, name_width: usize, output: &mut impl Write) -> io::Result<()> {
    let spawn_to_main = match guest.spawn_to_main {
        Some(span) => milliseconds(span),
        None if guest.app.is_none() => "unknown".into(),
        None => "never".into(),
    };
    let (verified, errors) = match guest.app {
        Some(AppTotals { verified_bytes, errors }) => (bytes(verified_bytes), errors.to_string()),
        None => ("unknown".into(), "-".into()),
    };
    writeln!(
        output,
        "{:<name_width$}  {spawn_to_main:>13}  {verified:>13}  {errors:>6}  {}",
        guest.name,
        printable(&guest.ending.reason.to_string())
    )?;
    for line in &guest.ending.details {
        writeln!(output, "{:name_width$}  {}", "", printable(line))?;
    }
    Ok(())
}

/// What the two ways are in which memory leaves a guest.
const WAYS: [&str; 2] = [
    "host reclaim: free memory, which the host took while the guest did not run",
    "by driver: what the guest's driver released, with pages evicted where none was free",
];

/// Writes a table of the balloons that were used, with the stall reasons of each below it.
fn write_balloons(guests: &[GuestOutcome], name_width: usize, output: &mut impl Write) -> io::Result<()> {
    let mut balloons = guests.iter().filter(|guest| guest.balloon != BalloonTotals::default()).peekable();
    if balloons.peek().is_none() {
        return Ok(());
    }
    writeln!(output)?;
    writeln!(
        output,
        "{:<name_width$}  host reclaim   by driver    deflated  inflating  deflating  calls  refused  nothing free",
        "guest"
    )?;
    for guest in balloons {
        let balloon = &guest.balloon;
        let size = |count: FrameCount| bytes(count.bytes());
        writeln!(
            output,
            "{:<name_width$}  {:>12}  {:>10}  {:>10}  {:>9}  {:>9}  {:>5}  {:>7}  {:>12}",
            guest.name,
            size(balloon.host_reclaimed),
            size(balloon.inflated.saturating_sub(balloon.host_reclaimed)),
            size(balloon.deflated),
            milliseconds(balloon.inflating),
            milliseconds(balloon.deflating),
            balloon.calls,
            balloon.all_refused_entries(),
            balloon.allocation_failures,
        )?;
        for line in stall_reasons(guest) {
            writeln!(output, "{:name_width$}  {}", "", printable(&line))?;
        }
    }
    for line in WAYS {
        writeln!(output, "{:name_width$}  {line}", "")?;
    }
    Ok(())
}

/// Returns a balloon's stall reasons and what else went wrong, a line each.
fn stall_reasons(guest: &GuestOutcome) -> Vec<String> {
    let balloon = &guest.balloon;
    let mut lines = Vec::new();
    if !balloon.refused_entries.is_empty() {
        let reason = |(status, count): &(EntryStatus, u64)| format!("{count} {}", status.name().replace('_', " "));
        lines.push(format!("refused: {}", balloon.refused_entries.iter().map(reason).collect::<Vec<_>>().join(", ")));
    }
    if !balloon.last_error.is_empty() {
        lines.push(format!("last error: {}", balloon.last_error));
    }
    if balloon.throttled_calls > 0 {
        lines.push(format!(
            "{} calls came too fast and waited {}",
            balloon.throttled_calls,
            milliseconds(balloon.throttled)
        ));
    }
    if balloon.overuse_episodes > 0 {
        let (times, peak, reclaimed) = (balloon.overuse_episodes, balloon.peak_overuse, balloon.reclaimed);
        lines.push(format!("{times} times beyond its size, at most by {peak}; {reclaimed} taken away again"));
    }
    let enforcement = &guest.enforcement;
    if enforcement.episodes > 0 {
        let EnforcementTotals { episodes, confined, peak_paged_out, pauses, .. } = *enforcement;
        let seconds = confined.as_secs_f64();
        let paused = if pauses > 0 { format!("; paused {pauses} times") } else { String::new() };
        lines.push(format!(
            "{episodes} times it ignored its target, for {seconds:.1} s; at most {peak_paged_out} paged out{paused}"
        ));
    }
    if balloon.disagreements > 0 {
        lines.push(format!("{} times it reported another balloon than it had", balloon.disagreements));
    }
    if guest.swap.stalled > Duration::ZERO && !guest.swap.has_any() {
        let (stalled, pressure) = (guest.swap.stalled, percent(guest.swap.peak_pressure_per_mille));
        lines
            .push(format!("a thread waited for memory for {}, {pressure} of the time at worst", milliseconds(stalled)));
    }
    if guest.dropped_log_lines > 0 {
        lines.push(format!("{} lines of its log were dropped", guest.dropped_log_lines));
    }
    lines
}

/// Writes a table of requests, and of how long threads waited for memory with and without them.
fn write_requests(guests: &[GuestOutcome], name_width: usize, output: &mut impl Write) -> io::Result<()> {
    if guests.iter().all(|guest| guest.requests.filed == 0) {
        return Ok(());
    }
    writeln!(output)?;
    writeln!(
        output,
        "{:<name_width$}  requests  granted  in part  denied  unused  longest to grant     stalled",
        "guest"
    )?;
    for GuestOutcome { name, requests, swap, .. } in guests {
        writeln!(
            output,
            "{name:<name_width$}  {:>8}  {:>7}  {:>7}  {:>6}  {:>6}  {:>16}  {:>10}",
            requests.filed,
            requests.granted,
            requests.partly_granted,
            requests.denied,
            requests.expired,
            milliseconds(requests.longest_to_grant),
            milliseconds(swap.stalled)
        )?;
    }
    Ok(())
}

fn milliseconds(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}

/// Writes a table of the guests that swapped: the peak of what rises and falls, the total of what
/// only grows.
fn write_swap(guests: &[GuestOutcome], name_width: usize, output: &mut impl Write) -> io::Result<()> {
    let mut swapped = guests.iter().filter(|guest| guest.swap.has_any()).peekable();
    if swapped.peek().is_none() {
        return Ok(());
    }
    writeln!(output)?;
    writeln!(
        output,
        "{:<name_width$}  compressed        into     on disk  swapped in  swapped out  refaults  major faults  stalled  pressure",
        "guest"
    )?;
    for GuestOutcome { name, swap, .. } in swapped {
        let size = |count: FrameCount| bytes(count.bytes());
        writeln!(
            output,
            "{name:<name_width$}  {:>10}  {:>10}  {:>10}  {:>10}  {:>11}  {:>8}  {:>12}  {:>7}  {:>8}",
            size(swap.peak_compressed),
            size(swap.compressed_into),
            size(swap.peak_on_disk),
            size(swap.swapped_in),
            size(swap.swapped_out),
            swap.refaults,
            swap.major_faults,
            format!("{:.1} s", swap.stalled.as_secs_f64()),
            percent(swap.peak_pressure_per_mille)
        )?;
    }
    writeln!(output, "{:name_width$}  compressed, into, on disk, pressure: the most there was", "")
}

/// Formats bytes in a suitable unit, with one decimal.
fn bytes(count: u64) -> String {
    let in_unit = |shift: u32, unit: &str| {
        let tenths = (u128::from(count) * 10) >> shift;
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    };
    match count {
        0..0x400 => format!("{count} B"),
        0x400..0x10_0000 => in_unit(10, "KiB"),
        0x10_0000..0x4000_0000 => in_unit(20, "MiB"),
        _ => in_unit(30, "GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, write_summary};
    use crate::host::{EndReason, Ending};
    use crate::report::Samples;
    use crate::scheduler::Limits;
    use crate::supervisor::{
        AppTotals, BalloonTotals, EnforcementTotals, GuestOutcome, LoopTimes, Outcome, RequestTotals, SwapTotals,
    };
    use aerostat_abi::batch::EntryStatus;
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    #[test]
    fn bytes_have_a_fitting_unit() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(bytes(u64::MAX), "17179869183.9 GiB");
    }

    fn guest(swap: SwapTotals) -> GuestOutcome {
        GuestOutcome {
            name: "alpha".into(),
            limits: Limits { min: FrameCount(512), max: FrameCount(512) },
            spawn_to_main: None,
            samples: Samples::default(),
            app: Some(AppTotals { verified_bytes: 0, errors: 2 }),
            allocation_failures: 0,
            balloon: BalloonTotals::default(),
            enforcement: EnforcementTotals::default(),
            requests: RequestTotals::default(),
            dropped_log_lines: 0,
            swap,
            ending: Ending { reason: EndReason::Fault("triple fault".into()), details: vec!["RIP \x1b[1m 0".into()] },
        }
    }

    fn outcome(guests: Vec<GuestOutcome>) -> Outcome {
        Outcome {
            elapsed: Duration::from_millis(20_040),
            pool: FrameCount::from_mib(768),
            moved: FrameCount::from_mib(1200),
            peak_resident: FrameCount::from_mib(700),
            peak_physical: FrameCount::from_mib(703),
            violations: 0,
            loop_times: LoopTimes::default(),
            guests,
        }
    }

    fn summary(outcome: &Outcome) -> String {
        let mut text = Vec::new();
        write_summary(outcome, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_failure_is_told_with_its_details() {
        let outcome = outcome(vec![guest(SwapTotals::default())]);
        let expected = "
ran for                20.0 s
moved between guests   1200.0 MiB
peak resident          700.0 MiB of a pool of 768.0 MiB
peak physical          703.0 MiB, the processes' own included
data verified          0 B, 2 errors
pool violations        0

guest  spawn to main  data verified  errors  ending
alpha          never            0 B       2  guest fault: triple fault
       RIP ?[1m 0
";
        assert_eq!(summary(&outcome), expected);
        assert!(!outcome.is_success());
    }

    #[test]
    fn balloons_have_a_table_and_what_came_in_their_way() {
        let balloon = BalloonTotals {
            inflated: FrameCount::from_mib(3000),
            deflated: FrameCount(25),
            host_reclaimed: FrameCount::from_mib(100),
            refused_entries: vec![(EntryStatus::NotGranted, 3), (EntryStatus::HostFailed, 12)],
            calls: 1234,
            throttled_calls: 7,
            throttled: Duration::from_micros(1500),
            overuse_episodes: 2,
            peak_overuse: FrameCount::from_mib(40),
            reclaimed: FrameCount::from_mib(72),
            disagreements: 1,
            allocation_failures: 9,
            inflating: Duration::from_millis(2345),
            last_error: "no\x1b answer".into(),
            ..BalloonTotals::default()
        };
        let waited =
            SwapTotals { stalled: Duration::from_millis(30), peak_pressure_per_mille: 5, ..SwapTotals::default() };
        let enforcement = EnforcementTotals {
            episodes: 2,
            confined: Duration::from_millis(3450),
            peak_paged_out: FrameCount::from_mib(56),
            pauses: 1,
            ..EnforcementTotals::default()
        };
        let alpha = GuestOutcome { balloon, enforcement, dropped_log_lines: 5, ..guest(waited) };
        let text = summary(&outcome(vec![alpha]));
        let expected = "
guest  host reclaim   by driver    deflated  inflating  deflating  calls  refused  nothing free
alpha     100.0 MiB     2.8 GiB   100.0 KiB  2345.0 ms     0.0 ms   1234       15             9
       refused: 3 not granted, 12 host failed
       last error: no? answer
       7 calls came too fast and waited 1.5 ms
       2 times beyond its size, at most by 40.0 MiB; 72.0 MiB taken away again
       2 times it ignored its target, for 3.5 s; at most 56.0 MiB paged out; paused 1 times
       1 times it reported another balloon than it had
       a thread waited for memory for 30.0 ms, 0.5 % of the time at worst
       5 lines of its log were dropped
       host reclaim: free memory, which the host took while the guest did not run
       by driver: what the guest's driver released, with pages evicted where none was free
";
        assert!(text.ends_with(expected), "{text}");
        assert!(!summary(&outcome(vec![guest(SwapTotals::default())])).contains("nothing free"));
    }

    #[test]
    fn what_an_application_does_is_unknown_where_it_does_not_report() {
        let guest = GuestOutcome { app: None, ..guest(SwapTotals::default()) };
        let text = summary(&outcome(vec![guest]));
        assert!(text.contains("data verified          unknown, as no application reports to the host\n"), "{text}");
        assert!(text.contains("alpha        unknown        unknown       -  guest fault: triple fault\n"), "{text}");
    }

    #[test]
    fn guests_that_swapped_have_a_table_of_their_own() {
        let swap = SwapTotals {
            peak_compressed: FrameCount::from_mib(120),
            compressed_into: FrameCount::from_mib(41),
            peak_on_disk: FrameCount::from_mib(3000),
            swapped_in: FrameCount(25),
            swapped_out: FrameCount::from_mib(3100),
            refaults: 1234,
            major_faults: 99,
            stalled: Duration::from_millis(2345),
            peak_pressure_per_mille: 42,
        };
        let text = summary(&outcome(vec![guest(swap), guest(SwapTotals::default())]));
        let expected = "
guest  compressed        into     on disk  swapped in  swapped out  refaults  major faults  stalled  pressure
alpha   120.0 MiB    41.0 MiB     2.9 GiB   100.0 KiB      3.0 GiB      1234            99    2.3 s     4.2 %
       compressed, into, on disk, pressure: the most there was
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn requests_have_a_table_with_the_stalls_of_all_guests() {
        let requests = RequestTotals {
            filed: 3,
            granted: 1,
            denied: 2,
            longest_to_grant: Duration::from_micros(62_500),
            ..RequestTotals::default()
        };
        let stalled = SwapTotals { stalled: Duration::from_millis(345), ..SwapTotals::default() };
        let asks = GuestOutcome { requests, ..guest(SwapTotals::default()) };
        let text = summary(&outcome(vec![asks, guest(stalled)]));
        let expected = "
guest  requests  granted  in part  denied  unused  longest to grant     stalled
alpha         3        1        0       2       0           62.5 ms      0.0 ms
alpha         0        0        0       0       0            0.0 ms    345.0 ms
";
        assert!(text.contains(expected), "{text}");
        assert!(!summary(&outcome(vec![guest(stalled)])).contains("requests"));
    }

    #[test]
    fn absurd_figures_are_printed() {
        let (count, number) = (FrameCount(u64::MAX), u64::MAX);
        let swap = SwapTotals {
            peak_compressed: count,
            compressed_into: count,
            peak_on_disk: count,
            swapped_in: count,
            swapped_out: count,
            refaults: number,
            major_faults: number,
            stalled: Duration::MAX,
            peak_pressure_per_mille: u16::MAX,
        };
        let text = summary(&outcome(vec![guest(swap)]));
        assert_eq!(text.matches("17179869183.9 GiB").count(), 5, "{text}");
    }
}
