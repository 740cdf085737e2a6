//! Problems that the user should know of, and that do not end the guest: told to the supervisor,
//! over the link.
//!
//! Standard error is for failures before there is a link. A terminal that is stopped or a pipe that
//! is full makes a write wait, here with a device locked; and a guest may cause a problem as often
//! as it likes. So one is told in a process's life, and the telling never waits.

use std::fmt;
use std::panic;
use std::sync::Arc;

use aerostat_link::message::FromVmm;
use aerostat_link::{Link, Patience};

/// Tells the supervisor of the first problem.
#[derive(Debug)]
pub(super) struct Problems {
    link: Arc<Link>,
    is_told: bool,
}

impl Problems {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, is_told: false }
    }

    /// Tells of a problem, unless one was told before. A link that is full takes the next one.
    pub(super) fn tell(&mut self, what: fmt::Arguments<'_>) {
        self.is_told = self.is_told || tell(&self.link, &what);
    }
}

/// Has panics told over `link` instead of written to standard error.
pub(super) fn tell_of_panics(link: Arc<Link>) {
    panic::set_hook(Box::new(move |panic| {
        tell(&link, panic);
    }));
}

/// Returns whether the link took the message.
fn tell(link: &Link, what: &dyn fmt::Display) -> bool {
    link.send(&FromVmm::problem(what), &[], Patience::DoNotWait).is_ok()
}

#[cfg(test)]
mod tests {
    use super::Problems;
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
    fn the_first_problem_is_told_once() {
        let (ours, theirs) = Link::pair().unwrap();
        let mut problems = Problems::new(Arc::new(Link::new(theirs)));
        for number in 0..3 {
            problems.tell(format_args!("number {number}"));
        }
        assert_eq!((next(&ours), next(&ours)), (Some("number 0".into()), None));
    }

    #[test]
    fn telling_never_waits() {
        let (ours, theirs) = Link::pair().unwrap();
        let link = Arc::new(Link::new(theirs));
        while link.send(&FromVmm::Pressure, &[], Patience::DoNotWait).is_ok() {}
        let mut problems = Problems::new(link);
        problems.tell(format_args!("while the link is full"));
        while matches!(ours.receive_plain(Patience::DoNotWait), Ok(FromVmm::Pressure)) {}
        problems.tell(format_args!("again"));
        assert_eq!(next(&ours), Some("again".into()));
    }

    #[test]
    fn a_long_problem_is_cut() {
        let (ours, theirs) = Link::pair().unwrap();
        Problems::new(Arc::new(Link::new(theirs))).tell(format_args!("{}", "ä".repeat(100_000)));
        assert_eq!(next(&ours).unwrap().len(), 512);
    }
}
