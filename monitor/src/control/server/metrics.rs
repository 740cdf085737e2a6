//! Prometheus metrics, made from the latest status when they are asked for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use hyper::StatusCode;
use hyper::http::request::Parts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::answer::{Answer, whole};
use super::context::Context;
use super::request::Parameters;
use crate::control::api::{Problem, ProblemCode};
use crate::control::publisher::Published;
use crate::control::view;
use crate::scheduler::Rung;
use crate::supervisor::{FleetStatus, GuestStatus};

/// The text format of OpenMetrics 1.0, which Prometheus reads.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A metric: its name, what it is, its type, and its value where there is one.
type Metric<T> = (&'static str, &'static str, MetricType, fn(&T) -> Option<f64>);

/// Of the fleet.
const FLEET: &[Metric<FleetStatus>] = &[
    ("pool_bytes", "Host memory that the guests share", MetricType::Gauge, |fleet| bytes(fleet.pool)),
    ("pool_free_bytes", "Pool memory that no guest holds", MetricType::Gauge, |fleet| bytes(fleet.free)),
    ("granted_bytes", "Targets of all living guests", MetricType::Gauge, |fleet| bytes(fleet.granted)),
    ("resident_bytes", "Host memory behind all living guests", MetricType::Gauge, |fleet| bytes(fleet.resident)),
    ("physical_bytes", "Physical memory that the guests' processes use", MetricType::Gauge, |fleet| {
        fleet.physical.and_then(bytes)
    }),
    ("guaranteed_bytes", "Minima and reservations of all admitted guests", MetricType::Gauge, |fleet| {
        bytes(fleet.guaranteed)
    }),
    ("idle_tax_ratio", "How much of its idle memory a guest gives up to others", MetricType::Gauge, |fleet| {
        Some(f64::from(fleet.idle_tax.percent()) / 100.0)
    }),
    ("moved_bytes", "Memory that moved between guests", MetricType::Counter, |fleet| bytes(fleet.moved)),
    ("violations", "Polls at which more was granted or used than the pool has", MetricType::Counter, |fleet| {
        number(fleet.violations)
    }),
    ("supervisor_rounds", "Rounds of the supervisor's loop", MetricType::Counter, |fleet| {
        number(fleet.loop_times.rounds)
    }),
    ("supervisor_longest_round_seconds", "The longest round so far", MetricType::Gauge, |fleet| {
        seconds(fleet.loop_times.longest)
    }),
    (
        "supervisor_recent_longest_round_seconds",
        "The longest round of the last 10 to 20 s",
        MetricType::Gauge,
        |fleet| seconds(fleet.loop_times.recent_longest),
    ),
    ("supervisor_longest_own_round_seconds", "The same less waits for a processor", MetricType::Gauge, |fleet| {
        seconds(fleet.loop_times.longest_own)
    }),
];

/// Of each guest.
const GUEST: &[Metric<GuestStatus>] = &[
    ("guest_min_bytes", "Smallest size", MetricType::Gauge, |guest| bytes(guest.limits.min)),
    ("guest_max_bytes", "Largest size", MetricType::Gauge, |guest| bytes(guest.limits.max)),
    ("guest_reservation_bytes", "What it gets whenever it can use it", MetricType::Gauge, |guest| {
        bytes(guest.subscription.reservation)
    }),
    ("guest_shares", "Its part of a pool that is too small for all", MetricType::Gauge, |guest| {
        number(guest.subscription.shares.count().into())
    }),
    ("guest_size_bytes", "Machine's memory less balloon", MetricType::Gauge, |guest| bytes(guest.size)),
    ("guest_target_bytes", "Size that it is to have", MetricType::Gauge, |guest| bytes(guest.target)),
    ("guest_balloon_bytes", "Memory in its balloon", MetricType::Gauge, |guest| bytes(guest.balloon)),
    ("guest_resident_bytes", "Host memory behind it", MetricType::Gauge, |guest| bytes(guest.resident)),
    ("guest_paged_out_bytes", "Memory that the host has paged out", MetricType::Gauge, |guest| {
        guest.paged_out.and_then(bytes)
    }),
    (
        "guest_withheld_bytes",
        "By how much it is larger than its target while it is confined",
        MetricType::Gauge,
        |guest| {
            let confined = guest.enforcement.filter(|enforcement| enforcement.rung != Rung::Asked);
            bytes(confined.map_or(FrameCount::ZERO, |enforcement| enforcement.withheld))
        },
    ),
    ("guest_used_bytes", "Memory in use, by its own report", MetricType::Gauge, |guest| {
        guest.usage.and_then(|usage| bytes(usage.used))
    }),
    ("guest_idle_bytes", "Memory in use that was not accessed for a while", MetricType::Gauge, |guest| {
        guest.usage.and_then(|usage| bytes(usage.idle))
    }),
    ("guest_droppable_bytes", "File pages", MetricType::Gauge, |guest| {
        guest.usage.and_then(|usage| bytes(usage.droppable))
    }),
    ("guest_wanted_bytes", "Memory that its threads wait for", MetricType::Gauge, |guest| bytes(guest.wanted)),
    ("guest_compressed_bytes", "Pages in its compressed pool", MetricType::Gauge, |guest| {
        guest.swap.and_then(|swap| bytes(swap.compressed))
    }),
    ("guest_swapped_bytes", "Pages on its swap disk", MetricType::Gauge, |guest| {
        guest.swap.and_then(|swap| bytes(swap.on_disk))
    }),
    ("guest_swap_in_bytes_per_second", "Read from its swap disk", MetricType::Gauge, |guest| {
        guest.swap.and_then(|swap| bytes(swap.in_per_s))
    }),
    ("guest_swap_out_bytes_per_second", "Written to its swap disk", MetricType::Gauge, |guest| {
        guest.swap.and_then(|swap| bytes(swap.out_per_s))
    }),
    ("guest_pressure_ratio", "Part of the time in which a thread waited for memory", MetricType::Gauge, |guest| {
        guest.swap.map(|swap| f64::from(swap.pressure_per_mille) / 1000.0)
    }),
    ("guest_starts", "How often it was to start", MetricType::Counter, |guest| number(guest.service.starts)),
    ("guest_up", "Whether it has a process", MetricType::Gauge, |guest| {
        number(view::state(guest.state).is_up().into())
    }),
];

