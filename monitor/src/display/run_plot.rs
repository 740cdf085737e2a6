//! The plot of a run as an SVG: the resident memory of all guests on top of each other under the
//! pool's line, the target of each, and when threads in it waited for memory.

use std::collections::BTreeMap;
use std::time::Duration;

use plotters::prelude::*;

use crate::plot::{self, Area, DrawError, FONT, Layer, chart, draw_names, draw_pool, draw_stack, mib};
use crate::report::{Sample, Samples};
use crate::supervisor::Outcome;

/// Width and height in points.
const SIZE: (u32, u32) = (1000, 1000);
/// The height of the sizes, and of the targets below them; the rest has the stalls.
const HEIGHTS: [u32; 2] = [420, 280];
/// The most moments that are drawn: fewer than a plot has columns.
const MOST_MOMENTS: u64 = 600;
/// The most guests with a color and a name of their own. Of a larger fleet the largest guests have
/// one, and the others are drawn as one.
const MOST_NAMED: usize = 12;
/// The part of a lane that a guest fills whose threads always wait.
const LANE: f64 = 0.85;

/// Returns the plot of a run, of which samples were kept, as the text of an SVG file.
///
/// # Errors
///
/// What the drawing library fails with, in words.
pub fn run_svg(outcome: &Outcome) -> Result<String, String> {
    let history = History::new(outcome);
    plot::svg(SIZE, |root| draw(outcome, &history, root)).map_err(|error| error.to_string())
}

/// A fleet over time.
#[derive(Debug)]
struct History {
    /// The moments, in seconds since the run began.
    moments: Vec<f64>,
    tracks: Vec<Track>,
}

/// A guest, or the rest of a large fleet: one value for each moment.
#[derive(Debug)]
struct Track {
    name: String,
    color: RGBAColor,
    resident_mib: Vec<f64>,
    /// `None` for several guests, whose targets say little when they are added up.
    target_mib: Option<Vec<f64>>,
    /// The part of the time since the moment before in which a thread waited for memory, 0 to 1.
    stalled: Vec<f64>,
}

impl History {
    fn new(outcome: &Outcome) -> Self {
        let end = u64::try_from(outcome.elapsed.as_millis()).unwrap_or(u64::MAX);
        let step = end.div_ceil(MOST_MOMENTS).max(report_pace(outcome)).max(1);
        let moments: Vec<u64> = (0..=end / step).map(|index| index * step).collect();
        // A guest that was started several times is one guest.
        let mut runs: BTreeMap<&str, Vec<&Samples>> = BTreeMap::new();
        let mut names = Vec::new();
        for guest in &outcome.guests {
            let of_name = runs.entry(&guest.name).or_default();
            if of_name.is_empty() {
                names.push(guest.name.as_str());
            }
            of_name.push(&guest.samples);
        }
        let tracks = names.into_iter().map(|name| Track::new(name, &runs[name], &moments)).collect();
        Self { tracks: merged(tracks), moments: moments.into_iter().map(|ms| ms as f64 / 1e3).collect() }
    }

    /// Returns the end of the time axis.
    fn end(&self, outcome: &Outcome) -> f64 {
        outcome.elapsed.max(Duration::from_millis(1)).as_secs_f64()
    }
}

impl Track {
    fn new(name: &str, runs: &[&Samples], moments: &[u64]) -> Self {
        let at: Vec<Option<&Sample>> = moments.iter().map(|&ms| sample_at(runs, ms)).collect();
        let value =
            |of: fn(&Sample) -> u64| at.iter().map(move |sample| sample.map_or(0.0, |sample| of(sample) as f64));
        let stalled = at.iter().enumerate().map(|(index, now)| {
            let (Some(now), Some(Some(before))) = (now, index.checked_sub(1).map(|before| at[before])) else {
                return 0.0;
            };
            let span = now.ms().saturating_sub(before.ms());
            // The counter of a guest that was started again begins at 0.
            let stalled = now.stalled_ms().saturating_sub(before.stalled_ms());
            if span == 0 { 0.0 } else { (stalled as f64 / span as f64).min(1.0) }
        });
        Self {
            name: name.to_owned(),
            color: BLACK.to_rgba(),
            resident_mib: value(Sample::resident_mib).collect(),
            target_mib: Some(value(Sample::target_mib).collect()),
            stalled: stalled.collect(),
        }
    }

    fn total(&self) -> f64 {
        self.resident_mib.iter().sum()
    }
}

/// Returns the time between samples of the guest that was sampled least often.
fn report_pace(outcome: &Outcome) -> u64 {
    outcome.guests.iter().map(|guest| guest.samples.pace_ms()).max().unwrap_or_default()
}

