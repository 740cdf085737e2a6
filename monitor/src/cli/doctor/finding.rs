//! What is found of a host, and what to do about it. Pure.

use std::fmt::{Display, Write};

use aerostat_abi::units::FrameCount;

use crate::host::descriptors::PER_GUEST;

/// The width of the column of subjects.
const SUBJECT: usize = 13;
/// Less available memory than this leaves no room for a fleet worth the name.
const LITTLE_MEMORY: FrameCount = FrameCount::from_mib(512);
/// Fewer guests than this are few for one host.
const FEW_GUESTS: u64 = 100;
/// Descriptors that do not depend on the number of guests: those of a run, and of four starts.
const FIXED_DESCRIPTORS: u64 = 128;
/// Less free space than this is little for swap files.
const LITTLE_SPACE: u64 = 1 << 30;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Fleets run, and something would be better otherwise.
    Note,
    /// No fleet can run.
    Problem,
}

/// A finding: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    subject: &'static str,
    text: String,
}

impl Finding {
    pub(super) fn ok(subject: &'static str, text: impl Display) -> Self {
        Self { verdict: Verdict::Ok, subject, text: text.to_string() }
    }

    pub(super) fn note(subject: &'static str, text: impl Display) -> Self {
        Self { verdict: Verdict::Note, subject, text: text.to_string() }
    }

    pub(super) fn problem(subject: &'static str, text: impl Display) -> Self {
        Self { verdict: Verdict::Problem, subject, text: text.to_string() }
    }
}

/// Returns a line for each finding.
pub(super) fn list(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { verdict, subject, text: found } in findings {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Problem => "problem",
        };
        let _ = writeln!(text, "{verdict:<7}  {subject:<SUBJECT$}  {found}");
    }
    text
}

/// Judges a KVM that can be used by `/proc/cpuinfo`.
pub(super) fn kvm_kind(cpuinfo: &str) -> Finding {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    if flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        Finding::ok("kvm", "/dev/kvm, with the processor's virtualization")
    } else {
        Finding::note(
            "kvm",
            "/dev/kvm, in software: the processor shows neither vmx nor svm; all works, and guests start more slowly",
        )
    }
}

/// Judges the jail of VMM processes by what it lacks.
pub(super) fn jail(missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::ok("jail", "VMM processes have users of their own, empty namespaces, landlock and seccomp");
    }
    let advice = "run as root on Linux 6.12 or later for all of it; docs/limits.md says what is not guaranteed";
    Finding::note("jail", format_args!("VMM processes run without {}: {advice}", missing.join(", ")))
}

/// Lists fleets with the processes of their supervisors.
pub(super) fn running<'a>(fleets: impl Iterator<Item = (&'a str, Option<u32>)>) -> Finding {
    let mut orphans = Vec::new();
    let mut running = Vec::new();
    for (name, supervisor) in fleets {
        match supervisor {
            Some(process) => running.push(format!("{name} (process {process})")),
            None => orphans.push(name),
        }
    }
    let list = if running.is_empty() { "none runs".into() } else { running.join(", ") };
    if orphans.is_empty() {
        Finding::ok("fleets", list)
    } else {
        let orphans = orphans.join(", ");
        let advice = "start it again with `aerostat up`, which takes over guests that still run";
        Finding::note("fleets", format_args!("{list}; the supervisor of {orphans} has ended: {advice}"))
    }
}

/// Judges the memory that a fleet may have; `limit` says what limits it.
pub(super) fn memory(available: FrameCount, limit: &str) -> Finding {
    if available < LITTLE_MEMORY {
        let advice = "end other programs, or raise the limit";
        return Finding::note("memory", format_args!("{limit} only {available} available: {advice}"));
    }
    Finding::ok("memory", format_args!("{limit} {available} available"))
}

