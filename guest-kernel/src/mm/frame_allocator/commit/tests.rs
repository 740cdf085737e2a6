//! The accounts under any sequence of requests: the invariant holds, and no frame is lost.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
use proptest::collection::vec;
use proptest::prelude::Strategy;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{CommitAccounts, Purpose};
use crate::config::EVICTION_RESERVE;

const FRAMES: u64 = 4000;
const PURPOSES: [Purpose; 8] = [
    Purpose::Kernel,
    Purpose::Committed,
    Purpose::CommittedPinned,
    Purpose::CommittedReserve,
    Purpose::CompressedPool,
    Purpose::File,
    Purpose::Balloon,
    Purpose::Spare,
];

fn accounts(floor: u64) -> CommitAccounts {
    let mut accounts = CommitAccounts::new(FrameCount(floor));
    accounts.free(FRAMES);
    accounts
}

#[derive(Clone, Debug)]
enum Step {
    Charge(u64),
    Uncharge(u64),
    HandOut(u64, Purpose),
    /// Frees some of what was handed out for a purpose.
    Free(u64, Purpose),
    /// Moves charges to frames that were handed out for the kernel, as a frame cache does, or back
    /// with their frames.
    MoveCharges(u64),
    MoveBack(u64),
    AddHeadroom(u64),
    RemoveHeadroom(u64),
    Offer,
    Withdraw,
    Lose,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let frames = || 1_u64..1500;
    let step = prop_oneof![
        4 => frames().prop_map(Step::Charge),
        2 => frames().prop_map(Step::Uncharge),
        6 => (frames(), select(&PURPOSES[..])).prop_map(|(frames, purpose)| Step::HandOut(frames, purpose)),
        4 => (frames(), select(&PURPOSES[..])).prop_map(|(frames, purpose)| Step::Free(frames, purpose)),
        1 => frames().prop_map(Step::MoveCharges),
        1 => frames().prop_map(Step::MoveBack),
        2 => frames().prop_map(Step::AddHeadroom),
        1 => frames().prop_map(Step::RemoveHeadroom),
        2 => proptest::strategy::Just(Step::Offer),
        1 => proptest::strategy::Just(Step::Withdraw),
        1 => proptest::strategy::Just(Step::Lose),
    ];
    vec(step, 1..60)
}

fn index(purpose: Purpose) -> usize {
    PURPOSES.iter().position(|other| *other == purpose).unwrap()
}

/// What the world outside of the accounts holds.
#[derive(Default)]
struct World {
    /// Frames handed out, by purpose.
    held: [u64; PURPOSES.len()],
    /// Frames of the kernel with commit charges, as in a frame cache.
    cached: u64,
    /// Frames that the host has reclaimed.
    lost: u64,
    /// Swap headroom that no frame counts as.
    added: u64,
    /// Whether headroom was ever removed.
    was_removed: bool,
}

