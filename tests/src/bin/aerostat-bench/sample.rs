//! Repeated measurements of one figure.

use std::time::Instant;

use anyhow::Result;

/// Returns the median, which a few disturbed samples do not change.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Runs `work`; returns the seconds that it takes.
pub(crate) fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Returns a count as a number that can be divided.
#[expect(clippy::cast_precision_loss, reason = "sizes and times are far below 2^53 MiB or nanoseconds")]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle_two() {
        assert_eq!(median(vec![9.0, 1.0, 3.0]).to_bits(), 3.0_f64.to_bits());
        assert_eq!(median(vec![9.0, 1.0, 3.0, 4.0]).to_bits(), 3.5_f64.to_bits());
    }
}
