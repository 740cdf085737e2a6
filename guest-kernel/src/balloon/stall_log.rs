//! Lines in the guest's log about what keeps the balloon from its target.

use aerostat_balloon_driver::{Driver, PageList, StallChange, StallLog};

use crate::time::Instant;

/// Logs the driver's stall reason if it has changed.
pub fn log_stall_change(driver: &Driver<impl PageList>, log: &mut StallLog) {
    match log.observe(driver.stall_reason(), Instant::now().as_nanos()) {
        Some(StallChange::Stalled(stall_reason)) => {
            log::warn!("balloon: {stall_reason}; the size is {}, the target {}", driver.size(), driver.target());
        }
        Some(StallChange::Ended) => log::info!("balloon: nothing keeps it from its target any more"),
        None => {}
    }
}
