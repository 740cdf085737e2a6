//! Host paging as the main thread sees it.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use aerostat_abi::units::FrameCount;

use super::fault_service::FaultService;
use super::mover::Paging;
use super::pager::Pager;
use crate::balloon::Balloon;
use crate::jail::{self, Thread};
use crate::problems::Problems;
use crate::process_host::ProcessHost;
use crate::resident::ResidentMeter;
use crate::shared_registers::SharedRegisters;
use crate::supervisor_link::SupervisorLink;

/// The threads need small stacks.
const STACK_BYTES: usize = 128 << 10;

/// Passes limits on, and starts the threads when the first one arrives. A guest that follows its
/// targets never has them.
#[derive(Debug)]
pub(crate) struct PagingControl {
    /// `None` where this guest can't be paged.
    paging: Option<Arc<Paging>>,
    balloon: Arc<Mutex<Balloon<ProcessHost>>>,
    meter: Arc<ResidentMeter>,
    registers: Arc<SharedRegisters>,
    link: Arc<SupervisorLink>,
    are_threads_started: bool,
}

impl PagingControl {
    pub(crate) fn new(
        paging: Option<Arc<Paging>>,
        balloon: Arc<Mutex<Balloon<ProcessHost>>>,
        (meter, registers): (Arc<ResidentMeter>, Arc<SharedRegisters>),
        link: Arc<SupervisorLink>,
    ) -> Self {
        Self { paging, balloon, meter, registers, link, are_threads_started: false }
    }

    /// Follows the limit that the supervisor has published.
    pub(crate) fn follow(&mut self) {
        let limit = self.registers.page().resident_limit();
        let Some(paging) = self.paging.clone() else { return };
        if limit.is_some() && !self.are_threads_started {
            if let Err(error) = self.start(&paging) {
                self.paging = None;
                self.registers.page().withdraw_paging();
                self.report_problem(&error);
                return;
            }
            self.are_threads_started = true;
        }
        if paging.limit() != limit {
            paging.set_limit(limit);
        }
        // Nothing grows beyond the limit from now on but by what is being touched this moment.
        self.registers.page().obey_limit(limit);
    }

    /// Returns why the guest can't go on, if it can't.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.paging.as_ref()?.failure()
    }

    fn start(&self, paging: &Arc<Paging>) -> io::Result<()> {
        paging.map_cache()?;
        let service = FaultService::new(Arc::clone(paging), Arc::clone(&self.meter))?;
        let shared = (Arc::clone(&self.meter), Arc::clone(&self.registers));
        let pager = Pager::new(Arc::clone(paging), Arc::clone(&self.balloon), shared, Arc::clone(&self.link))?;
        let thread = |name: &str| thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        thread("page-faults").spawn(move || {
            confine();
            service.run();
        })?;
        thread("pager").spawn(move || {
            confine();
            pager.run();
        })?;
        Ok(())
    }

    fn report_problem(&self, error: &io::Error) {
        let limit: Option<FrameCount> = self.registers.page().resident_limit();
        let limit = limit.map_or(String::new(), |limit| format!(" to {limit}"));
        Problems::new(Arc::clone(&self.link)).report(format_args!("the host can't page this guest{limit}: {error}"));
    }
}

/// Confines a thread that pages. Without it, the process must not go on: the guest's pages would
/// never come back.
fn confine() {
    jail::confine(Thread::Paging).expect("the kernel has taken this process's other filters");
}