impl World {
    fn apply(&mut self, accounts: &mut CommitAccounts, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Charge(frames) => {
                let available = accounts.available().0;
                let charged = accounts.charge(FrameCount(frames));
                prop_assert_eq!(
                    charged,
                    if frames <= available { Ok(()) } else { Err(FrameCount(frames - available)) }
                );
            }
            Step::Uncharge(frames) => accounts.uncharge(FrameCount(frames.min(accounts.committed))),
            Step::HandOut(frames, purpose) => {
                let open = accounts.open_to(purpose);
                prop_assert!(open <= accounts.free);
                let frames = frames.min(open);
                accounts.hand_out(frames, purpose);
                self.held[index(purpose)] += frames;
                let is_optional = matches!(purpose, Purpose::Balloon | Purpose::Spare) && frames > 0;
                let rest = accounts.committed + accounts.floor;
                prop_assert!(
                    !is_optional || rest <= accounts.free + accounts.headroom,
                    "what is optional leaves the commit its backing"
                );
            }
            Step::Free(frames, purpose) => {
                let frames = frames.min(self.held[index(purpose)]);
                self.held[index(purpose)] -= frames;
                match purpose {
                    Purpose::Committed | Purpose::CommittedPinned | Purpose::CommittedReserve => {
                        accounts.free_committed(frames, frames);
                    }
                    Purpose::CompressedPool | Purpose::File => accounts.free_in_headroom(frames),
                    Purpose::Kernel | Purpose::Balloon | Purpose::Spare => accounts.free(frames),
                }
            }
            Step::MoveCharges(most) => {
                let uncharged = self.held[index(Purpose::Kernel)];
                accounts.move_charges(|charges| {
                    let moved = charges.min(most).min(uncharged);
                    self.held[index(Purpose::Kernel)] -= moved;
                    self.cached += moved;
                    moved
                });
            }
            Step::MoveBack(most) => {
                let frames = most.min(self.cached);
                self.cached -= frames;
                accounts.free_committed(frames, frames);
            }
            Step::AddHeadroom(frames) => {
                accounts.add_headroom(FrameCount(frames));
                self.added += frames;
            }
            Step::RemoveHeadroom(frames) => {
                let frames = frames.min(self.added);
                self.added -= frames;
                self.was_removed |= frames > 0;
                accounts.remove_headroom(FrameCount(frames));
            }
            Step::Offer if accounts.open_to(Purpose::Balloon) >= HUGE_FRAMES => accounts.offer(HUGE_FRAMES),
            Step::Withdraw if accounts.offered() > 0 => accounts.withdraw(HUGE_FRAMES),
            Step::Lose if accounts.offered() > 0 => {
                accounts.lose(HUGE_FRAMES);
                self.lost += HUGE_FRAMES;
            }
            Step::Offer | Step::Withdraw | Step::Lose => {}
        }
        Ok(())
    }

    fn check(&self, accounts: &CommitAccounts) -> Result<(), TestCaseError> {
        prop_assert_eq!(accounts.validate(), Ok(()));
        prop_assert!(self.was_removed || accounts.unbacked == 0, "only removed headroom leaves charges unbacked");
        let held: u64 = self.held.iter().sum();
        prop_assert_eq!(accounts.all_free() + held + self.cached + self.lost, FRAMES, "every frame is somewhere");
        let in_headroom = self.held[index(Purpose::CompressedPool)] + self.held[index(Purpose::File)];
        prop_assert_eq!(accounts.headroom, in_headroom + self.added);
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_commit_charge_is_backed(floor in 0_u64..300, steps in steps()) {
        let (mut accounts, mut world) = (accounts(floor), World::default());
        for step in &steps {
            world.apply(&mut accounts, step)?;
            world.check(&accounts)?;
        }
    }

    /// What an eviction does is to turn a page of headroom into a free frame.
    #[test]
    fn every_commit_charge_can_be_drawn_by_evicting(floor in 0_u64..300, steps in steps()) {
        let (mut accounts, mut world) = (accounts(floor), World::default());
        for step in steps.iter().filter(|step| !matches!(step, Step::RemoveHeadroom(_))) {
            world.apply(&mut accounts, step)?;
        }
        while accounts.committed > 0 {
            let open = accounts.open_to(Purpose::CommittedReserve);
            if open > 0 {
                accounts.hand_out(open, Purpose::CommittedReserve);
            } else {
                prop_assert!(accounts.headroom > 0, "{} charges have nothing left to draw on", accounts.committed);
                accounts.free_in_headroom(1);
            }
        }
    }
}

#[test]
fn charges_without_backing_get_it_from_what_becomes_free() {
    let mut accounts = accounts(0);
    accounts.add_headroom(FrameCount(500));
    accounts.charge(FrameCount(FRAMES + 500)).unwrap();
    accounts.remove_headroom(FrameCount(300));
    assert!(accounts.lacks_backing() && accounts.is_tight());
    assert_eq!((accounts.unbacked, accounts.validate()), (300, Ok(())), "what it backed stays committed");
    accounts.uncharge(FrameCount(100));
    accounts.add_headroom(FrameCount(50));
    assert_eq!(accounts.unbacked, 150);
    accounts.hand_out(1, Purpose::Committed);
    accounts.free(200);
    assert_eq!((accounts.unbacked, accounts.lacks_backing()), (0, false));
    accounts.free -= 300;
    assert!(accounts.validate().is_err(), "what has got a backing may not lose it");
}

#[test]
fn the_last_reserve_is_for_eviction() {
    let mut accounts = accounts(0);
    accounts.add_headroom(FrameCount(1));
    accounts.charge(FrameCount(FRAMES)).unwrap();
    assert_eq!(accounts.open_to(Purpose::Committed), FRAMES - EVICTION_RESERVE.0);
    assert_eq!(accounts.open_to(Purpose::CommittedReserve), FRAMES);
    accounts.hand_out(FRAMES - EVICTION_RESERVE.0, Purpose::Committed);
    assert!(!accounts.is_tight());
    accounts.hand_out(1, Purpose::CommittedReserve);
    assert!(accounts.is_tight());
}
