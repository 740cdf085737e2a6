//! Reports of problems that do not end the guest, sent to the supervisor over the link.
//!
//! Standard error is for failures before there is a link, and for a process's last words, which are
//! read when it has ended. A guest may cause a problem
//! as often as it likes, so a process reports one, and the report never waits.

use std::fmt;
use std::panic;
use std::sync::Arc;

use aerostat_link::Patience;
use aerostat_link::message::FromVmm;

use super::supervisor_link::SupervisorLink;

/// Reports the first problem to the supervisor.
#[derive(Debug)]
pub(super) struct Problems {
    link: Arc<SupervisorLink>,
    is_reported: bool,
}

impl Problems {
    pub(super) fn new(link: Arc<SupervisorLink>) -> Self {
        Self { link, is_reported: false }
    }

    /// Reports a problem, unless one was reported before. Where the link is full, or there is no
    /// supervisor, the next problem is reported instead.
    pub(super) fn report(&mut self, what: fmt::Arguments<'_>) {
        self.is_reported = self.is_reported || report(&self.link, &what);
    }
}

/// Makes panics be reported over `link` instead of written to standard error.
pub(super) fn report_panics(link: Arc<SupervisorLink>) {
    panic::set_hook(Box::new(move |panic| {
        report(&link, panic);
    }));
}

/// Returns whether the link took the message.
fn report(link: &SupervisorLink, what: &dyn fmt::Display) -> bool {
    link.send(&FromVmm::problem(what), Patience::DoNotWait).is_ok()
}

#[cfg(test)]
mod tests {
    use super::Problems;
    use crate::supervisor_link::SupervisorLink;
    use aerostat_link::message::FromVmm;
    use aerostat_link::{Link, LinkError, Patience};
    use std::sync::Arc;

    fn next(link: &Link) -> Option<String> {
        match link.receive_plain(Patience::DoNotWait) {
            Ok(FromVmm::Problem { what }) => Some(what),
            Err(LinkError::WouldBlock) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_problem_is_reported_once() {
        let (ours, theirs) = Link::pair().unwrap();
        let mut problems = Problems::new(Arc::new(SupervisorLink::new(Link::new(theirs))));
        for number in 0..3 {
            problems.report(format_args!("number {number}"));
        }
        assert_eq!((next(&ours), next(&ours)), (Some("number 0".into()), None));
    }

    #[test]
    fn a_report_never_waits() {
        let (ours, theirs) = Link::pair().unwrap();
        let link = Arc::new(SupervisorLink::new(Link::new(theirs)));
        while link.send(&FromVmm::Pressure, Patience::DoNotWait).is_ok() {}
        let mut problems = Problems::new(link);
        problems.report(format_args!("while the link is full"));
        while matches!(ours.receive_plain(Patience::DoNotWait), Ok(FromVmm::Pressure)) {}
        problems.report(format_args!("again"));
        assert_eq!(next(&ours), Some("again".into()));
    }

    #[test]
    fn a_long_problem_is_cut() {
        let (ours, theirs) = Link::pair().unwrap();
        Problems::new(Arc::new(SupervisorLink::new(Link::new(theirs)))).report(format_args!("{}", "ä".repeat(100_000)));
        assert_eq!(next(&ours).unwrap().len(), 512);
    }
}
