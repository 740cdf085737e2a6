//! The goals of the default policy, on small traces: never more than 15 % worse than LRU, and
//! better than LRU on scans and loops. They hold for shuffled addresses too, whose order is not the
//! order of use.

use super::{Case, Outcome, index, synthetic_cases};

/// Memory of the synthetic traces.
const FRAMES: u32 = 1024;

#[test]
fn the_default_is_near_lru_and_better_on_scans_and_loops() {
    let index = index::record_made_up_text();
    let mut cases = synthetic_cases(FRAMES);
    cases.push(Case::recorded("index_75", index.clone(), 75));
    cases.push(Case::recorded("index_50", index, 50));
    for case in cases {
        let outcome = Outcome::of(&case.trace, case.frames);
        for ours in [outcome.default_policy(), outcome.shuffled] {
            let line = outcome.line(&case);
            assert!(ours.misses * 100 <= outcome.lru * 115, "more than 15 % worse than LRU:\n{line}");
            let must_win = ["scan", "loop", "loop_150", "loop_300", "mixed"].contains(&case.name);
            assert!(!must_win || ours.misses < outcome.lru, "not better than LRU:\n{line}");
        }
        let clock = outcome.kernel[0].misses;
        let all = [outcome.lru, outcome.clock, outcome.fifo, clock, outcome.default_policy().misses];
        assert!(
            all.iter().all(|&misses| misses >= outcome.optimum),
            "better than the optimum:\n{}",
            outcome.line(&case)
        );
    }
}
