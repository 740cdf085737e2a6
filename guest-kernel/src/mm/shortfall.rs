//! What moves while a thread waits for memory, and what the failure of such a wait says. Pure.

use core::fmt;

use aerostat_abi::units::FrameCount;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Memory that can be committed: frames from the host, or what the application frees.
    Commit,
    /// A free frame: the same, and what is evicted.
    Frame,
}

/// What has moved since boot that may help a thread that waits for memory. Nothing in here
/// shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Frames that came from the host.
    pub(crate) received: FrameCount,
    /// By how much the host has raised its targets.
    pub(crate) raised: FrameCount,
    /// Memory that the application has freed.
    pub(crate) freed: FrameCount,
    /// Pages that were evicted or dropped.
    pub(crate) evicted: FrameCount,
    /// Frames whose writes to the swap disk have ended.
    pub(crate) written: FrameCount,
}

impl Progress {
    /// Returns how much has moved that may help a thread with this want. Evicting pages makes
    /// frames free, but no memory that can be committed.
    pub(crate) fn towards(&self, want: Want) -> u64 {
        let common = self.received.0 + self.raised.0 + self.freed.0;
        match want {
            Want::Commit => common,
            Want::Frame => common + self.evicted.0 + self.written.0,
        }
    }

    /// Returns what has moved since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            received: self.received.saturating_sub(earlier.received),
            raised: self.raised.saturating_sub(earlier.raised),
            freed: self.freed.saturating_sub(earlier.freed),
            evicted: self.evicted.saturating_sub(earlier.evicted),
            written: self.written.saturating_sub(earlier.written),
        }
    }
}

/// The guest's memory at the moment of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryState {
    pub(crate) free: FrameCount,
    /// Guest size, the host's target for it, and all memory of the machine.
    pub(crate) size: FrameCount,
    pub(crate) target: FrameCount,
    pub(crate) machine: FrameCount,
    /// Free slots of the swap disk.
    pub(crate) swap_room: FrameCount,
    /// Frames on their way to the swap disk.
    pub(crate) leaving: FrameCount,
}

/// A wait for memory that has failed. Shown, it says what was waited for and how far that got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shortfall {
    pub(crate) want: Want,
    pub(crate) wanted: FrameCount,
    pub(crate) missing: FrameCount,
    pub(crate) waited_ns: u64,
    /// Whether things moved until the end, and none of it helped the thread.
    pub(crate) is_in_vain: bool,
    /// What has moved during the wait.
    pub(crate) moved: Progress,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.waited_ns / 100_000_000;
        match self.want {
            Want::Commit => write!(f, "{} were asked for and {} are missing", self.wanted, self.missing)?,
            Want::Frame => f.write_str("a frame is missing for a page")?,
        }
        write!(f, " after {}.{} s", tenths / 10, tenths % 10)?;
        if self.is_in_vain {
            f.write_str(", as other threads took what came")?;
        }
        let Progress { received, raised, freed, evicted, written } = self.moved;
        write!(
            f,
            "; meanwhile the host gave {received} and raised the target by {raised}, the application freed {freed}, \
             {evicted} were evicted and {written} written to swap"
        )
    }
}

impl fmt::Display for MemoryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { free, size, target, machine, swap_room, leaving } = self;
        write!(
            f,
            "{free} are free, the size is {size} of {machine} and the target {target}; swap has room for {swap_room}, \
             and {leaving} are on their way there"
        )?;
        f.write_str(if target < machine {
            "; `aerostat explain` says why the target is no higher"
        } else {
            "; raise the guest's `max`, or its `swap`"
        })
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use super::{MemoryState, Progress, Shortfall, Want};
    use aerostat_abi::units::FrameCount;

    const fn mib(mib: u64) -> FrameCount {
        FrameCount::from_mib(mib)
    }

    #[test]
    fn eviction_is_progress_towards_a_frame_only() {
        let before = Progress { received: mib(1), raised: mib(2), freed: mib(3), evicted: mib(4), written: mib(5) };
        let evicted = Progress { evicted: mib(5), written: mib(6), ..before };
        assert_eq!(evicted.towards(Want::Commit), before.towards(Want::Commit));
        assert_eq!(evicted.towards(Want::Frame), before.towards(Want::Frame) + mib(2).0);
        for moved in [
            Progress { received: mib(2), ..before },
            Progress { raised: mib(3), ..before },
            Progress { freed: mib(4), ..before },
        ] {
            for want in [Want::Commit, Want::Frame] {
                assert_eq!(moved.towards(want), before.towards(want) + mib(1).0, "{moved:?} {want:?}");
            }
        }
    }

    #[test]
    fn a_failure_says_what_came_and_what_is_missing() {
        let before = Progress { received: mib(90), freed: mib(7), ..Progress::default() };
        let now = Progress { received: mib(100), raised: mib(10), freed: mib(8), ..before };
        let shortfall = Shortfall {
            want: Want::Commit,
            wanted: mib(32),
            missing: mib(21),
            waited_ns: 5_370_000_000,
            is_in_vain: false,
            moved: now.since(&before),
        };
        assert_eq!(
            format!("{shortfall}"),
            "32.0 MiB were asked for and 21.0 MiB are missing after 5.3 s; meanwhile the host gave 10.0 MiB and raised \
             the target by 10.0 MiB, the application freed 1.0 MiB, 0.0 MiB were evicted and 0.0 MiB written to swap"
        );
        let frame = Shortfall { want: Want::Frame, is_in_vain: true, ..shortfall };
        let text = format!("{frame}");
        assert!(
            text.starts_with("a frame is missing for a page after 5.3 s, as other threads took what came; "),
            "{text}"
        );
    }

    #[test]
    fn a_failure_says_what_would_help() {
        let state = MemoryState {
            free: mib(3),
            size: mib(64),
            target: mib(64),
            machine: mib(128),
            swap_room: mib(0),
            leaving: mib(0),
        };
        let advice = |state: MemoryState| String::from(format!("{state}").rsplit("; ").next().unwrap());
        assert_eq!(advice(state), "`aerostat explain` says why the target is no higher");
        let state = MemoryState { machine: mib(64), ..state };
        assert_eq!(advice(state), "raise the guest's `max`, or its `swap`");
    }
}
