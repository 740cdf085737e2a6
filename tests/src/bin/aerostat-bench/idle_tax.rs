//! The experiment of figure 7 in C. Waldspurger's paper (OSDI 2002), with real guests: two guests
//! with equal shares want more than the pool, and one of them leaves its memory idle. Without a tax
//! on idle memory each has half of the pool; then the tax is set, and memory moves to the guest
//! that works. The plot of the run shows both. `fleets/idle-tax.toml` has the same guests.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{Fleet, FleetPlan, Member};
use anyhow::{Context, Result, ensure};

use crate::row::Row;

const POOL_MIB: u64 = 512;
const MIN_MIB: u64 = 32;
const MAX_MIB: u64 = 448;
/// Both allocate 352 MiB.
const GUESTS: [(&str, &str); 2] = [("idle", "phases=352M/8M:3600s"), ("busy", "phases=352M:3600s")];
/// How long the run goes on without the tax once the guests have what they get, and with it.
const UNTAXED: Duration = Duration::from_secs(20);
const TAXED: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(60);
const TAX: u8 = 75;
const GOAL: f64 = 1.3;
const PLOT: &str = "../target/idle-tax.svg";

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut fleet = plan(0).up(None);
    fleet.wait_for("a report of idle memory", |fleet| is_idle_known(&fleet.status("idle")?).then_some(()));
    thread::sleep(UNTAXED);
    let untaxed = size_ratio(&fleet)?;
    fleet.apply(&plan(TAX));
    thread::sleep(TAXED);
    let taxed = size_ratio(&fleet)?;
    fleet.ask(&["down"]);
    let run = fleet.wait_for_end(PATIENCE);
    ensure!(run.report()["violations"] == 0, "the pool was overdrawn\n{run}");
    GUESTS.iter().for_each(|(name, _)| run.expect_unharmed(name));
    let plot = Path::new(env!("CARGO_MANIFEST_DIR")).join(PLOT);
    fs::write(&plot, &run.plot).with_context(|| format!("writing {}", plot.display()))?;
    println!("the plot of the run is in target/idle-tax.svg");
    Ok(vec![
        Row::rate("idle_tax_0_size_ratio", untaxed, "", 1.0),
        Row::plain("idle_tax_75_size_ratio", taxed, "").goal(GOAL),
    ])
}

fn plan(tax: u8) -> FleetPlan {
    let swap = format!("{MAX_MIB}M");
    let add = |plan: FleetPlan, (name, command_line): (&str, &str)| {
        let image = app_image("memwalk");
        plan.with(&Member { name, image, min_mib: MIN_MIB, max_mib: MAX_MIB, command_line }).with_key("swap", &swap)
    };
    GUESTS.into_iter().fold(FleetPlan::pool_mib(POOL_MIB), add).with_idle_tax(tax)
}

fn is_idle_known(status: &serde_json::Value) -> bool {
    let bytes = |key: &str| status["memory"][key].as_f64();
    bytes("idle_bytes").zip(bytes("used_bytes")).is_some_and(|(idle, used)| idle > used / 2.0)
}

/// Returns the size of the busy guest as a multiple of the idle one's.
fn size_ratio(fleet: &Fleet) -> Result<f64> {
    let size = |name: &str| fleet.status(name)?["size_bytes"].as_f64();
    let [idle, busy] = GUESTS.map(|(name, _)| size(name));
    Ok(busy.context("the busy guest has no size")? / idle.context("the idle guest has no size")?)
}
