//! The balloon as an ordinary application (US 7,433,951, claim 9), for guests whose kernel has no
//! driver of its own (`balloon=none`).
//!
//! The loop is that of the kernel's driver. Its sides differ: pinned memory as any application may
//! have it ([`memory`]), a list of the ballooned blocks ([`page_list`]), and the port, which it
//! polls several times a second ([`balloon`]). A second thread competes for memory: it has a
//! working set with phases, `phases=64M:3s,320M:4s repeat`, as in `memwalk`. When that finds no
//! memory, it says so ([`needs`]); then the balloon stops inflating and tells the host.
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

/// The application cannot do its work; the log has the reason.
struct Refused;

/// Drives the balloon while the working set goes through its phases. Returns the working set.
fn run() -> Result<WorkingSet, Refused> {
    let plan = Plan::parse(app::words()).map_err(|error| refuse(&error))?;
    let page_list = PageList::new(balloon_port::extent().total).map_err(|error| refuse(&error))?;
    // SAFETY: the driver balloons only blocks that its batch owns, and its page list owns them
    // until they are deflated.
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
