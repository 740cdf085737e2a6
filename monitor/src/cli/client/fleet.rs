//! `aerostat pool`, `apply` and `down`: changing the fleet as a whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::connection::{Connection, FleetChoice};
use super::output::{print, print_json};
use crate::cli::Failure;
use crate::control::api::{ApplyRequest, FleetPatch, Plan};
use crate::display::{pool_lines, printable};
use crate::size::Size;
use crate::span::Span;

/// How often it is checked whether a supervisor has ended.
const PACE: Duration = Duration::from_millis(20);

#[derive(Args, Debug)]
pub(in crate::cli) struct PoolArguments {
    /// The new size, such as 1G; without it, the pool is shown.
    size: Option<Size>,
    #[command(flatten)]
    fleet: FleetChoice,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ApplyArguments {
    /// The fleet file that the fleet is to match.
    file: PathBuf,
    #[command(flatten)]
    fleet: FleetChoice,
    /// Only print the plan.
    #[arg(long)]
    dry_run: bool,
    /// Print the plan as JSON, as the control interface has it.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct DownArguments {
    #[command(flatten)]
    fleet: FleetChoice,
    /// End only the supervisor. The guests run on for a minute, and `aerostat up` of the same fleet
    /// takes them over: so a new version of aerostat is put in place.
    #[arg(long)]
    keep_guests: bool,
    /// How long to wait for the end, such as 30s.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    wait: Span,
    /// Return at once.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
}

pub(in crate::cli) fn pool(arguments: &PoolArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let failed = |error| connection.failure(&error);
    if let Some(size) = arguments.size {
        connection.client.change_fleet(&FleetPatch { pool: size.into() }, None).map_err(failed)?;
    }
    let [pool, memory] = pool_lines(&connection.client.fleet().map_err(failed)?);
    print(&format!("{pool}\n{memory}\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn apply(arguments: &ApplyArguments) -> Result<ExitCode, Failure> {
    let request = read_request(&arguments.file)?;
    let connection = arguments.fleet.connect()?;
    let failed = |error| connection.failure(&error);
    // What is carried out must be what was printed: the version is that of the plan's fleet.
    let version = connection.client.fleet().map_err(failed)?.version;
    let plan = connection.client.apply(&request, Some(version)).map_err(failed)?;
    if !arguments.json {
        print(&plan_text(&plan, arguments.dry_run))?;
    }
    let plan = if arguments.dry_run || plan.steps.is_empty() {
        plan
    } else {
        let request = ApplyRequest { dry_run: false, ..request };
        connection.client.apply(&request, Some(version)).map_err(failed)?
    };
    if arguments.json {
        print_json(&plan)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the request for the plan of a fleet file.
fn read_request(path: &Path) -> Result<ApplyRequest, Failure> {
    let unreadable = |error| Failure::refused(format!("{}: can't read the fleet file: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let path = std::path::absolute(path).map_err(unreadable)?;
    Ok(ApplyRequest { text, path, dry_run: true })
}

fn plan_text(plan: &Plan, dry_run: bool) -> String {
    if plan.steps.is_empty() {
        return "the fleet matches the file\n".into();
    }
    let steps = plan.steps.iter().map(|step| printable(&step.text) + "\n").collect::<String>();
    if dry_run { steps + "nothing was changed\n" } else { steps }
}

pub(in crate::cli) fn down(arguments: &DownArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let client = &connection.client;
    let ended = if arguments.keep_guests { client.hand_over() } else { client.shut_down() };
    ended.map_err(|error| connection.failure(&error))?;
    if !arguments.no_wait {
        wait_for_end(&connection, arguments.wait.0)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wait_for_end(connection: &Connection, patience: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    while connection.is_alive() {
        if start.elapsed() >= patience {
            let (name, seconds) = (&connection.name, patience.as_secs());
            return Err(Failure::broken(format!("fleet {name} still runs, {seconds} s later")));
        }
        thread::sleep(PACE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{plan_text, read_request};
    use crate::control::api::{Plan, PlanStep, StepKind};
    use std::fs;

    #[test]
    fn a_plan_is_printed_step_by_step() {
        let step = PlanStep {
            kind: StepKind::Add,
            guest: Some("web".into()),
            changes: Vec::new(),
            text: "+ web (is started)".into(),
        };
        let plan = Plan { steps: vec![step], is_applied: false };
        assert_eq!(plan_text(&plan, true), "+ web (is started)\nnothing was changed\n");
        assert_eq!(plan_text(&plan, false), "+ web (is started)\n");
        assert_eq!(plan_text(&Plan { steps: Vec::new(), is_applied: true }, false), "the fleet matches the file\n");
    }

    #[test]
    fn a_file_that_is_no_text_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.toml");
        fs::write(&path, b"\xff").unwrap();
        let error = read_request(&path).unwrap_err().to_string();
        assert!(error.contains("fleet.toml: can't read the fleet file"), "{error}");
        fs::write(&path, "pool = 1").unwrap();
        let request = read_request(&path).unwrap();
        assert!(request.path.is_absolute() && request.dry_run, "a plan comes first");
    }
}
