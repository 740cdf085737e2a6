//! What the plots of runs and of simulations have in common: an SVG, charts over time, areas that
//! are stacked.

use std::io;

use aerostat_abi::units::FrameCount;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

pub(crate) const FONT: (&str, u32) = ("sans-serif", 14);
/// Room for the numbers of an axis.
pub(crate) const AXIS: u32 = 60;

/// Why a plot can't be drawn.
pub(crate) type DrawError = DrawingAreaErrorKind<io::Error>;
/// A part of a plot.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A chart with numbers on both axes.
pub(crate) type Chart<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A layer of a stack: its name and its height at each moment.
pub(crate) struct Layer<'n> {
    pub(crate) name: &'n str,
    pub(crate) color: RGBAColor,
    pub(crate) heights: Vec<f64>,
}

/// Returns what `draw` draws on a white area of `size` points as the text of an SVG file.
pub(crate) fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
    }
    Ok(text)
}

/// Makes a chart of `area`, both of whose axes begin at 0, with horizontal lines.
pub(crate) fn chart<'a, 'b>(area: &'b Area<'a>, caption: &str, ends: (f64, f64)) -> Result<Chart<'a, 'b>, DrawError> {
    let mut chart = ChartBuilder::on(area)
        .caption(caption, FONT)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(AXIS)
        .build_cartesian_2d(0.0..ends.0, 0.0..ends.1)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
    Ok(chart)
}

/// Draws `layers` on top of each other, the first one at the bottom.
pub(crate) fn draw_stack(chart: &mut Chart<'_, '_>, moments: &[f64], layers: &[Layer<'_>]) -> Result<(), DrawError> {
    let mut tops = vec![0.0; moments.len()];
    let mut stack = Vec::new();
    for layer in layers {
        tops.iter_mut().zip(&layer.heights).for_each(|(top, height)| *top += height);
        stack.push((layer, tops.clone()));
    }
    // From the whole stack down to its first layer: each covers the lower part of the one before.
    for (layer, tops) in stack.into_iter().rev() {
        let points = moments.iter().copied().zip(tops);
        let color = layer.color;
        chart
            .draw_series(AreaSeries::new(points, 0.0, color.filled()))?
            .label(layer.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled()));
    }
    Ok(())
}

/// Draws the line that the stack must not cross.
pub(crate) fn draw_pool(chart: &mut Chart<'_, '_>, end: f64, pool: FrameCount) -> Result<(), DrawError> {
    let (pool, style) = (mib(pool), BLACK.stroke_width(2));
    chart
        .draw_series(LineSeries::new([(0.0, pool), (end, pool)], style))?
        .label("pool")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 10, y)], style));
    Ok(())
}

/// Draws the names of the series.
pub(crate) fn draw_names<'a: 'b, 'b>(
    chart: &mut Chart<'a, 'b>,
    position: SeriesLabelPosition,
) -> Result<(), DrawError> {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(FONT)
        .draw()
}

/// Returns the color of a series.
pub(crate) fn color(index: usize) -> RGBAColor {
    Palette99::pick(index).to_rgba()
}

pub(crate) fn mib(count: FrameCount) -> f64 {
    count.bytes() as f64 / f64::from(1 << 20)
}
