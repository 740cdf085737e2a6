//! The server and the client against a fake supervisor, over real sockets.

mod bounds;
mod fake;
mod streams;

use std::fs;

use aerostat_abi::units::FrameCount;

use self::fake::{Fixture, Setup};
use super::MetricsListener;
use crate::control::api::{
    Amount, ApplyRequest, FleetPatch, GuestPatch, GuestState, Problem, ProblemCode, TargetSetting,
};
use crate::control::client::{ClientError, Wait};
use crate::supervisor::EventKind;

/// How long a request may wait for what comes at once.
const SOON: Wait = Wait::Seconds(60);

fn refused<T>(result: Result<T, ClientError>) -> Problem {
    match result {
        Err(ClientError::Refused(problem)) => problem,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is not refused"),
    }
}

fn code<T>(result: Result<T, ClientError>) -> ProblemCode {
    refused(result).code
}

#[test]
fn a_client_reads_the_fleet_and_its_guests() {
    let fixture = Fixture::new();
    let client = fixture.client();
    let fleet = client.fleet().unwrap();
    assert_eq!((fleet.name.as_str(), fleet.pool_bytes, fleet.guests), ("demo", 512 << 20, 2));
    assert_eq!(fleet.process, std::process::id());
    let names: Vec<String> = client.guests().unwrap().into_iter().map(|guest| guest.name).collect();
    assert_eq!(names, ["web", "db"]);
    assert_eq!(client.guest("db").unwrap().state, GuestState::Down);
    assert_eq!(client.explanation("db").unwrap().summary, "does not run: it was not started");
    for problem in [refused(client.guest("none")), refused(client.explanation("a/b ü"))] {
        assert_eq!(problem.status, 404);
        assert!(problem.detail.contains("`aerostat ps`"), "{problem}");
    }
}

#[test]
fn settings_are_changed_by_their_version() {
    let fixture = Fixture::new();
    let client = fixture.client();
    let patch = GuestPatch { min: Some(Amount(64 << 20)), ..GuestPatch::default() };
    let version = client.guest("web").unwrap().version;
    let changed = client.change_guest("web", &patch, Some(version)).unwrap();
    assert_eq!(changed.version, version + 1);
    let conflict = refused(client.change_guest("web", &patch, Some(version)));
    assert_eq!((conflict.status, conflict.code), (412, ProblemCode::Conflict));
    client.change_guest("web", &patch, None).unwrap();
    assert_eq!(fixture.shared.lock().unwrap().guests[0].limits.min, FrameCount::from_mib(64));
    assert_eq!(code(client.change_guest("web", &GuestPatch::default(), None)), ProblemCode::Invalid);
    let odd = GuestPatch { min: Some(Amount(5)), ..GuestPatch::default() };
    assert_eq!(code(client.change_guest("web", &odd, None)), ProblemCode::Invalid);
    assert_eq!(code(client.change_guest("none", &patch, None)), ProblemCode::NotFound);
    assert_eq!(client.change_fleet(&FleetPatch { pool: Amount(1 << 30) }, None).unwrap().version, 2);
    let tagged = fixture.send("GET /v1/guests/web", "");
    assert!(tagged.contains("etag: \"2\"\r\n"), "{tagged}");
}

#[test]
fn a_target_is_set_and_left_to_the_scheduler() {
    let fixture = Fixture::new();
    let client = fixture.client();
    let pinned = || fixture.shared.lock().unwrap().guests[0].service.pinned;
    client.set_target("web", TargetSetting::Fixed(Amount(200 << 20))).unwrap();
    assert_eq!(pinned(), Some(FrameCount::from_mib(200)));
    client.set_target("web", TargetSetting::Auto).unwrap();
    assert_eq!(pinned(), None);
    let above = client.set_target("web", TargetSetting::Fixed(Amount(1 << 30)));
    assert_eq!(code(above), ProblemCode::Invalid);
}

#[test]
fn a_start_waits_until_the_guest_runs() {
    let fixture = Fixture::new();
    let client = fixture.client();
    fixture.change(|shared| shared.has_memory = false);
    let begun = client.start("web", Wait::No).unwrap();
    assert_eq!((begun.is_reached, begun.guest.state, begun.guest.starts), (false, GuestState::Queued, 1));
    fixture.change(|shared| shared.guests[0].state = crate::supervisor::GuestState::Down);
    std::thread::scope(|scope| {
        // The guest gets its memory only after the supervisor has heard of the second start.
        scope.spawn(|| {
            while fixture.done().iter().filter(|command| command.starts_with("Start")).count() < 2 {
                std::thread::yield_now();
            }
            fixture.change(|shared| shared.has_memory = true);
        });
        let outcome = client.start("web", SOON).unwrap();
        assert_eq!((outcome.is_reached, outcome.guest.state, outcome.guest.starts), (true, GuestState::Running, 2));
    });
    assert_eq!(code(client.start("web", Wait::No)), ProblemCode::WrongState);
    let outcome = client.stop("web", SOON).unwrap();
    assert_eq!((outcome.is_reached, outcome.guest.state), (true, GuestState::Ended));
    assert!(client.kill("web", SOON).unwrap().is_reached && client.restart("web", SOON).unwrap().is_reached);
    assert_eq!(code(client.stop("none", SOON)), ProblemCode::NotFound);
}

