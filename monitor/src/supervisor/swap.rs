//! What a guest swaps, by its own reports: what is swapped out, the current rates, and the totals
//! of a run.
//!
//! For display only. Reports are hints: counters may have any value and decrease, and nothing is
//! decided by them.

use std::time::Duration;

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;

use crate::clock::Moment;

/// Traffic is averaged over the last one to two of these.
const WINDOW: Duration = Duration::from_secs(1);
/// The whole time, in thousandths.
const ALWAYS_PER_MILLE: u16 = 1000;

/// What a guest has swapped out, and its current rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapStatus {
    /// Pages in the guest's compressed pool.
    pub compressed: FrameCount,
    /// Pages on its swap disk, compressed or not.
    pub on_disk: FrameCount,
    /// Read from the swap disk, a second.
    pub in_per_s: FrameCount,
    /// Written to the swap disk, a second.
    pub out_per_s: FrameCount,
    /// Thousandths of the time in which a thread of the guest waited for memory recently.
    pub pressure_per_mille: u16,
}

/// What a guest swapped in a run. For amounts that rise and fall, the peak of all samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapTotals {
    /// The most pages in the compressed pool.
    pub peak_compressed: FrameCount,
    /// Frames that these pages occupied.
    pub compressed_into: FrameCount,
    /// The most pages on the swap disk.
    pub peak_on_disk: FrameCount,
    /// Read from the swap disk.
    pub swapped_in: FrameCount,
    /// Written to the swap disk.
    pub swapped_out: FrameCount,
    /// Pages that were restored shortly after their eviction.
    pub refaults: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// Time in which a thread waited for memory.
    pub stalled: Duration,
    /// The most pressure, in thousandths of the time.
    pub peak_pressure_per_mille: u16,
}

impl SwapTotals {
    /// Returns whether the guest swapped: a guest without swap may have waited for memory too.
    #[must_use]
    pub fn has_any(&self) -> bool {
        let waits =
            Self { stalled: self.stalled, peak_pressure_per_mille: self.peak_pressure_per_mille, ..Self::default() };
        *self != waits
    }
}

/// A guest's swap account, made from its reports.
#[derive(Debug, Default)]
pub(super) struct SwapAccount {
    /// `None` until the guest has evicted something.
    status: Option<SwapStatus>,
    totals: SwapTotals,
    /// The begins of the last two windows.
    previous: Mark,
    latest: Mark,
}

/// A moment, and the traffic until then.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: Moment,
    swapped_in: u64,
    swapped_out: u64,
}

impl SwapAccount {
    /// Records the latest report.
    pub(super) fn observe(&mut self, report: &Statistics, now: Moment) {
        let here = Mark { at: now, swapped_in: report.swap_in_bytes, swapped_out: report.swap_out_bytes };
        if now.since(self.latest.at) >= WINDOW {
            self.previous = self.latest;
            self.latest = here;
        }
        self.totals.include(report);
        if report.evictions == 0 && self.status.is_none() {
            return;
        }
        let span = now.since(self.previous.at);
        self.status = Some(SwapStatus {
            compressed: pages(report.zswapped_bytes),
            on_disk: pages(report.swapped_bytes),
            in_per_s: per_second(here.swapped_in.saturating_sub(self.previous.swapped_in), span),
            out_per_s: per_second(here.swapped_out.saturating_sub(self.previous.swapped_out), span),
            pressure_per_mille: pressure(report),
        });
    }

    /// Returns what is swapped out now; `None` for a guest that has never evicted anything.
    pub(super) fn status(&self) -> Option<SwapStatus> {
        self.status
    }

    pub(super) fn totals(&self) -> SwapTotals {
        self.totals
    }
}

impl SwapTotals {
    fn include(&mut self, report: &Statistics) {
        let compressed = pages(report.zswapped_bytes);
        if compressed > self.peak_compressed {
            self.peak_compressed = compressed;
            self.compressed_into = pages(report.zswap_bytes);
        }
        self.peak_on_disk = self.peak_on_disk.max(pages(report.swapped_bytes));
        self.swapped_in = self.swapped_in.max(pages(report.swap_in_bytes));
        self.swapped_out = self.swapped_out.max(pages(report.swap_out_bytes));
        self.refaults = self.refaults.max(report.refaults);
        self.major_faults = self.major_faults.max(report.major_faults);
        self.stalled = self.stalled.max(Duration::from_nanos(report.stalled_ns));
        self.peak_pressure_per_mille = self.peak_pressure_per_mille.max(pressure(report));
    }
}