/// Judges `vm.overcommit_memory`.
pub(super) fn overcommit(setting: &str) -> Finding {
    match setting.trim() {
        "2" => Finding::problem(
            "overcommit",
            "vm.overcommit_memory is 2, so that every guest's max counts in full; set it with `sysctl vm.overcommit_memory=0`",
        ),
        "" => Finding::note("overcommit", "vm.overcommit_memory can't be read"),
        mode => Finding::ok("overcommit", format_args!("vm.overcommit_memory is {mode}")),
    }
}

/// Judges the setting of transparent huge pages.
pub(super) fn huge_pages(setting: &str) -> Finding {
    let chosen = setting.split_once('[').and_then(|(_, rest)| rest.split(']').next());
    match chosen {
        Some(mode @ ("always" | "madvise")) => Finding::ok("huge pages", mode),
        Some(mode) => Finding::note(
            "huge pages",
            format_args!(
                "transparent huge pages are set to {mode}: memory moves many times more slowly; \
                 `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`"
            ),
        ),
        None => {
            Finding::note("huge pages", "the kernel has no transparent huge pages: memory moves many times more slowly")
        }
    }
}

/// Judges the kernel's pressure stall information of memory.
pub(super) fn pressure(file: &str) -> Finding {
    let recent = file
        .lines()
        .find_map(|line| line.strip_prefix("some ")?.split(' ').find_map(|word| word.strip_prefix("avg10=")));
    match recent.and_then(|text| text.parse::<f64>().ok()) {
        Some(percent) if percent >= 1.0 => Finding::note(
            "pressure",
            format_args!(
                "programs of the host wait for memory {percent} % of the time: leave it more, with smaller pools"
            ),
        ),
        Some(percent) => {
            Finding::ok("pressure", format_args!("programs of the host wait for memory {percent} % of the time"))
        }
        None => Finding::note("pressure", "the kernel does not tell (PSI); boot it with psi=1"),
    }
}

/// Judges the limit of open files, `None` for none.
pub(super) fn open_files(limit: Option<u64>) -> Finding {
    let Some(limit) = limit else { return Finding::ok("open files", "no limit") };
    let guests = limit.saturating_sub(FIXED_DESCRIPTORS) / PER_GUEST;
    let text = format!("at most {limit}, enough for {guests} guests");
    if guests < FEW_GUESTS {
        Finding::note("open files", text + "; raise it with `ulimit -n`, or LimitNOFILE= of a systemd unit")
    } else {
        Finding::ok("open files", text)
    }
}

/// Judges the place of swap files, which can be made there.
pub(super) fn swap_files(place: &str, free: Option<u64>, is_cached: bool) -> Finding {
    let left = free.map_or(String::new(), |bytes| format!(", {} free", FrameCount::from_bytes_floor(bytes)));
    let text = format!("in {place}{left}");
    if is_cached {
        let cost = "the file system has no direct input and output: the host caches them, and they count as memory";
        return Finding::note("swap files", format_args!("{text}; {cost}; set TMPDIR to another one"));
    }
    if free.is_some_and(|bytes| bytes < LITTLE_SPACE) {
        return Finding::note("swap files", format_args!("{text}; make room, or set TMPDIR to another place"));
    }
    Finding::ok("swap files", text)
}