#[test]
fn a_start_that_fails_says_why() {
    let fixture = Fixture::new();
    fixture.change(|shared| {
        shared.has_memory = false;
        shared.events.push(EventKind::GaveUp { guest: "web".into(), why: "an old reason".into() });
    });
    let client = fixture.client();
    while client.fleet().unwrap().last_event == 0 {}
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while fixture.done().is_empty() {
                std::thread::yield_now();
            }
            fixture.change(|shared| {
                shared.guests[0].state = crate::supervisor::GuestState::Down;
                shared.events.push(EventKind::GaveUp { guest: "web".into(), why: "4 MiB are free".into() });
            });
        });
        let problem = refused(client.start("web", SOON));
        assert_eq!(problem.status, 409);
        assert_eq!(problem.detail, "web is not started: 4 MiB are free");
    });
}

#[test]
fn an_inspection_has_the_guests_answer_and_its_log() {
    let fixture = Fixture::new();
    fs::write(fixture.log("web"), "booted\nst\x07uck\n").unwrap();
    let inspection = fixture.client().inspection("web").unwrap();
    assert_eq!(inspection.lines, ["RIP 0x1000", "?[2J 0x2000"], "control characters are replaced");
    assert_eq!(inspection.log, ["booted", "st?uck"]);
    assert_eq!(code(fixture.client().inspection("none")), ProblemCode::NotFound);
}

/// A fleet file with a guest `new`, whose image is this file.
fn request(fixture: &Fixture) -> ApplyRequest {
    let directory = fixture.directory.path();
    fs::write(directory.join("image"), "").unwrap();
    let text = "pool = \"512M\"\n[[guest]]\nname = \"new\"\nimage = \"image\"\nmin = \"64M\"\nmax = \"128M\"\n";
    ApplyRequest { text: text.into(), path: directory.join("fleet.toml"), dry_run: false }
}

#[test]
fn a_fleet_file_is_planned_and_applied() {
    let fixture = Fixture::new();
    let request = request(&fixture);
    let plan = fixture.client().apply(&ApplyRequest { dry_run: true, ..request.clone() }, None).unwrap();
    assert_eq!((plan.is_applied, plan.steps[0].text.as_str()), (false, "+ new (is started)"));
    assert_eq!(fixture.done(), ["plan"]);
    assert!(fixture.client().apply(&request, None).unwrap().is_applied);
    assert_eq!(fixture.done(), ["plan", "plan", "carry out"]);
    let wrong = ApplyRequest { text: "pool = 7".into(), ..request.clone() };
    let problem = refused(fixture.client().apply(&wrong, None));
    assert!(problem.status == 422 && problem.detail.contains("fleet.toml: line 1"), "{problem}");
    let relative = ApplyRequest { path: "fleet.toml".into(), ..request };
    assert_eq!(code(fixture.client().apply(&relative, None)), ProblemCode::Invalid);
}

#[test]
fn what_the_host_refuses_never_reaches_the_supervisor() {
    let fixture = Fixture::with(Setup { refusal: Some("the host has 1 MiB"), ..Setup::default() });
    let client = fixture.client();
    let problem = refused(client.change_fleet(&FleetPatch { pool: Amount(1 << 30) }, None));
    assert_eq!(problem.detail, "the pool is not resized: the host has 1 MiB");
    assert_eq!(code(client.apply(&request(&fixture), None)), ProblemCode::Invalid);
    assert_eq!(fixture.done(), ["plan"]);
}

#[test]
fn a_shutdown_ends_the_run() {
    let fixture = Fixture::new();
    fixture.client().shut_down().unwrap();
    // The stream ends with the run.
    let _ = fixture.client().follow_events(0).map(|events| events.count());
    assert_eq!(code(fixture.client().stop("web", Wait::No)), ProblemCode::Unavailable);
}

#[test]
fn a_hand_over_ends_the_run_too() {
    let fixture = Fixture::new();
    fixture.client().hand_over().unwrap();
    assert_eq!(fixture.done(), ["HandOver"]);
}

#[test]
fn metrics_have_an_address_of_their_own_and_nothing_else_has() {
    let metrics = MetricsListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = metrics.address().unwrap();
    let fixture = Fixture::with(Setup { metrics: Some(metrics), ..Setup::default() });
    let get = |path: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let text = get("/metrics");
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("aerostat_pool_bytes 536870912.0"), "{text}");
    assert!(get("/v1/fleet").starts_with("HTTP/1.1 404"));
    assert!(fixture.send("GET /metrics", "").contains("aerostat_guest_up{guest=\"web\"}"));
    let error = MetricsListener::bind("0.0.0.0:0".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("only on a loopback address; 0.0.0.0:0 is none"), "{error}");
}