/// Returns metrics in the text format of OpenMetrics.
#[utoipa::path(get, path = "/metrics", operation_id = "readMetrics", tag = "metrics", responses(
    (status = 200, description = "Metrics for Prometheus.", body = String,
        content_type = "application/openmetrics-text"),
    (status = "default", description = "Why it failed.", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn metrics(context: &Context, head: &Parts) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let published = context.latest().await?;
    let failed = |error: fmt::Error| Problem::new(ProblemCode::Failed, error.to_string());
    let text = text(published).map_err(failed)?;
    Ok(whole(StatusCode::OK, CONTENT_TYPE, text))
}

fn text(published: Arc<Published>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("aerostat");
    registry.register_collector(Box::new(Snapshot(published)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// A status as a source of metrics.
#[derive(Debug)]
struct Snapshot(Arc<Published>);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = &self.0.status;
        for (name, help, kind, value) in FLEET {
            if let Some(value) = value(status) {
                let mut metric = encoder.encode_descriptor(name, help, None, *kind)?;
                match kind {
                    MetricType::Counter => metric.encode_counter::<[(&str, &str); 0], _, f64>(&value, None)?,
                    _ => metric.encode_gauge(&value)?,
                }
            }
        }
        let mut metric = encoder.encode_descriptor(
            "pool_state",
            "State of the pool, 1 for the present one",
            None,
            MetricType::Gauge,
        )?;
        for state in crate::scheduler::PoolState::ALL {
            let labels = [("state", state.to_string())];
            metric.encode_family(&labels)?.encode_gauge(&u32::from(state == status.state))?;
        }
        for (name, help, kind, value) in GUEST {
            let mut metric = encoder.encode_descriptor(name, help, None, *kind)?;
            for guest in &status.guests {
                let Some(value) = value(guest) else { continue };
                let labels = [("guest", guest.name.as_str())];
                let mut metric = metric.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => metric.encode_counter::<[(&str, &str); 0], _, f64>(&value, None)?,
                    _ => metric.encode_gauge(&value)?,
                }
            }
        }
        Ok(())
    }
}

fn bytes(count: FrameCount) -> Option<f64> {
    number(count.bytes())
}

#[expect(clippy::unnecessary_wraps, reason = "as the table wants it")]
fn number(count: u64) -> Option<f64> {
    Some(count as f64)
}

#[expect(clippy::unnecessary_wraps, reason = "as the table wants it")]
fn seconds(span: Duration) -> Option<f64> {
    Some(span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::{FLEET, GUEST, text};
    use crate::control::publisher::Published;
    use crate::supervisor::{FleetStatus, GuestStatus};
    use aerostat_abi::units::FrameCount;
    use std::sync::Arc;

    #[test]
    fn metrics_are_those_of_the_status() {
        let mut guest = GuestStatus::for_tests("web", FrameCount::from_mib(512));
        guest.target = FrameCount::from_mib(3);
        guest.service.starts = 2;
        let status =
            FleetStatus { guests: vec![guest], violations: 7, ..FleetStatus::for_tests(FrameCount::from_mib(1)) };
        let text = text(Arc::new(Published { round: 1, unix_ms: 0, status })).unwrap();
        for line in [
            "# TYPE aerostat_pool_bytes gauge",
            "aerostat_pool_bytes 1048576.0",
            "aerostat_pool_state{state=\"high\"} 1",
            "aerostat_pool_state{state=\"low\"} 0",
            "aerostat_violations_total 7.0",
            "aerostat_guest_target_bytes{guest=\"web\"} 3145728.0",
            "aerostat_guest_starts_total{guest=\"web\"} 2.0",
            "aerostat_guest_up{guest=\"web\"} 0.0",
            "# EOF",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("aerostat_guest_used_bytes{"), "it has not reported");
    }

    #[test]
    fn the_guide_lists_every_metric() {
        let guide = include_str!("../../../../docs/control.md");
        let names =
            FLEET.iter().map(|metric| metric.0).chain(GUEST.iter().map(|metric| metric.0)).chain(["pool_state"]);
        let missing: Vec<_> = names.filter(|name| !guide.contains(&format!("`aerostat_{name}"))).collect();
        assert!(missing.is_empty(), "docs/control.md lacks {missing:?}");
    }
}
