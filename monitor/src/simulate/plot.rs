//! A comparison as an SVG: the scheduler's sizes and stalls over time, and how evenly each rule
//! spreads stall over the guests.

use aerostat_abi::units::FrameCount;
use plotters::prelude::*;

use super::run::{Comparison, RunResult};
use super::timeline::Snapshot;

/// Width and height in points.
const SIZE: (u32, u32) = (1000, 900);
/// The parts of the height for sizes, stalls and fairness.
const HEIGHTS: [u32; 2] = [420, 630];
const FONT: (&str, u32) = ("sans-serif", 14);
/// Room for the numbers of an axis.
const AXIS: u32 = 60;

type DrawError<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;
type Area<'a, 'b> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Returns the plot as the text of an SVG file.
///
/// # Errors
///
/// What the drawing library fails with, in words.
pub fn svg(comparison: &Comparison) -> Result<String, String> {
    let mut text = String::new();
    draw(comparison, SVGBackend::with_string(&mut text, SIZE)).map_err(|error| error.to_string())?;
    Ok(text)
}

fn draw<'a>(comparison: &Comparison, backend: SVGBackend<'a>) -> Result<(), DrawError<'a>> {
    let root = backend.into_drawing_area();
    root.fill(&WHITE)?;
    let (sizes, rest) = root.split_vertically(HEIGHTS[0]);
    let (stalls, fairness) = rest.split_vertically(HEIGHTS[1] - HEIGHTS[0]);
    if let Some(run) = comparison.runs.first() {
        draw_sizes(comparison, &run.timeline.moments, &sizes)?;
        draw_stalls(comparison, &run.timeline.moments, &stalls)?;
    }
    draw_fairness(comparison, &fairness)?;
    root.present()
}

/// Draws the resident memory of the groups on top of each other, under the pool's line.
fn draw_sizes<'a>(comparison: &Comparison, moments: &[Snapshot], area: &Area<'a, '_>) -> Result<(), DrawError<'a>> {
    let end = comparison.duration.as_secs_f64();
    let pool = mib(comparison.pool);
    let mut chart = ChartBuilder::on(area)
        .caption("resident memory under the scheduler, MiB", FONT)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(AXIS)
        .build_cartesian_2d(0.0..end, 0.0..pool * 1.1)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
    // From the whole stack down to the first group: each covers the lower part of the one before.
    for (index, (name, _)) in comparison.groups.iter().enumerate().rev() {
        let color = Palette99::pick(index).to_rgba();
        let sum = |moment: &Snapshot| moment.resident[..=index].iter().copied().map(mib).sum::<f64>();
        let points = moments.iter().map(|moment| (moment.elapsed.as_secs_f64(), sum(moment)));
        chart
            .draw_series(AreaSeries::new(points, 0.0, color.filled()))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled()));
    }
    chart
        .draw_series(LineSeries::new([(0.0, pool), (end, pool)], BLACK.stroke_width(2)))?
        .label("pool")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 10, y)], BLACK.stroke_width(2)));
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).label_font(FONT).draw()
}

/// Draws the part of the guests that stands still.
fn draw_stalls<'a>(comparison: &Comparison, moments: &[Snapshot], area: &Area<'a, '_>) -> Result<(), DrawError<'a>> {
    let points = moments.iter().map(|moment| (moment.elapsed.as_secs_f64(), 100.0 * moment.stalled));
    let mut chart = ChartBuilder::on(area)
        .caption("guests that stand still under the scheduler, per cent", FONT)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(AXIS)
        .build_cartesian_2d(0.0..comparison.duration.as_secs_f64(), 0.0..100.0)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
    chart.draw_series(AreaSeries::new(points, 0.0, RED.mix(0.6).filled()))?;
    Ok(())
}

/// Draws each rule's guests in the order of their stall: a level line is fair, a low one is good.
fn draw_fairness<'a>(comparison: &Comparison, area: &Area<'a, '_>) -> Result<(), DrawError<'a>> {
    let worst = comparison.runs.iter().map(|run| run.worst_stall().as_secs_f64()).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("stall of each guest in seconds, the worst on the right", FONT)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(AXIS)
        .build_cartesian_2d(0.0..100.0, 0.0..worst * 1.1)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
    for (index, run) in comparison.runs.iter().enumerate() {
        let style = Palette99::pick(index).stroke_width(if index == 0 { 3 } else { 1 });
        chart
            .draw_series(LineSeries::new(sorted_stalls(run), style))?
            .label(run.rule)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 10, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(FONT)
        .draw()
}

/// Returns points from 0 to 100 per cent of the guests.
fn sorted_stalls(run: &RunResult) -> Vec<(f64, f64)> {
    let mut stalls: Vec<f64> = run.stalled.iter().map(std::time::Duration::as_secs_f64).collect();
    stalls.sort_by(f64::total_cmp);
    let count = stalls.len() as f64;
    let steps = stalls.into_iter().enumerate().map(|(index, stall)| (index as f64, stall));
    steps.flat_map(|(index, stall)| [(100.0 * index / count, stall), (100.0 * (index + 1.0) / count, stall)]).collect()
}

fn mib(count: FrameCount) -> f64 {
    count.bytes() as f64 / f64::from(1 << 20)
}
