//! A comparison as an SVG: the scheduler's sizes and stalls over time, and how evenly each rule
//! spreads stall over the guests.

use std::time::Duration;

use plotters::prelude::*;

use super::run::{Comparison, RunResult};
use super::timeline::Snapshot;
use crate::plot::{self, Area, DrawError, Layer, chart, draw_names, draw_pool, draw_stack, mib};

/// Width and height in points.
const SIZE: (u32, u32) = (1000, 900);
/// The parts of the height for sizes, stalls and fairness.
const HEIGHTS: [u32; 2] = [420, 630];

/// Returns the plot as the text of an SVG file.
///
/// # Errors
///
/// What the drawing library fails with, in words.
pub fn svg(comparison: &Comparison) -> Result<String, String> {
    plot::svg(SIZE, |root| draw(comparison, root)).map_err(|error| error.to_string())
}

fn draw(comparison: &Comparison, root: &Area<'_>) -> Result<(), DrawError> {
    let (sizes, rest) = root.split_vertically(HEIGHTS[0]);
    let (stalls, fairness) = rest.split_vertically(HEIGHTS[1] - HEIGHTS[0]);
    if let Some(run) = comparison.runs.first() {
        draw_sizes(comparison, &run.timeline.moments, &sizes)?;
        draw_stalls(comparison, &run.timeline.moments, &stalls)?;
    }
    draw_fairness(comparison, &fairness)
}

/// Draws the resident memory of the groups on top of each other, under the pool's line.
fn draw_sizes(comparison: &Comparison, moments: &[Snapshot], area: &Area<'_>) -> Result<(), DrawError> {
    let end = comparison.duration.as_secs_f64();
    let ends = (end, mib(comparison.pool) * 1.1);
    let mut chart = chart(area, "resident memory under the scheduler, MiB", ends)?;
    let times: Vec<f64> = moments.iter().map(|moment| moment.elapsed.as_secs_f64()).collect();
    let layers = comparison.groups.iter().enumerate().map(|(index, (name, _))| Layer {
        name,
        color: plot::color(index),
        heights: moments.iter().map(|moment| mib(moment.resident[index])).collect(),
    });
    draw_stack(&mut chart, &times, &layers.collect::<Vec<_>>())?;
    draw_pool(&mut chart, end, comparison.pool)?;
    draw_names(&mut chart, SeriesLabelPosition::MiddleRight)
}

/// Draws the part of the guests that stands still.
fn draw_stalls(comparison: &Comparison, moments: &[Snapshot], area: &Area<'_>) -> Result<(), DrawError> {
    let points = moments.iter().map(|moment| (moment.elapsed.as_secs_f64(), 100.0 * moment.stalled));
    let ends = (comparison.duration.as_secs_f64(), 100.0);
    let mut chart = chart(area, "guests that stand still under the scheduler, per cent", ends)?;
    chart.draw_series(AreaSeries::new(points, 0.0, RED.mix(0.6).filled()))?;
    Ok(())
}

/// Draws each rule's guests in the order of their stall: a level line is fair, a low one is good.
fn draw_fairness(comparison: &Comparison, area: &Area<'_>) -> Result<(), DrawError> {
    let worst = comparison.runs.iter().map(|run| run.worst_stall().as_secs_f64()).fold(1.0, f64::max);
    let mut chart = chart(area, "stall of each guest in seconds, the worst on the right", (100.0, worst * 1.1))?;
    for (index, run) in comparison.runs.iter().enumerate() {
        let style = plot::color(index).stroke_width(if index == 0 { 3 } else { 1 });
        chart
            .draw_series(LineSeries::new(sorted_stalls(run), style))?
            .label(run.rule)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 10, y)], style));
    }
    draw_names(&mut chart, SeriesLabelPosition::UpperLeft)
}

/// Returns points from 0 to 100 per cent of the guests.
fn sorted_stalls(run: &RunResult) -> Vec<(f64, f64)> {
    let mut stalls: Vec<f64> = run.stalled.iter().map(Duration::as_secs_f64).collect();
    stalls.sort_by(f64::total_cmp);
    let count = stalls.len() as f64;
    let steps = stalls.into_iter().enumerate().map(|(index, stall)| (index as f64, stall));
    steps.flat_map(|(index, stall)| [(100.0 * index / count, stall), (100.0 * (index + 1.0) / count, stall)]).collect()
}
