//! Answers that arrive over time.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};

use super::super::accept::Limits;
use super::fake::{Fixture, Setup};
use super::{code, refused};
use crate::control::api::{EventKind as Kind, ProblemCode};
use crate::supervisor::EventKind;

fn changed(number: u64) -> EventKind {
    EventKind::Changed { what: number.to_string() }
}

#[test]
fn events_are_followed_until_the_run_ends() {
    let mut fixture = Fixture::new();
    fixture.change(|shared| shared.events.push(changed(1)));
    let mut events = fixture.client().follow_events(0).unwrap();
    let first = events.next().unwrap().unwrap();
    assert_eq!((first.seq, first.kind, first.text.as_str()), (1, Kind::Changed, "1"));
    fixture.change(|shared| shared.events.extend([changed(2), changed(3)]));
    assert_eq!(events.next().unwrap().unwrap().text, "2");
    fixture.change(|shared| shared.events.push(changed(4)));
    fixture.end_run();
    let rest: Vec<u64> = events.map(|event| event.unwrap().seq).collect();
    assert_eq!(rest, [3, 4], "the last event is not lost");
    let again: Vec<u64> = fixture.client().events(2).unwrap().map(|event| event.unwrap().seq).collect();
    assert_eq!(again, [3, 4]);
}

#[test]
fn a_reader_that_is_too_slow_learns_what_it_lost() {
    let fixture = Fixture::new();
    fixture.change(|shared| shared.events.extend((1..=5000).map(changed)));
    while fixture.client().fleet().unwrap().last_event < 5000 {}
    let mut events = fixture.client().events(10).unwrap().map(Result::unwrap);
    let lost = events.next().unwrap();
    assert_eq!((lost.kind, lost.fields["count"].as_u64()), (Kind::Lost, Some(5000 - 4096 - 10)));
    assert_eq!(events.next().unwrap().seq, lost.seq + 1);
    assert_eq!(events.count(), 4095);
}

#[test]
fn a_client_that_is_gone_frees_its_stream() {
    let limits = Limits { streams: 1, ..Limits::default() };
    let fixture = Fixture::with(Setup { limits, ..Setup::default() });
    let stream = fixture.client().follow_events(0).unwrap();
    assert_eq!(code(fixture.client().follow_events(0)), ProblemCode::Busy);
    drop(stream);
    let mut log = loop {
        fs::write(fixture.log("web"), "one\n").unwrap();
        match fixture.client().follow_log("web", None) {
            Ok(log) => break log,
            Err(error) => assert!(error.to_string().contains("too many streams"), "{error}"),
        }
    };
    log.read_exact(&mut [0; 4]).unwrap();
    drop(log);
    while fixture.client().events(0).is_err() {}
}

#[test]
fn a_log_is_followed_until_the_run_ends() {
    let mut fixture = Fixture::new();
    assert_eq!(refused(fixture.client().log("web", None)).status, 404);
    fs::write(fixture.log("web"), "one\ntwo\n").unwrap();
    let mut text = String::new();
    fixture.client().log("web", None).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "one\ntwo\n");
    let mut followed = fixture.client().follow_log("web", Some(1)).unwrap();
    let mut line = [0; 4];
    followed.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"two\n");
    let mut log = OpenOptions::new().append(true).open(fixture.log("web")).unwrap();
    log.write_all(b"new\n").unwrap();
    followed.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"new\n");
    log.write_all(b"end\n").unwrap();
    fixture.end_run();
    let mut rest = String::new();
    followed.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "end\n");
}

#[test]
fn a_server_that_stops_ends_its_streams() {
    let mut fixture = Fixture::new();
    fixture.change(|shared| shared.events.push(changed(1)));
    let mut events = fixture.client().follow_events(0).unwrap();
    assert_eq!(events.next().unwrap().unwrap().seq, 1);
    let waiting = std::thread::spawn(move || events.next().is_none());
    fixture.stop_server();
    assert!(waiting.join().unwrap(), "the stream has an end");
}
