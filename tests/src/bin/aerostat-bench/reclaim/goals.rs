//! What the default policy commit charges, on small traces: never worse than LRU by more than 15 %,
//! and better than LRU on scan and loop. It is committed whether or not the order of the pages'
//! addresses has anything to do with the order of their use.

use super::{Case, Outcome, index, synthetic_cases};

/// Memory of the synthetic traces.
const FRAMES: u32 = 1024;

#[test]
fn the_default_is_never_far_behind_lru_and_ahead_of_it_on_scans_and_loops() {
    let index = index::of_made_up_text();
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
