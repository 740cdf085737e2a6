//! Requests that are wrong, too large or too slow, and too many clients.

use std::io::Write;
use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::super::accept::{Limits, Peers};
use super::super::request::MOST_BODY_BYTES;
use super::fake::{Fixture, Setup, read_to_end};
use super::{code, refused};
use crate::control::api::{Amount, FleetPatch, ProblemCode};
use crate::control::client::ClientError;
use crate::supervisor::{Command, GuestStatus};

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("no answer")
}

fn limited(limits: Limits) -> Fixture {
    Fixture::with(Setup { limits, ..Setup::default() })
}

#[test]
fn what_is_not_described_is_refused() {
    let fixture = Fixture::new();
    for (line, body, expected) in [
        ("PATCH /v1/fleet", "{\"pool\": ", "400"),
        ("PATCH /v1/fleet", "not JSON", "400"),
        ("PATCH /v1/fleet", "", "400"),
        ("PATCH /v1/fleet", "{\"pool\": \"64M\", \"tax\": 1}", "422"),
        ("PATCH /v1/fleet", "{\"pool\": -1}", "422"),
        ("PATCH /v1/fleet", "{\"pool\": 5}", "422"),
        ("PATCH /v1/guests/web", "{\"mim\": \"64M\"}", "422"),
        ("PUT /v1/guests/web/target", "{}", "422"),
        ("POST /v1/guests/web/fly", "", "404"),
        ("POST /v1/guests/web/start?wait=x", "", "400"),
        ("GET /v1/fleet?verbose=1", "", "400"),
        ("GET /v1/events?after=-1", "", "400"),
        ("GET /v2/fleet", "", "404"),
        ("GET /v1/guests/..%2F..%2Fetc/log", "", "404"),
        ("GET /v1/guests/%zz", "", "404"),
        ("DELETE /v1/fleet", "", "405"),
        ("nonsense", "", "400"),
    ] {
        let answer = fixture.send(line, body);
        assert_eq!(status(&answer), expected, "{line} {body}: {answer}");
    }
    assert!(fixture.send("DELETE /v1/guests/web", "").contains("allow: GET, PATCH\r\n"));
    assert!(fixture.done().is_empty(), "the supervisor has heard of none");
    assert_eq!(status(&fixture.send("GET /v1/openapi.json", "")), "200");
}

#[test]
fn a_version_that_is_none_is_refused() {
    let fixture = Fixture::new();
    let head = "PATCH /v1/guests/web HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\nif-match: ";
    assert_eq!(status(&fixture.raw(&format!("{head}W/\"1\"\r\n\r\n{{}}"))), "400");
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let fixture = Fixture::new();
    let body = format!("{{\"pool\": \"{}\"}}", "1".repeat(MOST_BODY_BYTES));
    assert_eq!(status(&fixture.send("PATCH /v1/fleet", &body)), "413");
    // In parts, without its length.
    let part = "x".repeat(64 << 10);
    let chunk = format!("{:x}\r\n{part}\r\n", part.len());
    let head = "PATCH /v1/fleet HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    assert_eq!(status(&fixture.raw(&(head.to_owned() + &chunk.repeat(17)))), "413");
    let line = format!("GET /{}", "x".repeat(64 << 10));
    assert_eq!(status(&fixture.send(&line, "")), "431");
    fixture.client().fleet().unwrap();
}

#[test]
fn a_client_that_sends_nothing_is_disconnected() {
    let fixture = limited(Limits { head: Duration::from_millis(50), ..Limits::default() });
    for beginning in ["", "GET /v1/fle", "GET /v1/fleet HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = fixture.connect();
        stream.write_all(beginning.as_bytes()).unwrap();
        let answer = read_to_end(&mut stream);
        assert!(answer.is_empty() || status(&answer) == "408", "{beginning}: {answer}");
    }
    // The same after an answer.
    let mut stream = fixture.connect();
    stream.write_all(b"GET /v1/fleet HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(status(&read_to_end(&mut stream)), "200");
}

#[test]
fn a_body_that_does_not_arrive_is_not_waited_for() {
    let fixture = limited(Limits { body: Duration::from_millis(50), ..Limits::default() });
    let mut stream = fixture.connect();
    stream.write_all(b"PATCH /v1/fleet HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{\"po").unwrap();
    let answer = read_to_end(&mut stream);
    assert_eq!(status(&answer), "408", "{answer}");
}

#[test]
fn a_client_that_does_not_read_is_disconnected() {
    let fixture = limited(Limits { connections: 1, stall: Duration::from_millis(50), ..Limits::default() });
    let many = (0..5000).map(|number| GuestStatus::for_tests(&format!("guest-{number}"), FrameCount(512)));
    fixture.change(|shared| shared.guests = many.collect());
    let mut stalled = fixture.connect();
    stalled.write_all(b"GET /v1/guests HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // The next client is served once the first one's place is free.
    while !matches!(fixture.client().fleet(), Ok(fleet) if fleet.guests == 5000) {}
    let text = read_to_end(&mut stalled);
    assert!(!text.ends_with("]}"), "it did not get all");
}

#[test]
fn a_thousand_connections_leave_room_for_none_and_harm_none() {
    let limits = Limits::default();
    let fixture = limited(Limits { head: Duration::from_secs(3600), ..limits });
    let mut open = Vec::new();
    let mut refused_clients = 0;
    for _ in 0..1000 {
        let mut stream = fixture.connect();
        if open.len() < limits.connections {
            open.push(stream);
        } else {
            let answer = read_to_end(&mut stream);
            assert!(status(&answer) == "503" && answer.contains("too many clients"), "{answer}");
            refused_clients += 1;
        }
    }
    assert_eq!(refused_clients, 1000 - limits.connections);
    // Those that were accepted are served.
    let last = open.last_mut().unwrap();
    last.write_all(b"GET /v1/fleet HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(status(&read_to_end(last)), "200");
    drop(open);
    while let Err(error) = fixture.client().fleet() {
        assert!(matches!(error, ClientError::Refused(_) | ClientError::Broken(_)), "{error}");
    }
}

#[test]
fn another_user_is_refused() {
    let fixture = Fixture::with(Setup { peers: Peers::only(u32::MAX - 1), ..Setup::default() });
    let problem = refused(fixture.client().fleet());
    assert_eq!((problem.status, problem.code), (403, ProblemCode::Forbidden));
    assert!(problem.detail.starts_with("user "), "{problem}");
}

#[test]
fn too_many_commands_are_refused() {
    let fixture = Fixture::new();
    let client = fixture.client();
    client.fleet().unwrap();
    fixture.change(|shared| shared.is_deaf = true);
    while fixture.mailbox.send(Command::Shutdown, Box::new(|_| ())).is_ok() {}
    assert_eq!(code(client.change_fleet(&FleetPatch { pool: Amount(1 << 30) }, None)), ProblemCode::Busy);
    assert_eq!(client.fleet().unwrap().guests, 2, "what is only read needs no command");
}