fn pages(bytes: u64) -> FrameCount {
    FrameCount::from_bytes_ceil(bytes)
}

fn pressure(report: &Statistics) -> u16 {
    u16::try_from(report.pressure_per_mille).unwrap_or(u16::MAX).min(ALWAYS_PER_MILLE)
}

/// Returns `bytes` in `span` as a rate.
fn per_second(bytes: u64, span: Duration) -> FrameCount {
    let rate = (u128::from(bytes) * 1_000_000_000).checked_div(span.as_nanos()).unwrap_or(0);
    FrameCount::from_bytes_floor(u64::try_from(rate).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{SwapAccount, SwapStatus, SwapTotals};
    use crate::clock::Moment;
    use aerostat_abi::statistics::{Statistics, WORDS};
    use aerostat_abi::units::FrameCount;
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};
    use std::time::Duration;

    fn at(ms: u64) -> Moment {
        Moment::default().after(Duration::from_millis(ms))
    }

    #[test]
    fn a_guest_that_evicts_nothing_has_nothing_to_show() {
        let mut account = SwapAccount::default();
        account.observe(&Statistics { huge_faults: 5, ..Statistics::default() }, at(5000));
        assert_eq!((account.status(), account.totals()), (None, SwapTotals::default()));
    }

    #[test]
    fn rates_are_those_of_the_last_windows() {
        let mut account = SwapAccount::default();
        let rates = |account: &SwapAccount| account.status().map(|status| (status.in_per_s.0, status.out_per_s.0));
        let report = |moved: u64| Statistics {
            evictions: 1,
            swap_in_bytes: moved << 12,
            swap_out_bytes: moved << 13,
            ..Statistics::default()
        };
        for tick in 0..=50 {
            account.observe(&report(10 * tick), at(10_000 + 100 * tick));
        }
        assert_eq!(rates(&account), Some((100, 200)));
        for tick in 51..=80 {
            account.observe(&report(500), at(10_000 + 100 * tick));
        }
        assert_eq!(rates(&account), Some((0, 0)), "nothing moves any more");
    }

    #[test]
    fn peaks_stay_when_amounts_fall() {
        let mut account = SwapAccount::default();
        let report = |pages: u64, pressure: u64| Statistics {
            evictions: 1,
            zswapped_bytes: pages << 12,
            zswap_bytes: (pages / 3) << 12,
            swapped_bytes: pages << 13,
            pressure_per_mille: pressure,
            ..Statistics::default()
        };
        account.observe(&report(300, 40), at(1000));
        account.observe(&report(900, 20), at(2000));
        account.observe(&Statistics { swap_out_bytes: 8 << 12, refaults: 9, stalled_ns: 7, ..report(0, 0) }, at(3000));
        let pressed = SwapTotals {
            peak_compressed: FrameCount(900),
            compressed_into: FrameCount(300),
            peak_on_disk: FrameCount(1800),
            swapped_out: FrameCount(8),
            refaults: 9,
            stalled: Duration::from_nanos(7),
            peak_pressure_per_mille: 40,
            ..SwapTotals::default()
        };
        assert_eq!(account.totals(), pressed);
        assert_eq!(account.status(), Some(SwapStatus { out_per_s: FrameCount(8), ..SwapStatus::default() }));
    }

    proptest! {
        #[test]
        fn absurd_reports_are_survived(reports: [[u64; WORDS]; 2], times in vec(0..u64::MAX, 4)) {
            let mut account = SwapAccount::default();
            let all = [reports[0], [u64::MAX; WORDS], [0; WORDS], reports[1]];
            for (words, time) in all.iter().zip(times) {
                account.observe(&Statistics::decode(words), Moment::from_ns(time));
            }
            prop_assert!(account.totals().peak_compressed == FrameCount::from_bytes_ceil(u64::MAX));
            prop_assert!(account.totals().peak_pressure_per_mille == 1000);
        }
    }
}