/// Returns the latest sample at `ms` of the run of a guest that went on then.
fn sample_at<'a>(runs: &[&'a Samples], ms: u64) -> Option<&'a Sample> {
    runs.iter().rev().find_map(|run| {
        let (samples, pace) = (run.as_slice(), run.pace_ms());
        let (first, last) = (samples.first()?, samples.last()?);
        if !(first.ms()..last.ms().saturating_add(pace)).contains(&ms) {
            return None;
        }
        samples[..samples.partition_point(|sample| sample.ms() <= ms)].last()
    })
}

/// Colors the tracks. Of too many, draws those together that have least memory.
fn merged(mut tracks: Vec<Track>) -> Vec<Track> {
    let mut rest = Vec::new();
    if tracks.len() > MOST_NAMED {
        let mut by_size: Vec<usize> = (0..tracks.len()).collect();
        by_size.sort_by(|&one, &other| tracks[other].total().total_cmp(&tracks[one].total()));
        let mut is_named = vec![false; tracks.len()];
        by_size.iter().take(MOST_NAMED).for_each(|&index| is_named[index] = true);
        let mut is_named = is_named.into_iter();
        (tracks, rest) = tracks.into_iter().partition(|_| is_named.next().unwrap_or_default());
    }
    for (index, track) in tracks.iter_mut().enumerate() {
        track.color = plot::color(index);
    }
    let count = rest.len();
    let merged = rest.into_iter().reduce(|mut sum, track| {
        sum.resident_mib.iter_mut().zip(track.resident_mib).for_each(|(sum, mib)| *sum += mib);
        sum.stalled.iter_mut().zip(track.stalled).for_each(|(most, part)| *most = most.max(part));
        sum
    });
    let color = RGBColor(170, 170, 170).to_rgba();
    tracks.extend(merged.map(|track| Track { name: format!("{count} others"), color, target_mib: None, ..track }));
    tracks
}

fn draw(outcome: &Outcome, history: &History, root: &Area<'_>) -> Result<(), DrawError> {
    let (sizes, rest) = root.split_vertically(HEIGHTS[0]);
    let (targets, stalls) = rest.split_vertically(HEIGHTS[1]);
    draw_sizes(outcome, history, &sizes)?;
    draw_targets(outcome, history, &targets)?;
    draw_stalls(outcome, history, &stalls)
}

fn draw_sizes(outcome: &Outcome, history: &History, area: &Area<'_>) -> Result<(), DrawError> {
    let end = history.end(outcome);
    let most = mib(outcome.pool.max(outcome.peak_resident));
    let mut chart = chart(area, "resident memory, MiB", (end, most * 1.1))?;
    let layers = history.tracks.iter().map(|track| Layer {
        name: &track.name,
        color: track.color,
        heights: track.resident_mib.clone(),
    });
    draw_stack(&mut chart, &history.moments, &layers.collect::<Vec<_>>())?;
    draw_pool(&mut chart, end, outcome.pool)?;
    draw_names(&mut chart, SeriesLabelPosition::MiddleRight)
}

fn draw_targets(outcome: &Outcome, history: &History, area: &Area<'_>) -> Result<(), DrawError> {
    let drawn = history.tracks.iter().filter_map(|track| Some((track.color, track.target_mib.as_ref()?)));
    let most = drawn.clone().flat_map(|(_, targets)| targets).copied().fold(1.0, f64::max);
    let mut chart = chart(area, "target of each guest, MiB", (history.end(outcome), most * 1.1))?;
    for (color, targets) in drawn {
        let points = history.moments.iter().copied().zip(targets.iter().copied());
        chart.draw_series(LineSeries::new(steps(points), color.stroke_width(2)))?;
    }
    Ok(())
}

/// Draws a lane for each guest, the first at the top, as the fleet file lists them.
fn draw_stalls(outcome: &Outcome, history: &History, area: &Area<'_>) -> Result<(), DrawError> {
    let lanes = history.tracks.len().max(1);
    let caption = "threads wait for memory: the filled part of a lane is the part of the time";
    let mut chart = ChartBuilder::on(area)
        .caption(caption, FONT)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(plot::AXIS)
        .build_cartesian_2d(0.0..history.end(outcome), 0.0..lanes as f64)?;
    chart.configure_mesh().disable_y_mesh().disable_y_axis().light_line_style(TRANSPARENT).draw()?;
    for (index, track) in history.tracks.iter().enumerate() {
        let floor = (lanes - 1 - index) as f64;
        let points = history.moments.iter().zip(&track.stalled).map(|(&at, part)| (at, floor + LANE * part));
        chart.draw_series(AreaSeries::new(steps(points), floor, track.color.filled()))?;
        chart.draw_series(LineSeries::new([(0.0, floor), (history.end(outcome), floor)], BLACK.mix(0.2)))?;
        chart.draw_series([Text::new(track.name.clone(), (0.0, floor + LANE), FONT)])?;
    }
    Ok(())
}

