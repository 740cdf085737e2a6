//! The stages of a grant, as the supervisor's side sees them by the host's clock.

use std::time::Duration;

use aerostat::host::Observation;
use aerostat_abi::units::FrameCount;
use anyhow::{Context, Result, ensure};

/// When the supervisor saw or did something, from the asker's report that it waits until the
/// asker's target is the size that it waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timeline {
    /// The asker reported.
    asked: Option<u64>,
    /// The supervisor read that.
    noticed: Option<u64>,
    /// The donor's target was lowered for the first time.
    lowered: Option<u64>,
    /// The donor's size was seen to fall for the last time before the last raise.
    inflated: Option<u64>,
    /// The same of the memory of the donor's process.
    released: Option<u64>,
    /// The asker's target was raised to the size that it waits for.
    raised: Option<u64>,
    /// Times that it was raised.
    raises: u32,
    /// The size that the asker waits for.
    needed: FrameCount,
    /// The donor by the last poll, and when the asker began to wait.
    donor: Seen,
    donor_before: Seen,
    asker_target: FrameCount,
    /// The most memory of the asker's process.
    asker_resident: FrameCount,
    /// The least memory of the donor's process since the asker began to wait.
    donor_resident: FrameCount,
}

/// A guest's size, and the memory of its process.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    size: FrameCount,
    resident: FrameCount,
}

/// Milliseconds from each stage of a grant to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stages {
    pub(super) notice: f64,
    pub(super) decision: f64,
    pub(super) inflation: f64,
    pub(super) release: f64,
    pub(super) raise: f64,
    /// From the first stage to the last.
    pub(super) all: f64,
    /// Times that the asker's target was raised.
    pub(super) raises: f64,
}

impl Timeline {
    /// Records that the asker reported at `asked`, of which the supervisor learns `now`. Returns
    /// whether it is the first time.
    pub(super) fn begin(&mut self, asked: u64, now: u64, asker: &Observation) -> bool {
        if self.asked.is_some() {
            return false;
        }
        let statistics = asker.statistics.unwrap_or_default();
        let [wanted, committable] =
            [statistics.wanted_bytes, statistics.committable_bytes].map(FrameCount::from_bytes_floor);
        self.needed = asker.size.unwrap_or_default().saturating_add(wanted).saturating_sub(committable);
        (self.asked, self.noticed) = (Some(asked), Some(now));
        (self.donor_before, self.donor_resident) = (self.donor, self.donor.resident);
        true
    }

    fn is_under_way(&self) -> bool {
        self.asked.is_some() && self.raised.is_none()
    }

    pub(super) fn lower_donor(&mut self, now: u64) {
        if self.is_under_way() {
            self.lowered.get_or_insert(now);
        }
    }

    pub(super) fn see_donor(&mut self, now: u64, size: FrameCount, resident: FrameCount) {
        if self.is_under_way() && size < self.donor.size {
            self.inflated = Some(now);
        }
        if self.is_under_way() && resident < self.donor.resident {
            self.released = Some(now);
        }
        self.donor = Seen { size, resident };
        self.donor_resident = self.donor_resident.min(resident);
    }

    pub(super) fn raise_asker(&mut self, now: u64, target: FrameCount) {
        if self.is_under_way() && target > self.asker_target {
            self.raises += 1;
            self.raised = (target >= self.needed).then_some(now);
        }
        self.asker_target = target;
    }

    pub(super) fn see_asker(&mut self, resident: FrameCount) {
        self.asker_resident = self.asker_resident.max(resident);
    }

    /// Returns the stages.
    ///
    /// # Errors
    /// Where one was not seen, or `wanted` did not go physically from the donor to the asker.
    pub(super) fn stages(&self, wanted: FrameCount) -> Result<Stages> {
        // What is measured has an error, and the asker has some free memory of its own.
        let most = FrameCount(wanted.0 / 100 * 95);
        ensure!(self.donor_before.size >= wanted, "the donor was shrunk before the asker waited: {self:?}");
        ensure!(self.donor_before.resident >= most, "the donor never had the memory: {self:?}");
        let left = self.donor_before.resident.saturating_sub(self.donor_resident);
        ensure!(left >= most, "only {left} left the donor: {self:?}");
        ensure!(self.asker_resident >= most, "the asker got only {}: {self:?}", self.asker_resident);
        let stage = |name: &str, at: Option<u64>| at.with_context(|| format!("no memory was {name}: {self:?}"));
        let asked = stage("asked for", self.asked)?;
        let noticed = stage("asked for", self.noticed)?;
        let lowered = stage("asked of the donor", self.lowered)?;
        let inflated = stage("inflated", self.inflated)?;
        let released = stage("released", self.released)?;
        let raised = stage("granted", self.raised)?;
        let order = [asked, noticed, lowered, inflated, released, raised];
        ensure!(order.is_sorted(), "the stages came in another order: {self:?}");
        let ms = |from: u64, to: u64| Duration::from_nanos(to - from).as_secs_f64() * 1e3;
        Ok(Stages {
            notice: ms(asked, noticed),
            decision: ms(noticed, lowered),
            inflation: ms(lowered, inflated),
            release: ms(inflated, released),
            raise: ms(released, raised),
            all: ms(asked, raised),
            raises: self.raises.into(),
        })
    }
}
