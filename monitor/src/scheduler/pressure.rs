//! The state of the pool, from the memory that it has free and from how the host fares.
//!
//! The pool is a part of the host's memory, and other processes use the rest. Each sample of the
//! host says how much memory it could *back* the pool with: what is resident in guests, and what
//! the host has available. While that is less than the pool, the scheduler shares out that much
//! only. Without other processes it never is: a frame that a guest touches is resident there and no
//! longer available, and the sum stays. A little of what is available is left to the host, so that
//! guests release memory before the host has to.
//!
//! Stalls (PSI) count as well, since a host may move pages in and out while it has memory
//! available. They say nothing about how much is missing, so they never stop raises: at most the
//! state is hard.

use aerostat_abi::units::FrameCount;

use super::policy::huge_floor;
use super::pool_state::{PoolState, StateCause};

/// A sample of the host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    /// What the host can provide besides what it has provided: available memory, or what the limit
    /// of a control group leaves.
    pub available: FrameCount,
    /// The time in which tasks stalled, `None` where the host does not say.
    pub stalls: Option<MemoryStalls>,
}

/// Parts of the last ten seconds in which tasks waited for memory, in hundredths of a per cent.
/// Source: Linux, Documentation/accounting/psi.rst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStalls {
    /// At least one task waited.
    pub some: u32,
    /// All tasks that were not idle waited.
    pub full: u32,
}

impl MemoryStalls {
    /// Stalls of some tasks that make the state soft, and of all tasks that make it hard. A state
    /// is left at half of that.
    const SOFT: u32 = 1000;
    const HARD: u32 = 1000;

    /// Returns the state after `state` with these stalls.
    fn next(self, state: PoolState) -> PoolState {
        let bar = |entered: u32, of: PoolState| if state >= of { entered / 2 } else { entered };
        if self.full >= bar(Self::HARD, PoolState::Hard) {
            PoolState::Hard
        } else if self.some >= bar(Self::SOFT, PoolState::Soft) {
            PoolState::Soft
        } else {
            PoolState::High
        }
    }
}

/// The state of a pool, and what it follows from.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// By the pool's own free memory.
    of_pool: PoolState,
    /// By what the host could back the pool with.
    of_host: PoolState,
    /// By the host's stalls.
    of_stalls: PoolState,
    /// What the host could back the pool with, if that is known.
    backing: Option<FrameCount>,
}

impl Pressure {
    /// Notes a sample of the host, or that there is none, while `resident` frames are behind the
    /// guests of a `pool`.
    pub(super) fn observe(&mut self, host: Option<HostMemory>, resident: FrameCount, pool: FrameCount) {
        let left = FrameCount(pool.0.saturating_mul(PoolState::Low.threshold_percent()) / 100);
        let latest = host.map(|host| huge_floor(resident.saturating_add(host.available).saturating_sub(left)));
        // Other processes come and go all the time: less counts at once, more when it is clearly
        // more.
        let noise = FrameCount(pool.0 / 64);
        self.backing = match (self.backing, latest) {
            (Some(noted), Some(latest)) if latest >= noted && latest.saturating_sub(noted) < noise => Some(noted),
            _ => latest,
        };
        let stalls = host.and_then(|host| host.stalls).unwrap_or_default();
        self.of_stalls = stalls.next(self.of_stalls);
    }

    /// Returns what guests may hold in all: the pool, as far as the host can back it.
    pub(super) fn capacity(&self, pool: FrameCount) -> FrameCount {
        self.backing.map_or(pool, |backing| backing.min(pool))
    }

    /// Brings the state up to date: guests hold `held` frames of the `pool`.
    pub(super) fn update(&mut self, held: FrameCount, pool: FrameCount) {
        self.of_pool = self.of_pool.next(pool.saturating_sub(held), pool);
        self.of_host = self.of_host.next(self.capacity(pool).saturating_sub(held), pool);
    }

    /// Returns the state.
    pub(super) fn state(&self) -> PoolState {
        self.of_pool.max(self.of_host).max(self.of_stalls)
    }

