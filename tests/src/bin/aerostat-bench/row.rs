//! What a bench yields, and how it is shown.

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// The best that can be had: measured in the same run, or a goal where there is nothing to measure.
    limit: Option<f64>,
    /// Against the limit: 1 is as good as it, more is better.
    ratio: Option<f64>,
}

impl Row {
    /// A figure without a limit.
    pub(crate) fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, limit: None, ratio: None }
    }

    /// A figure of which less is better.
    pub(crate) fn cost(name: impl Into<String>, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { limit: Some(limit), ratio: Some(limit / value), ..Self::plain(name, value, unit) }
    }
}

/// The rows as an aligned table.
pub(crate) fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("name".len());
    let mut text = format!("{:<width$}  {:>12}  {:<4}  {:>12}  {:>7}\n", "name", "value", "unit", "limit", "ratio");
    for Row { name, value, unit, limit, ratio } in rows {
        let (value, limit, ratio) = (number(Some(*value)), number(*limit), number(*ratio));
        text += &format!("{name:<width$}  {value:>12}  {unit:<4}  {limit:>12}  {ratio:>7}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Row, table};

    #[test]
    fn a_cost_beyond_its_limit_has_a_ratio_below_one() {
        assert_eq!(Row::cost("time", 4.0, "ms", 2.0).ratio, Some(0.5));
    }

    #[test]
    fn columns_line_up() {
        let shown = table(&[Row::plain("a", 1.0, "MiB"), Row::cost("longer_name", 1234.5, "ms", 2.0)]);
        let mut widths = shown.lines().map(str::len);
        let first = widths.next();
        assert!(widths.all(|width| Some(width) == first), "{shown}");
    }
}
