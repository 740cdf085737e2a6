//! The balloon as an ordinary application (US 7,433,951, claim 9), for guests whose kernel has no
//! driver of its own (`balloon=none`).
//!
//! It is the loop of the kernel's driver between other neighbours: pinned memory as any application
//! may have it ([`memory`]), a list of what it has given ([`page_list`]), and the port, which it
//! looks at several times a second ([`balloon`]). So that memory has a rival, a second thread has a
//! working set with phases: `phases=64M:3s,320M:4s repeat`, as for `memwalk`. Where that finds no
//! memory, it says so ([`needs`]), and the balloon gives way and tells the host.
#![no_std]
#![no_main]

extern crate alloc;

mod balloon;
mod memory;
mod needs;
mod page_list;

use aerostat_guest::app::{self, Outcome, balloon_port};
use working_set::{Plan, WorkingSet};

use needs::NEEDS;
use page_list::PageList;

aerostat_guest::app!(main);

fn main() -> Outcome {
    match run() {
        Ok(set) => {
            log::info!("verified {} bytes, {} errors", set.verified_bytes(), set.errors());
            if set.errors() == 0 { Outcome::Success } else { Outcome::Failure }
        }
        Err(Refused) => Outcome::Failure,
    }
}

/// The application can't do its work; the log says why.
struct Refused;

/// Drives the balloon while the working set goes through its phases; returns that.
fn run() -> Result<WorkingSet, Refused> {
    let plan = Plan::parse(app::words()).map_err(|error| refuse(&error))?;
    let page_list = PageList::new(balloon_port::extent().total).map_err(|error| refuse(&error))?;
    // SAFETY: the driver gives blocks that its page list or its batch has, and puts them there
    // until they are returned.
    let port = unsafe { balloon_port::open() };
    let Some(port) = port else {
        return Err(refuse(
            &"there is no balloon to drive: say balloon=none to a kernel whose monitor has a balloon port",
        ));
    };
    let driving = app::spawn("balloon", move || balloon::drive(port, page_list)).map_err(|error| refuse(&error))?;
    let set = working_set::run(&plan, |missing| NEEDS.want(missing));
    NEEDS.end();
    log::info!("balloon: {} entries were refused", driving.join());
    Ok(set)
}

fn refuse(why: &dyn core::fmt::Display) -> Refused {
    log::error!("{why}");
    Refused
}
