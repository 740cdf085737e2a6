//! Max-min fairness: no guest gets more than it claims, and what one leaves is shared equally among
//! the others.
//!
//! The classic "progressive filling" (Bertsekas and Gallager, *Data Networks*, section 6.5.2), done
//! in one pass over the claims in the order of their size. Proportional sharing was not chosen: it
//! rewards a guest that claims more, and a guest's claim is only a hint.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

/// Shares out `available` among `sharers` by their claims, in whole huge frames: calls `grant` for
/// each with its share.
///
/// No share exceeds its claim, their sum never exceeds `available`, and nothing is left while a
/// claim lacks a huge frame.
pub(super) fn share_out<T>(
    available: FrameCount,
    sharers: &mut [T],
    claim: impl Fn(&T) -> FrameCount,
    mut grant: impl FnMut(&mut T, FrameCount),
) {
    let mut order: Vec<(FrameCount, usize)> = sharers.iter().map(claim).zip(0..).collect();
    order.sort_unstable();
    let mut left = available.0 / HUGE_FRAMES;
    let mut sharers_left = sharers.len() as u64;
    for (claim, index) in order {
        // Rounded up for the larger claims would favour the first; rounded down, the remainder goes
        // to the last, which lacks most.
        let share = (claim.0 / HUGE_FRAMES).min(left / sharers_left);
        grant(&mut sharers[index], FrameCount(share * HUGE_FRAMES));
        left -= share;
        sharers_left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
    use proptest::{collection::vec, prop_assert, proptest};

    fn mib(values: &[u64]) -> Vec<FrameCount> {
        values.iter().map(|&value| FrameCount::from_mib(value)).collect()
    }

    /// Returns the shares in the order of the claims.
    fn share_out(available: FrameCount, claims: &[FrameCount]) -> Vec<FrameCount> {
        let mut sharers: Vec<_> = claims.iter().map(|&claim| (claim, FrameCount::ZERO)).collect();
        super::share_out(available, &mut sharers, |&(claim, _)| claim, |sharer, share| sharer.1 = share);
        sharers.into_iter().map(|(_, share)| share).collect()
    }

    #[test]
    fn small_claims_are_met_and_large_ones_share() {
        assert_eq!(share_out(FrameCount::from_mib(100), &mib(&[400, 20, 300])), mib(&[40, 20, 40]));
        assert_eq!(share_out(FrameCount::from_mib(1000), &mib(&[400, 20, 300])), mib(&[400, 20, 300]));
        assert_eq!(share_out(FrameCount::from_mib(10), &[]), []);
    }

    proptest! {
        #[test]
        fn shares_are_max_min_fair(available in 0_u64..4000, claims in vec(0_u64..1000, 1..20)) {
            let claims: Vec<FrameCount> = claims.iter().map(|claim| FrameCount(claim * HUGE_FRAMES)).collect();
            let shares = share_out(FrameCount(available * HUGE_FRAMES), &claims);
            let sum: u64 = shares.iter().map(|share| share.0).sum();
            let asked: u64 = claims.iter().map(|claim| claim.0).sum();
            prop_assert!(sum == asked.min(available * HUGE_FRAMES));
            let most = shares.iter().max().unwrap().0;
            for (share, claim) in shares.iter().zip(&claims) {
                prop_assert!(share <= claim);
                // A sharer that lacks something has, up to one huge frame, as much as any other.
                prop_assert!(share == claim || share.0 + HUGE_FRAMES >= most);
            }
        }
    }
}
