//! Time since boot, from the time stamp counter.

/// A moment, in nanoseconds since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// Returns the moment `nanoseconds` after boot.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Returns the nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the moment `nanoseconds` later; saturates.
    #[must_use]
    pub const fn after(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// Returns the nanoseconds since `earlier`; zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(not(target_os = "none"))]
impl Instant {
    /// Returns the present moment; on the host, counted from the first call.
    pub fn now() -> Self {
        static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        let first = FIRST.get_or_init(std::time::Instant::now);
        Self(u64::try_from(first.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(target_os = "none")]
pub(crate) use clock::start;

#[cfg(target_os = "none")]
#[allow(unsafe_code, reason = "reads the time stamp counter")]
mod clock {
    use core::arch::x86_64::_rdtsc;

    use spin::Once;

    use super::Instant;
    use crate::arch::x86_64::apic;

    /// How long a counter of unknown rate is measured against the APIC timer.
    const CALIBRATION_NS: u64 = 2_000_000;
    const NANOS_PER_SECOND: u64 = 1_000_000_000;

    struct Clock {
        boot: u64,
        /// Nanoseconds per count, times 2^32.
        scale: u64,
    }

    static CLOCK: Once<Clock> = Once::new();

    /// Starts the clock; `frequency_hz` is the counter's rate where the monitor has told it.
    pub(crate) fn start(frequency_hz: Option<u64>) {
        CLOCK.call_once(|| {
            let frequency = frequency_hz.unwrap_or_else(measure_frequency);
            Clock { boot: counter(), scale: (NANOS_PER_SECOND << 32) / frequency.max(1) }
        });
    }

    impl Instant {
        /// Returns the present moment; until the clock runs, the moment of boot.
        #[must_use]
        pub fn now() -> Self {
            let Some(clock) = CLOCK.get() else { return Self(0) };
            let nanos = (u128::from(counter().wrapping_sub(clock.boot)) * u128::from(clock.scale)) >> 32;
            Self(u64::try_from(nanos).unwrap_or(u64::MAX))
        }
    }

    fn measure_frequency() -> u64 {
        let counts = CALIBRATION_NS * apic::TIMER_HZ / NANOS_PER_SECOND;
        apic::start_stopwatch();
        let (from, before) = (apic::stopwatch(), counter());
        let (mut to, mut after) = (from, before);
        while to - from < counts {
            to = apic::stopwatch();
            after = counter();
        }
        apic::stop_stopwatch();
        (after - before) * apic::TIMER_HZ / (to - from)
    }

    fn counter() -> u64 {
        // SAFETY: every CPU with 64-bit mode has the counter, and ring 3 may read it.
        unsafe { _rdtsc() }
    }
}
