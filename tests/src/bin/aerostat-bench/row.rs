//! A row: what a bench returns for each figure, and how it is printed.

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// The best possible value: measured in the same run, or a goal if nothing can be measured.
    limit: Option<f64>,
    /// The value relative to the limit: 1 is as good as the limit, more is better.
    ratio: Option<f64>,
    /// The value that it should reach: at most for a cost, at least for a rate.
    goal: Option<f64>,
}

impl Row {
    /// Makes a row without a limit.
    pub(crate) fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, limit: None, ratio: None, goal: None }
    }

    /// Makes a row whose smaller values are better.
    pub(crate) fn cost(name: impl Into<String>, value: f64, unit: &'static str, limit: f64) -> Self {
        // What costs nothing is as good as any limit, that of zero included.
        let ratio = if value > 0.0 { limit / value } else { 1.0 };
        Self { limit: Some(limit), ratio: Some(ratio), ..Self::plain(name, value, unit) }
    }

    /// Makes a row whose larger values are better.
    pub(crate) fn rate(name: impl Into<String>, value: f64, unit: &'static str, limit: f64) -> Self {
        Self { limit: Some(limit), ratio: Some(value / limit), ..Self::plain(name, value, unit) }
    }

    /// Sets the goal.
    pub(crate) fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Sets the goal to a part of the limit. Without a limit there is no goal.
    pub(crate) fn goal_of_limit(self, part: f64) -> Self {
        Self { goal: self.limit.map(|limit| part * limit), ..self }
    }
}

/// Returns the rows as an aligned table.
pub(crate) fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max("name".len());
    let mut text = line(width, ["name", "value", "unit", "limit", "ratio", "goal"]);
    for Row { name, value, unit, limit, ratio, goal } in rows {
        let [value, limit, ratio, goal] = [Some(*value), *limit, *ratio, *goal].map(number);
        text += &line(width, [name, &value, unit, &limit, &ratio, &goal]);
    }
    text
}

fn line(width: usize, [name, value, unit, limit, ratio, goal]: [&str; 6]) -> String {
    format!("{name:<width$}  {value:>12}  {unit:<5}  {limit:>12}  {ratio:>7}  {goal:>7}\n")
}

#[cfg(test)]
mod tests {
    use super::{Row, table};

    #[test]
    fn a_cost_beyond_its_limit_has_a_ratio_below_one() {
        assert_eq!(Row::cost("time", 4.0, "ms", 2.0).ratio, Some(0.5));
    }

    #[test]
    fn a_limit_of_zero_is_met_by_zero_alone() {
        assert_eq!([0.0, 2.0].map(|value| Row::cost("faults", value, "", 0.0).ratio), [Some(1.0), Some(0.0)]);
    }

    #[test]
    fn a_rate_below_its_limit_has_a_ratio_below_one() {
        assert_eq!(Row::rate("speed", 2.0, "GiB/s", 4.0).ratio, Some(0.5));
    }

    #[test]
    fn a_goal_may_be_a_part_of_the_limit() {
        assert_eq!(Row::rate("speed", 2.0, "GiB/s", 4.0).goal_of_limit(0.5).goal, Some(2.0));
        assert_eq!(Row::plain("size", 2.0, "MiB").goal_of_limit(0.5).goal, None);
    }

    #[test]
    fn all_lines_of_a_table_have_the_same_width() {
        let shown = table(&[Row::plain("a", 1.0, "MiB"), Row::cost("longer name", 1234.5, "ms", 2.0)]);
        let mut widths = shown.lines().map(str::len);
        let first = widths.next();
        assert!(widths.all(|width| Some(width) == first), "{shown}");
    }
}
