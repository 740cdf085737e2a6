//! What a guest's balloon driver reports to QEMU (`guest-stats`), each value optional. Pure.
//!
//! A guest may report any number. A value that it did not send is 2^64 - 1, or -1 in older
//! versions of QEMU, and before the first report all are: unknown, which is not zero.
//! Source: virtio 1.3, section 5.5.6.4; QEMU, docs/virtio-balloon-stats.txt.

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;
use serde_json::Value;

/// A guest's report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BalloonStatistics {
    /// When QEMU received it, in seconds of the real time clock.
    pub(super) updated_s: u64,
    /// `stat-total-memory`.
    pub(super) total: Option<u64>,
    /// `stat-free-memory`.
    pub(super) free: Option<u64>,
    /// `stat-available-memory`: what could be allocated without swapping.
    pub(super) available: Option<u64>,
    /// `stat-disk-caches`: pages of files that can be read again.
    pub(super) caches: Option<u64>,
    /// `stat-swap-in`: bytes since boot.
    pub(super) swap_in: Option<u64>,
    /// `stat-swap-out`: bytes since boot.
    pub(super) swap_out: Option<u64>,
    /// `stat-major-faults`: since boot.
    pub(super) major_faults: Option<u64>,
    /// `stat-minor-faults`: since boot.
    pub(super) minor_faults: Option<u64>,
}

impl BalloonStatistics {
    /// Reads the value of the property; `None` where the guest has reported nothing yet.
    pub(super) fn decode(property: &Value) -> Option<Self> {
        let updated_s = property.get("last-update")?.as_u64().filter(|&at| at > 0)?;
        let values = property.get("stats")?;
        let known = |name: &str| values.get(name).and_then(Value::as_u64).filter(|&value| value != u64::MAX);
        let statistics = Self {
            updated_s,
            total: known("stat-total-memory"),
            free: known("stat-free-memory"),
            available: known("stat-available-memory"),
            caches: known("stat-disk-caches"),
            swap_in: known("stat-swap-in"),
            swap_out: known("stat-swap-out"),
            major_faults: known("stat-major-faults"),
            minor_faults: known("stat-minor-faults"),
        };
        let is_empty = statistics == Self { updated_s, ..Self::default() };
        (!is_empty).then_some(statistics)
    }

    /// Returns what could be allocated without swapping. Where the guest does not say it, that is
    /// what is free and the pages of files.
    pub(super) fn allocatable(&self) -> Option<u64> {
        self.available.or_else(|| Some(self.free?.saturating_add(self.caches?)))
    }

    /// Returns the report in the words of a guest of ours, for observers: what is unknown is zero
    /// there.
    pub(super) fn to_report(self, balloon: FrameCount) -> Statistics {
        Statistics {
            total_memory_bytes: self.total.unwrap_or_default(),
            free_memory_bytes: self.free.unwrap_or_default(),
            available_memory_bytes: self.allocatable().unwrap_or_default(),
            disk_caches_bytes: self.caches.unwrap_or_default(),
            balloon_bytes: balloon.bytes(),
            swap_in_bytes: self.swap_in.unwrap_or_default(),
            swap_out_bytes: self.swap_out.unwrap_or_default(),
            major_faults: self.major_faults.unwrap_or_default(),
            minor_faults: self.minor_faults.unwrap_or_default(),
            ..Statistics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::BalloonStatistics;
    use serde_json::json;

    #[test]
    fn what_a_guest_does_not_say_is_unknown() {
        let property = json!({
            "stats": {
                "stat-total-memory": 1_000_000, "stat-free-memory": 0, "stat-available-memory": u64::MAX,
                "stat-disk-caches": -1, "stat-swap-in": "7", "stat-major-faults": 1.5, "stat-htlb-pgalloc": 3,
            },
            "last-update": 77,
        });
        let expected =
            BalloonStatistics { updated_s: 77, total: Some(1_000_000), free: Some(0), ..BalloonStatistics::default() };
        assert_eq!(BalloonStatistics::decode(&property), Some(expected));
    }

    #[test]
    fn a_guest_that_has_not_reported_says_nothing() {
        let values = json!({ "stat-total-memory": 5, "stat-free-memory": u64::MAX });
        assert_eq!(BalloonStatistics::decode(&json!({ "stats": values, "last-update": 0 })), None);
        let unset = json!({ "stat-total-memory": u64::MAX });
        assert_eq!(BalloonStatistics::decode(&json!({ "stats": unset, "last-update": 3 })), None);
        for nonsense in [json!(7), json!({}), json!({ "stats": 3, "last-update": 4 }), json!({ "last-update": "x" })] {
            assert_eq!(BalloonStatistics::decode(&nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn an_old_driver_has_free_memory_and_caches() {
        let old = BalloonStatistics { free: Some(10), caches: Some(5), ..BalloonStatistics::default() };
        assert_eq!(old.allocatable(), Some(15));
        assert_eq!(BalloonStatistics { caches: None, ..old }.allocatable(), None);
        assert_eq!(BalloonStatistics { available: Some(3), ..old }.allocatable(), Some(3));
    }
}
