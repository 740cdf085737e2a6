//! Measures the time from spawn to the application's `main`, stage by stage, for guests of very
//! different sizes, since start-up must not cost time per frame, and for several guests at once.
//!
//! The limit is the [`floor`]: an empty VMM, measured in turn with the guests.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::BootStage;
use aerostat_tests::{Machine, Plan, monotonic_ns};
use anyhow::{Context, Result};

use crate::floor;
use crate::row::Row;
use crate::sample::median;

/// Starts per size.
const STARTS: usize = 15;
/// The size of the headline figure and of the stages.
const USUAL_MIB: u64 = 512;
/// Sizes that show whether start-up depends on size.
const OTHER_MIB: [u64; 2] = [64, 8192];
/// The largest machine, whose guest starts small.
const HUGE_GIB: u64 = 511;
const HUGE_GRANT_MIB: u64 = 64;
/// Machines that are compared with a small one, both if the guest has all of it and if it has
/// [`SMALL_MIB`].
const COMPARED_GIB: [u64; 3] = [1, 64, 511];
const SMALL_MIB: u64 = 64;
/// How much longer a start of a larger machine may take.
const MOST_SIZE_RATIO: f64 = 1.2;
/// Guests that are started together, and how much longer that may take than one.
const TOGETHER: usize = 3;
const MOST_TOGETHER_RATIO: f64 = 2.0;

/// Milliseconds since the spawn at which each of [`BootStage::ALL`] was reached.
pub(crate) type Stages = [f64; BootStage::ALL.len()];

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut floors = Vec::new();
    let mut usual = Vec::new();
    let mut others = OTHER_MIB.map(|_| Vec::new());
    let mut huge = Vec::new();
    let hello = |mib| Plan::app("hello").memory_mib(mib);
    for _ in 0..STARTS {
        floors.push(floor::spawn_to_first_exit_ms()?);
        usual.push(start(&hello(USUAL_MIB))?);
        for (mib, starts) in OTHER_MIB.into_iter().zip(&mut others) {
            starts.push(start(&hello(mib))?);
        }
        huge.push(start(&hello(HUGE_GIB << 10).grant_mib(HUGE_GRANT_MIB))?);
    }
    let floor = median(floors);
    let mut rows = vec![Row::cost("spawn_to_main_ms", to_main(&usual), "ms", floor)];
    let mut before = 0.0;
    for stage in BootStage::ALL {
        let reached = median(usual.iter().map(|stages| stages[stage as usize]).collect());
        rows.push(Row::plain(format!("boot_{}_ms", name(stage)), reached - before, "ms"));
        before = reached;
    }
    for (mib, starts) in OTHER_MIB.into_iter().zip(&others) {
        rows.push(Row::cost(format!("spawn_to_main_{mib}_mib_ms"), to_main(starts), "ms", floor));
    }
    rows.push(Row::cost(format!("spawn_to_main_{HUGE_GIB}_gib_ms"), to_main(&huge), "ms", floor));
    rows.extend(compare_sizes()?);
    rows.push(start_together()?);
    Ok(rows)
}

/// Compares the starts of large machines with that of a small one.
fn compare_sizes() -> Result<Vec<Row>> {
    let small = Plan::app("hello").memory_mib(SMALL_MIB);
    let large = |gib| Plan::app("hello").memory_mib(gib << 10);
    let whole = COMPARED_GIB.map(|gib| (format!("{gib}_gib"), large(gib)));
    let ballooned = COMPARED_GIB.map(|gib| (format!("{gib}_gib_ballooned"), large(gib).grant_mib(SMALL_MIB)));
    let compared: Vec<_> = whole.into_iter().chain(ballooned).collect();
    let mut small_starts = Vec::new();
    let mut starts = vec![Vec::new(); compared.len()];
    for _ in 0..STARTS {
        small_starts.push(start(&small)?);
        for ((_, plan), starts) in compared.iter().zip(&mut starts) {
            starts.push(start(plan)?);
        }
    }
    let small = to_main(&small_starts);
    let row = |((name, _), starts): (&(String, Plan), &Vec<Stages>)| {
        Row::cost(format!("start_{name}_ratio"), to_main(starts) / small, "x", MOST_SIZE_RATIO)
    };
    Ok(compared.iter().zip(&starts).map(row).collect())
}

/// Compares the start of several guests, until the last one's `main`, with that of one.
fn start_together() -> Result<Row> {
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        alone.push(until_last_main_ms(1)?);
        together.push(until_last_main_ms(TOGETHER)?);
    }
    Ok(Row::cost("three_starts_ratio", median(together) / median(alone), "x", MOST_TOGETHER_RATIO))
}

/// Starts guests at the same time, by a thread for each as the supervisor does; returns the time
/// until all of them have reached `main`.
fn until_last_main_ms(guests: usize) -> Result<f64> {
    let barrier = Barrier::new(guests);
    let start_one = || {
        let plan = Plan::app("hello").memory_mib(USUAL_MIB);
        barrier.wait();
        let began_ns = monotonic_ns();
        let mut guest = plan.boot(Machine::Kvm);
        guest.expect_exit(GuestExit::Success);
        (began_ns, guest.registers().boot_ns(BootStage::Main))
    };
    let times: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..guests).map(|_| scope.spawn(start_one)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a start that fails has said why")).collect()
    });
    let began_ns = times.iter().map(|(began_ns, _)| *began_ns).min();
    let main_ns = times.iter().map(|(_, main_ns)| *main_ns).max();
    let (began_ns, main_ns) = began_ns.zip(main_ns).context("there are guests")?;
    Ok(Duration::from_nanos(main_ns.saturating_sub(began_ns)).as_secs_f64() * 1e3)
}

/// Starts a guest.
pub(crate) fn start(plan: &Plan) -> Result<Stages> {
    let mut guest = plan.boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    let mut stages = Stages::default();
    for (stage, reached) in BootStage::ALL.into_iter().zip(&mut stages) {
        let time = guest.since_spawn(stage).with_context(|| format!("the stage {stage:?} was not marked"))?;
        *reached = time.as_secs_f64() * 1e3;
    }
    Ok(stages)
}

fn to_main(starts: &[Stages]) -> f64 {
    median(starts.iter().map(|stages| stages[BootStage::Main as usize]).collect())
}

/// Returns the name of the time before a stage, for its row.
fn name(stage: BootStage) -> &'static str {
    match stage {
        BootStage::Process => "process",
        BootStage::Opened => "opened",
        BootStage::Jailed => "jailed",
        BootStage::Machine => "machine",
        BootStage::Loaded => "loaded",
        BootStage::Kernel => "kernel",
        BootStage::Main => "main",
    }
}