    /// Returns what set the state: the pool itself where its own free memory says the same.
    pub(super) fn cause(&self) -> StateCause {
        let state = self.state();
        if self.of_pool == state {
            StateCause::Pool
        } else if self.of_host == state {
            StateCause::HostMemory
        } else {
            StateCause::HostStalls
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HostMemory, MemoryStalls, Pressure};
    use crate::scheduler::pool_state::{PoolState, StateCause};
    use aerostat_abi::units::FrameCount;

    const POOL: FrameCount = FrameCount::from_mib(1024);

    const fn mib(count: u64) -> FrameCount {
        FrameCount::from_mib(count)
    }

    /// A host with this memory available and stalls in per cent.
    fn host(available_mib: u64, some: u32, full: u32) -> Option<HostMemory> {
        let stalls = Some(MemoryStalls { some: some * 100, full: full * 100 });
        Some(HostMemory { available: mib(available_mib), stalls })
    }

    fn update(pressure: &mut Pressure, held_mib: u64) -> (PoolState, StateCause) {
        pressure.update(mib(held_mib), POOL);
        (pressure.state(), pressure.cause())
    }

    #[test]
    fn a_host_without_other_processes_limits_nothing() {
        let mut pressure = Pressure::default();
        for resident in [0, 300, 1000] {
            pressure.observe(host(1040 - resident, 0, 0), mib(resident), POOL);
            assert_eq!(pressure.capacity(POOL), POOL);
        }
        assert_eq!(update(&mut pressure, 500), (PoolState::High, StateCause::Pool));
        assert_eq!(update(&mut pressure, 1000), (PoolState::Soft, StateCause::Pool));
    }

    #[test]
    fn memory_that_other_processes_use_is_missing() {
        let mut pressure = Pressure::default();
        pressure.observe(host(211, 0, 0), mib(400), POOL);
        assert_eq!(pressure.capacity(POOL), mib(600));
        assert_eq!(update(&mut pressure, 500), (PoolState::High, StateCause::Pool));
        assert_eq!(update(&mut pressure, 585), (PoolState::Hard, StateCause::HostMemory));
        assert_eq!(update(&mut pressure, 700), (PoolState::Low, StateCause::HostMemory));
        assert_eq!(update(&mut pressure, 1020), (PoolState::Low, StateCause::Pool), "the pool itself is as full");
        pressure.observe(host(0, 0, 0), mib(400), POOL);
        assert!(pressure.capacity(POOL) < mib(400), "guests release memory before the host has to");
        pressure.observe(None, mib(400), POOL);
        assert_eq!(update(&mut pressure, 500), (PoolState::High, StateCause::Pool), "a host that does not say");
    }

    #[test]
    fn a_little_more_memory_is_noise_and_a_little_less_is_not() {
        let mut pressure = Pressure::default();
        let mut capacity_with = |available: u64| {
            pressure.observe(host(available + 11, 0, 0), mib(400), POOL);
            pressure.capacity(POOL)
        };
        assert_eq!(capacity_with(200), mib(600));
        assert_eq!(capacity_with(215), mib(600));
        assert_eq!(capacity_with(198), mib(598));
        assert_eq!(capacity_with(214), mib(614));
    }

    #[test]
    fn stalls_make_the_state_hard_at_most_and_fade_with_hysteresis() {
        let mut pressure = Pressure::default();
        let mut state_with = |some, full| {
            pressure.observe(host(10_000, some, full), mib(100), POOL);
            update(&mut pressure, 100)
        };
        assert_eq!(state_with(9, 9), (PoolState::High, StateCause::Pool));
        assert_eq!(state_with(10, 0), (PoolState::Soft, StateCause::HostStalls));
        assert_eq!(state_with(100, 100), (PoolState::Hard, StateCause::HostStalls));
        assert_eq!(state_with(6, 5), (PoolState::Hard, StateCause::HostStalls));
        assert_eq!(state_with(6, 4), (PoolState::Soft, StateCause::HostStalls));
        assert_eq!(state_with(4, 4), (PoolState::High, StateCause::Pool));
    }
}
