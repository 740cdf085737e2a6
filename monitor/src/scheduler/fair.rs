//! Weighted max-min fairness: of memory that is too little for all, each claim gets a part in
//! proportion to its weight, no claim gets more than it asks for, and what one leaves goes to the
//! others.
//!
//! This is "progressive filling" (Bertsekas and Gallager, *Data Networks*, section 6.5.2) with
//! weights and lower bounds. It is where min-funding revocation (Waldspurger, OSDI 2002, section
//! 4.1) comes to rest: there, a page moves from the guest with the fewest shares for each page to
//! the one with the most, until all have the same.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

/// A claim on memory. The counts are whole huge frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// What the claim gets in any case.
    pub(super) least: FrameCount,
    /// What the claim gets at most; `least` if that is more.
    pub(super) most: FrameCount,
    /// The weight; 0 counts as 1.
    pub(super) weight: u64,
}

impl Claim {
    /// Returns the lowest level at which the claim gets `part` huge frames for its weight.
    fn level_of(&self, part: u64) -> u128 {
        (u128::from(part) << 32).div_ceil(self.weight.max(1).into())
    }

    /// Returns the part at `level`, the number of huge frames for each weight in units of 2^-32.
    fn part(&self, level: u128) -> u64 {
        let part = level.saturating_mul(u128::from(self.weight.max(1))) >> 32;
        let least = self.least.0 / HUGE_FRAMES;
        u64::try_from(part).unwrap_or(u64::MAX).min(self.most.0 / HUGE_FRAMES).max(least)
    }
}

/// Shares out `available` among `claims`, in whole huge frames; the result has the order of the
/// claims.
///
/// Every part is at least its claim's `least`, also where these add up to more than is available.
/// Else the sum of the parts is at most `available`, and nothing is left while a claim lacks a huge
/// frame.
pub(super) fn share_out(available: FrameCount, claims: &[Claim]) -> Vec<FrameCount> {
    let available = available.0 / HUGE_FRAMES;
    let sum = |level: u128| claims.iter().map(|claim| claim.part(level)).fold(0, u64::saturating_add);
    // At the highest level that counts, every claim is met.
    let (mut low, mut high) =
        (0, claims.iter().map(|claim| claim.level_of(claim.most.0 / HUGE_FRAMES)).max().unwrap_or(0));
    if sum(high) <= available {
        low = high;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if sum(middle) <= available {
            low = middle;
        } else {
            high = middle;
        }
    }
    let mut parts: Vec<u64> = claims.iter().map(|claim| claim.part(low)).collect();
    let left = available.saturating_sub(parts.iter().sum());
    round_up(&mut parts, claims, left);
    parts.into_iter().map(|part| FrameCount(part * HUGE_FRAMES)).collect()
}

/// Deals the `left` huge frames that rounding has left, one each, to the claims that would get
/// their next one at the lowest levels.
fn round_up(parts: &mut [u64], claims: &[Claim], left: u64) {
    let mut lacking: Vec<(u128, usize)> = claims
        .iter()
        .enumerate()
        .filter(|&(index, claim)| left > 0 && parts[index] < claim.most.0 / HUGE_FRAMES)
        .map(|(index, claim)| (claim.level_of(parts[index] + 1), index))
        .collect();
    // Between equal levels the first claim wins, so that the result is always the same.
    lacking.sort_unstable();
    for (_, index) in lacking.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
        parts[index] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, share_out};
    use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
    use proptest::{collection::vec, prop_assert, proptest};

    /// Claims in MiB: the least, the most and the weight.
    fn shared(available: u64, claims: &[(u64, u64, u64)]) -> Vec<u64> {
        let mib = FrameCount::from_mib;
        let claims: Vec<Claim> =
            claims.iter().map(|&(least, most, weight)| Claim { least: mib(least), most: mib(most), weight }).collect();
        share_out(mib(available), &claims).iter().map(|part| part.mib()).collect()
    }

    #[test]
    fn small_claims_are_met_and_large_ones_share() {
        assert_eq!(shared(100, &[(0, 400, 1), (0, 20, 1), (0, 300, 1)]), [40, 20, 40]);
        assert_eq!(shared(1000, &[(0, 400, 1), (0, 20, 1), (0, 300, 1)]), [400, 20, 300]);
        assert!(shared(10, &[]).is_empty());
    }

    #[test]
    fn weights_and_lower_bounds_count() {
        assert_eq!(shared(90, &[(0, 400, 2000), (0, 400, 1000)]), [60, 30]);
        assert_eq!(shared(90, &[(0, 400, 2000), (50, 400, 1000)]), [40, 50]);
        assert_eq!(shared(90, &[(80, 400, 1), (80, 400, 1)]), [80, 80], "lower bounds hold in any case");
    }

    proptest! {
        #[test]
        fn parts_are_weighted_max_min_fair(
            available in 0_u64..4000,
            claims in vec((0_u64..100, 0_u64..1000, 1_u64..4000), 1..20),
        ) {
            let claims: Vec<Claim> = claims
                .iter()
                .map(|&(least, more, weight)| Claim {
                    least: FrameCount(least * HUGE_FRAMES),
                    most: FrameCount((least + more) * HUGE_FRAMES),
                    weight,
                })
                .collect();
            let parts = share_out(FrameCount(available * HUGE_FRAMES), &claims);
            let huge = |count: FrameCount| count.0 / HUGE_FRAMES;
            let sum = |counts: &mut dyn Iterator<Item = FrameCount>| counts.map(huge).sum::<u64>();
            let least = sum(&mut claims.iter().map(|claim| claim.least));
            let most = sum(&mut claims.iter().map(|claim| claim.most));
            prop_assert!(sum(&mut parts.iter().copied()) == most.min(available.max(least)));
            for (part, claim) in parts.iter().zip(&claims) {
                prop_assert!(*part >= claim.least && *part <= claim.most);
                for (other, theirs) in parts.iter().zip(&claims) {
                    // A claim that lacks something has, up to a huge frame on each side, as much
                    // for each weight as any that has more than its least.
                    if part < &claim.most && other > &theirs.least {
                        let (mine, others) = (huge(*part) + 1, huge(*other).saturating_sub(1));
                        prop_assert!(mine * theirs.weight >= others * claim.weight, "{part:?} {claim:?} {other:?} {theirs:?}");
                    }
                }
            }
        }
    }
}