/// Judges the host's own swap by `/proc/swaps`.
pub(super) fn host_swap(swaps: &str) -> Finding {
    let devices: Vec<_> = swaps.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next()).collect();
    if devices.is_empty() {
        return Finding::ok("host swap", "none: what guests hold stays in memory");
    }
    let devices = devices.join(", ");
    let advice = "keep pools below the memory that is available";
    Finding::note("host swap", format_args!("{devices}: the host may swap out what guests hold; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::{
        FIXED_DESCRIPTORS, Finding, PER_GUEST, Verdict, host_swap, huge_pages, jail, kvm_kind, list, memory,
        open_files, overcommit, pressure, running, swap_files,
    };
    use Verdict::{Note, Ok, Problem};
    use aerostat_abi::units::FrameCount;

    fn verdicts<const N: usize>(findings: [Finding; N]) -> [Verdict; N] {
        findings.map(|finding| finding.verdict)
    }

    #[test]
    fn a_finding_is_a_line() {
        let text = list(&[Finding::ok("kvm", "there"), Finding::problem("memory", "none")]);
        assert_eq!(text, "ok       kvm            there\nproblem  memory         none\n");
    }

    #[test]
    fn kvm_is_hardware_or_software() {
        let kinds = ["flags\t\t: fpu vmx\n", "flags\t\t: svm fpu\n", "flags\t\t: fpu vmx_other\n", ""].map(kvm_kind);
        assert_eq!(verdicts(kinds), [Ok, Ok, Note, Note]);
    }

    #[test]
    fn what_a_jail_lacks_is_noted() {
        let full = jail(&[]);
        let partial = jail(&["users of their own".to_owned(), "landlock".to_owned()]);
        assert_eq!((full.verdict, partial.verdict), (Ok, Note));
        assert!(
            partial.text.starts_with("VMM processes run without users of their own, landlock: "),
            "{}",
            partial.text
        );
    }

    #[test]
    fn fleets_without_a_supervisor_are_noted() {
        let one = running([("web", Some(7))].into_iter());
        assert_eq!((one.verdict, one.text.as_str()), (Ok, "web (process 7)"));
        let orphan = running([("web", None)].into_iter());
        assert!(orphan.verdict == Note && orphan.text.starts_with("none runs; the supervisor of web has ended"));
        assert_eq!(running(std::iter::empty()).verdict, Ok);
    }

    #[test]
    fn little_memory_is_noted() {
        let of = |mib| memory(FrameCount::from_mib(mib), "the host has");
        assert_eq!(verdicts([of(511), of(512)]), [Note, Ok]);
        assert_eq!(of(1024).text, "the host has 1024.0 MiB available");
    }

    #[test]
    fn strict_overcommit_is_a_problem() {
        assert_eq!(verdicts(["0\n", "1\n", "2\n", ""].map(overcommit)), [Ok, Ok, Problem, Note]);
    }

    #[test]
    fn huge_pages_are_wanted() {
        let settings = ["[always] madvise never", "always [madvise] never\n", "always madvise [never]\n", "x", ""];
        assert_eq!(verdicts(settings.map(huge_pages)), [Ok, Ok, Note, Note, Note]);
    }

    #[test]
    fn pressure_of_the_host_is_noted() {
        let file = |avg| format!("some avg10={avg} avg60=0.00 avg300=0.00 total=1\nfull avg10=9.00 total=2\n");
        assert_eq!(
            verdicts([file("0.99"), file("1.00"), file("?"), String::new()].map(|text| pressure(&text))),
            [Ok, Note, Note, Note]
        );
    }

    #[test]
    fn open_files_bound_the_guests() {
        assert_eq!(verdicts([Some(256), Some(1 << 19), None, Some(0)].map(open_files)), [Note, Ok, Ok, Note]);
        assert!(open_files(Some(FIXED_DESCRIPTORS + 200 * PER_GUEST)).text.contains("enough for 200 guests"));
    }

    #[test]
    fn swap_files_need_a_disk() {
        let findings = [(Some(2 << 30), false), (Some(1), false), (None, false), (Some(2 << 30), true)];
        assert_eq!(verdicts(findings.map(|(free, cached)| swap_files("/var/tmp", free, cached))), [Ok, Note, Ok, Note]);
    }

    #[test]
    fn swap_of_the_host_is_noted() {
        let head = "Filename\tType\tSize\tUsed\tPriority\n";
        let swaps = [head.to_owned(), format!("{head}/swapfile file 8 0 -2\n"), String::new()];
        assert_eq!(verdicts(swaps.map(|text| host_swap(&text))), [Ok, Note, Ok]);
    }
}
