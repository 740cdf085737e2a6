//! `aerostat-hostile-vmm`: behaves as a VMM process that a guest has taken over.
//!
//! Supervisors in `tests/tests/hostile_vmm.rs` and in the bench `enforcement` start it like
//! `aerostat-vmm NAME BUILD`, with the link as its standard input. The name says what it does:
//! `aerostat_tests::hostile_vmm::DEEDS` lists all there is.

mod link;
mod page;
mod process;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::{env, thread};

use aerostat_abi::registers::{Epoch, Facts};
use aerostat_abi::units::FrameCount;
use anyhow::{Context, Result, bail};
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Signal, set_parent_process_death_signal};

use self::link::{PRESSURE, STOPPED, SUCCESS, drizzle, flood, longest, pass_itself, pass_lingering_socket, say};

/// Far beyond any machine of the tests.
const MUCH: FrameCount = FrameCount::from_mib(1 << 20);

fn main() -> ExitCode {
    let deed = env::args().nth(1).unwrap_or_default();
    match act(&deed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile VMM {deed:?}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(deed: &str) -> Result<()> {
    // No process stays behind when a test fails.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let stdin = io::stdin();
    let link = stdin.as_fd();
    match deed {
        "ends_unstarted" => return say(link, STOPPED),
        "silent_from_the_first_moment" => stay(),
        "exits_unstarted" => return Ok(()),
        _ => {}
    }
    let mut descriptors = link::receive_start(link)?.into_iter();
    let page_file = descriptors.next().context("no register page")?;
    let page = page::map(&page_file)?;
    let doorbell = descriptors.next().context("no doorbell")?;
    if deed == "publishes_nothing" {
        stay();
    }
    let facts = Facts { size: page.target(), ..Facts::default() };
    page.set_balloon_facts(&facts);
    match deed {
        "silent" => stay(),
        "presses" => flood(link, PRESSURE),
        "reports_use" => flood(link, b"\"UseChanged\""),
        "requests" => flood(link, b"\"Requested\""),
        "tells_where_it_is" => flood(link, &longest("{\"Inspected\":{\"lines\":[", "\"\",", "\"\"]}}")),
        "tells_where_it_is_slowly" => drizzle(link, &longest("{\"Inspected\":{\"lines\":[", "\"\",", "\"\"]}}")),
        "has_problems" => flood(link, &longest("{\"Problem\":{\"what\":\"", "\\u001b", "\"}}")),
        "ends_without_end" => flood(link, SUCCESS),
        "ends_at_length" => {
            let details = longest("{\"Ended\":{\"reason\":{\"Exited\":16},\"details\":[", "\"\",", "\"\"]}}");
            say(link, &details)
        }
        "ends_twice_and_stays" => {
            say(link, SUCCESS)?;
            let _ = say(link, STOPPED);
            stay()
        }
        "exits_without_a_word" => Ok(()),
        "stands_in_a_take_over" => {
            let numbers = u64::MAX;
            let standing = format!(
                "{{\"Standing\":{{\"memory_frames\":{numbers},\"target_frames\":0,\"epoch\":{numbers},\"size_frames\":0}}}}"
            );
            say(link, standing.as_bytes()).map(|()| stay())
        }
        "takes_over" => say(link, b"\"TakenOver\"").map(|()| stay()),
        "garbles" => say(link, b"\0\xff{}").map(|()| stay()),
        "nests" => say(link, &longest("", "[", "")).map(|()| stay()),
        "says_another_type" => say(link, br#"{"Ended":{"reason":{"Exited":-1},"details":7}}"#).map(|()| stay()),
        "says_twice_at_once" => say(link, b"\"Pressure\"\"Pressure\"").map(|()| stay()),
        "says_what_only_a_supervisor_says" => say(link, b"\"Stop\"").map(|()| stay()),
        "says_half" => say(link, &SUCCESS[..20]).map(|()| stay()),
        "says_nothing_at_length" => say(link, &[b' '; 100_000]).map(|()| stay()),
        "says_nothing" => say(link, b"").map(|()| stay()),
        "hangs_up" => {
            shutdown(link, Shutdown::Both)?;
            stay()
        }
        "passes_descriptors" => {
            for _ in 0..4 {
                pass_lingering_socket(link, PRESSURE)?;
            }
            stay()
        }
        "passes_the_link" => pass_itself(link, PRESSURE).map(|()| stay()),
        "ends_and_passes_descriptors" => {
            say(link, SUCCESS)?;
            let _ = pass_lingering_socket(link, SUCCESS);
            stay()
        }
        "acknowledges_the_future" => {
            page.acknowledge(Epoch(1000));
            stay()
        }
        "claims_a_size" => {
            page.set_balloon_facts(&Facts { size: MUCH, ..facts });
            stay()
        }
        "claims_a_balloon" => {
            page.set_balloon_facts(&Facts { balloon: MUCH, ..facts });
            stay()
        }
        "claims_to_use_nothing" => process::grow(MUCH),
        "demands_everything" => page::demand(page, FrameCount(u64::MAX)),
        "scribbles" => page::scribble(page),
        "punches_a_hole_into_the_page" => page::punch(&page_file),
        "shrinks_the_page" => page::shrink(&page_file).map(|()| stay()),
        "blocks_the_doorbell" => page::block(&doorbell, page),
        "rings_back" => link::ring_back(&doorbell).map(|()| stay()),
        "ignores_signals" => {
            process::ignore_signals();
            stay()
        }
        "leaves_a_process" => process::fork(),
        _ => bail!("there is no such deed"),
    }
}

/// Sleeps for ever.
fn stay() -> ! {
    loop {
        thread::park();
    }
}
