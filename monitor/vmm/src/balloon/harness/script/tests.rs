//! Runs the fuzzer's target without the fuzzer: on its seeds and on random scripts.

use std::fs;

use super::play;

/// The number of scripts, and the most bytes in one: they take about a second.
const SCRIPTS: u32 = 150;
const MOST_BYTES: u64 = 2_000;

#[test]
fn the_fuzzers_seeds_are_run() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/balloon_port");
    let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
    assert!(!seeds.is_empty());
    for seed in seeds {
        println!("{}", seed.display());
        play(&fs::read(seed).unwrap());
    }
}

#[test]
fn random_scripts_are_run() {
    // Steps of xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
    let mut state = 1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..SCRIPTS {
        let bytes = random() % MOST_BYTES;
        let script: Vec<u8> = (0..bytes).map(|_| random().to_le_bytes()[5]).collect();
        play(&script);
    }
}
