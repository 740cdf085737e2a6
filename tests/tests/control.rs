//! A detached fleet that is controlled as a user does it: by commands that wait for what they ask.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aerostat_tests::DEADLINE;
use aerostat_tests::command::{Output, run};
use aerostat_tests::environment::app_image;
use serde_json::Value;
use tempfile::TempDir;

/// How often a status is asked for.
const POLL: Duration = Duration::from_millis(50);

/// A fleet that runs in the background. It is ended when the value is dropped.
struct Detached {
    folder: TempDir,
}

impl Detached {
    fn up(text: &str) -> Self {
        let detached = Self { folder: tempfile::tempdir().expect("a temporary folder can be made") };
        detached.write(text);
        let up = detached.run(&["up", &detached.path("fleet.toml"), "--detach", "--log-dir", &detached.path("logs")]);
        assert!(up.status.success() && up.stdout.is_empty(), "{up:?}");
        detached
    }

    fn write(&self, text: &str) {
        fs::write(self.path("fleet.toml"), text).expect("a file can be made in a temporary folder");
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("temporary paths are text").to_owned()
    }

    fn run(&self, words: &[&str]) -> Output {
        let run_dir = self.path("run");
        run([words, &["--run-dir", &run_dir]].concat())
    }

    /// Runs a command that succeeds; returns what it prints.
    #[track_caller]
    fn ask(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
        output.stdout
    }

    /// Runs a command that is refused; returns why.
    #[track_caller]
    fn refusal(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!((output.status.code(), output.stderr.lines().count()), (Some(2), 1), "{words:?}: {output:?}");
        output.stderr
    }

    fn json(&self, words: &[&str]) -> Value {
        let text = self.ask(&[words, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Returns a number of a guest's status in MiB.
    fn mib(&self, guest: &str, key: &str) -> u64 {
        let status = self.json(&["stats", guest]);
        status[key].as_u64().unwrap_or_else(|| panic!("{key} is a number: {status}")) >> 20
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if Path::new(&self.path("run/fleet")).exists() {
            self.run(&["down"]);
        }
    }
}

/// Waits until `is_reached`.
#[track_caller]
fn wait_until(what: &str, mut is_reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_reached() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        thread::sleep(POLL);
    }
}

fn guest(name: &str, keys: &str) -> String {
    let image = app_image("memwalk");
    let image = image.display();
    format!(
        "[[guest]]\nname = \"{name}\"\nimage = \"{image}\"\nmin = \"64M\"\nmax = \"256M\"\n\
         command_line = \"phases=48M:500ms repeat\"\n{keys}\n"
    )
}

fn fleet(pool: &str, guests: &[String]) -> String {
    format!("pool = \"{pool}\"\n{}", guests.concat())
}

#[test]
fn a_fleet_is_seen_explained_and_changed_while_it_runs() {
    let detached = Detached::up(&fleet("400M", &[guest("web", ""), guest("db", "restart = \"on-failure\"")]));
    let listed = detached.ask(&["ps"]);
    assert!(["web ", "db "].iter().all(|name| listed.lines().any(|line| line.starts_with(name))), "{listed}");

    // A user's target is followed, and explained as such.
    detached.ask(&["target", "web", "200M"]);
    wait_until("web has the size that was set", || detached.mib("web", "size_bytes") == 200);
    assert!(detached.ask(&["explain", "web"]).contains("200 MiB"));
    detached.ask(&["target", "web", "auto"]);

    // Limits change together or not at all.
    let refusal = detached.refusal(&["set", "web", "--min", "300M", "--shares", "high"]);
    assert!(refusal.contains("min 300M is above max 256M"), "{refusal}");
    assert_eq!(detached.json(&["stats", "web"])["shares"], 1000);
    detached.ask(&["set", "web", "--max", "96M", "--shares", "high"]);
    wait_until("web has shrunk to its new max", || detached.mib("web", "size_bytes") <= 96);
    assert_eq!(detached.json(&["stats", "web"])["shares"], 2000);

    // The pool shrinks, within what is guaranteed.
    let refusal = detached.refusal(&["pool", "100M"]);
    assert!(refusal.contains("would add up to 128.0 MiB"), "{refusal}");
    detached.ask(&["pool", "256M"]);
    assert_eq!(detached.json(&["stats"])["pool_bytes"], 256 << 20);

    // Guests end and start by their names, and their logs are at hand.
    assert!(detached.ask(&["stop", "db"]).contains("db is ended: stopped"));
    assert!(detached.refusal(&["stop", "db"]).contains("does not run"));
    detached.ask(&["start", "db"]);
    wait_until("db works again", || detached.ask(&["logs", "db"]).contains("in use of"));
    assert!(detached.ask(&["kill", "web"]).contains("signal 9"));
    detached.ask(&["restart", "web"]);
    let inspected = detached.ask(&["inspect", "web"]);
    assert!(inspected.contains("RIP") && inspected.contains("backtrace"), "{inspected}");
    let events = detached.ask(&["events"]);
    assert!(events.contains("web: max 256.0 MiB -> 96.0 MiB, shares 1000 -> 2000"), "{events}");

    // An edited file is applied, after a look at the plan.
    detached.write(&fleet("400M", &[guest("db", "shares = \"low\""), guest("new", "")]));
    let file = detached.path("fleet.toml");
    let plan = detached.ask(&["apply", &file, "--dry-run"]);
    for step in ["~ pool 256.0 MiB -> 400.0 MiB", "~ db: ", "+ new ", "- web "] {
        assert!(plan.lines().any(|line| line.starts_with(step)), "{step}: {plan}");
    }
    assert!(detached.ask(&["ps"]).contains("web "), "nothing was changed");
    detached.ask(&["apply", &file]);
    wait_until("the fleet is as in the file", || {
        let listed = detached.ask(&["ps"]);
        !listed.contains("web ") && listed.lines().any(|line| line.starts_with("new ") && line.contains("walking"))
    });
    let fleet = detached.json(&["stats"]);
    assert_eq!((&fleet["violations"], &fleet["pool_bytes"]), (&0.into(), &(400_u64 << 20).into()), "{fleet}");

    detached.ask(&["down"]);
    assert!(!Path::new(&detached.path("run/fleet")).exists(), "the run directory is gone");
    assert!(detached.refusal(&["ps"]).contains("no fleet runs"));
}

#[test]
fn a_fleet_runs_once_and_a_refused_one_leaves_nothing() {
    let text = fleet("128M", &[guest("web", "")]);
    let detached = Detached::up(&text);
    let refusal = detached.refusal(&["up", &detached.path("fleet.toml"), "--detach"]);
    assert!(refusal.contains("fleet fleet runs already"), "{refusal}");
    detached.ask(&["down"]);
    detached.write(&text.replace("64M", "512M"));
    assert!(detached.refusal(&["up", &detached.path("fleet.toml"), "--detach"]).contains("min 512M is above max 256M"));
    assert!(detached.refusal(&["ps"]).contains("no fleet runs"));
}
