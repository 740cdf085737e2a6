//! The summary of a run.

use std::io::{self, Write};

use super::printable;
use crate::supervisor::{GuestOutcome, Outcome};

/// Writes what a run came to.
///
/// # Errors
///
/// What writing to `output` failed with.
pub fn write_summary(outcome: &Outcome, mut output: impl Write) -> io::Result<()> {
    let verified: u64 = outcome.guests.iter().fold(0, |sum, guest| sum.saturating_add(guest.verified_bytes));
    let errors: u64 = outcome.guests.iter().fold(0, |sum, guest| sum.saturating_add(guest.app_errors));
    writeln!(output)?;
    writeln!(output, "ran for                {:.1} s", outcome.elapsed.as_secs_f64())?;
    writeln!(output, "moved between guests   {}", outcome.moved)?;
    writeln!(output, "peak resident          {} of a pool of {}", outcome.peak_resident, outcome.pool)?;
    writeln!(output, "data verified          {}, {errors} errors", bytes(verified))?;
    writeln!(output, "pool violations        {}", outcome.violations)?;
    writeln!(output)?;
    let name_width = outcome.guests.iter().map(|guest| guest.name.len()).max().unwrap_or(0).max("guest".len());
    writeln!(output, "{:<name_width$}  spawn to main  data verified  errors  ending", "guest")?;
    for guest in &outcome.guests {
        write_guest(guest, name_width, &mut output)?;
    }
    output.flush()
}

fn write_guest(guest: &GuestOutcome, name_width: usize, output: &mut impl Write) -> io::Result<()> {
    let spawn_to_main = match guest.spawn_to_main {
        Some(span) => format!("{:.1} ms", span.as_secs_f64() * 1e3),
        None => "never".into(),
    };
    writeln!(
        output,
        "{:<name_width$}  {spawn_to_main:>13}  {:>13}  {:>6}  {}",
        guest.name,
        bytes(guest.verified_bytes),
        guest.app_errors,
        printable(&guest.ending.reason.to_string())
    )?;
    for line in &guest.ending.details {
        writeln!(output, "{:name_width$}  {}", "", printable(line))?;
    }
    Ok(())
}

/// Bytes in the unit that suits them, with one decimal.
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
    use crate::scheduler::Contract;
    use crate::supervisor::{GuestOutcome, Outcome};
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    #[test]
    fn bytes_have_a_fitting_unit() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(bytes(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn a_failure_is_told_with_its_details() {
        let guest = GuestOutcome {
            name: "alpha".into(),
            contract: Contract { min: FrameCount(512), max: FrameCount(512) },
            spawn_to_main: None,
            samples: Samples::default(),
            verified_bytes: 0,
            app_errors: 2,
            allocation_failures: 0,
            ending: Ending { reason: EndReason::Fault("triple fault".into()), details: vec!["RIP \x1b[1m 0".into()] },
        };
        let outcome = Outcome {
            elapsed: Duration::from_millis(20_040),
            pool: FrameCount::from_mib(768),
            moved: FrameCount::from_mib(1200),
            peak_resident: FrameCount::from_mib(700),
            violations: 0,
            guests: vec![guest],
        };
        let mut text = Vec::new();
        write_summary(&outcome, &mut text).unwrap();
        let expected = "
ran for                20.0 s
moved between guests   1200.0 MiB
peak resident          700.0 MiB of a pool of 768.0 MiB
data verified          0 B, 2 errors
pool violations        0

guest  spawn to main  data verified  errors  ending
alpha          never            0 B       2  guest fault: triple fault
       RIP ?[1m 0
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert!(!outcome.is_success());
    }
}
