//! Measures the time from spawn to the application's `main`, stage by stage, for guests of very
//! different sizes, since start-up must not cost time per frame.
//!
//! The limit is the [`floor`]: an empty VMM, measured in turn with the guests.

use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::BootStage;
use aerostat_tests::{Machine, Plan};
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

/// Milliseconds since the spawn at which each of [`BootStage::ALL`] was reached.
type Stages = [f64; BootStage::ALL.len()];

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
    Ok(rows)
}

/// Starts a guest.
fn start(plan: &Plan) -> Result<Stages> {
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
        BootStage::Machine => "machine",
        BootStage::Loaded => "loaded",
        BootStage::Kernel => "kernel",
        BootStage::Main => "main",
    }
}