/// Returns a line that keeps each value until the next one.
fn steps(points: impl Iterator<Item = (f64, f64)>) -> impl Iterator<Item = (f64, f64)> {
    let mut before = None;
    points.flat_map(move |(at, value)| {
        let corner = before.replace(value).map(|before| (at, before));
        corner.into_iter().chain([(at, value)])
    })
}

#[cfg(test)]
mod tests {
    use super::{History, MOST_NAMED, run_svg};
    use crate::host::{EndReason, Ending};
    use crate::report::{Sample, Samples};
    use crate::scheduler::{Limits, Reading};
    use crate::supervisor::{
        BalloonTotals, EnforcementTotals, GuestOutcome, LoopTimes, Outcome, RequestTotals, SwapTotals,
    };
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    /// A guest with samples of `resident` MiB, a tenth of a second apart, whose threads wait half
    /// of the time.
    fn guest(name: &str, begin_ms: u64, resident: &[u64]) -> GuestOutcome {
        let mut samples = Samples::default();
        for (index, &mib) in resident.iter().enumerate() {
            let reading = Reading {
                balloon: FrameCount::ZERO,
                resident: FrameCount::from_mib(mib),
                target: FrameCount::from_mib(mib + 8),
            };
            let past = index as u64 * 100;
            let size = FrameCount::from_mib(mib + 8);
            let stalled = Duration::from_millis(past / 2);
            samples.record(Sample::new(Duration::from_millis(begin_ms + past), size, &reading).with_stalled(stalled));
        }
        GuestOutcome {
            name: name.to_owned(),
            limits: Limits { min: FrameCount::from_mib(16), max: FrameCount::from_mib(512) },
            spawn_to_main: None,
            samples,
            app: None,
            allocation_failures: 0,
            balloon: BalloonTotals::default(),
            enforcement: EnforcementTotals::default(),
            dropped_log_lines: 0,
            swap: SwapTotals::default(),
            requests: RequestTotals::default(),
            ending: Ending { reason: EndReason::Stopped, details: Vec::new() },
        }
    }

    fn outcome(guests: Vec<GuestOutcome>) -> Outcome {
        Outcome {
            elapsed: Duration::from_millis(500),
            pool: FrameCount::from_mib(256),
            moved: FrameCount::ZERO,
            peak_resident: FrameCount::from_mib(200),
            peak_physical: FrameCount::from_mib(200),
            violations: 0,
            loop_times: LoopTimes::default(),
            guests,
        }
    }

    #[test]
    fn a_guest_has_memory_from_its_first_sample_to_its_last() {
        let history = History::new(&outcome(vec![guest("a", 100, &[50, 60, 70]), guest("b", 0, &[9; 6])]));
        assert_eq!(history.moments, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]);
        let [a, b] = &history.tracks[..] else { panic!("{history:?}") };
        assert_eq!(a.resident_mib, [0.0, 50.0, 60.0, 70.0, 0.0, 0.0]);
        assert_eq!(a.target_mib.as_deref(), Some(&[0.0, 58.0, 68.0, 78.0, 0.0, 0.0][..]));
        assert_eq!((a.stalled.as_slice(), &b.resident_mib[..]), (&[0.0, 0.0, 0.5, 0.5, 0.0, 0.0][..], &[9.0; 6][..]));
    }

    #[test]
    fn a_guest_that_was_started_again_is_one_guest() {
        let history = History::new(&outcome(vec![guest("a", 0, &[50, 60]), guest("a", 300, &[7, 8])]));
        assert_eq!(history.tracks.len(), 1);
        assert_eq!(history.tracks[0].resident_mib, [50.0, 60.0, 0.0, 7.0, 8.0, 0.0]);
        assert!(history.tracks[0].stalled.iter().all(|part| (0.0..=1.0).contains(part)));
    }

    #[test]
    fn a_large_fleet_has_names_for_its_largest_guests_only() {
        let names: Vec<String> = (0..200).map(|number| format!("g{number}")).collect();
        let size = |number: usize| if number.is_multiple_of(20) { 100 } else { 1 };
        let guests = names.iter().enumerate().map(|(number, name)| guest(name, 0, &[size(number); 6])).collect();
        let outcome = outcome(guests);
        let history = History::new(&outcome);
        assert_eq!(history.tracks.len(), MOST_NAMED + 1);
        let others = &history.tracks[MOST_NAMED];
        assert_eq!((others.name.as_str(), others.resident_mib[0]), ("188 others", 188.0));
        assert!((0..10).all(|tens| history.tracks.iter().any(|track| track.name == format!("g{}", tens * 20))));
        let svg = run_svg(&outcome).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("188 others") && !svg.contains("g199"), "{svg}");
    }

    #[test]
    fn a_run_without_samples_has_a_plot() {
        for guests in [Vec::new(), vec![guest("a", 0, &[])]] {
            let outcome = Outcome { elapsed: Duration::ZERO, ..outcome(guests) };
            assert!(run_svg(&outcome).unwrap().contains("</svg>"));
        }
    }
}
