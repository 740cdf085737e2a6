//! The order in which locks are taken.
//!
//! Every lock of the kernel has a [`LockRank`]. A thread takes a lock only while all locks that it
//! holds have lower ranks, or the same rank and lower addresses, and none of them is a leaf. Builds
//! with debug assertions check each acquisition ([`super::order`]). `docs/ARCHITECTURE.md` shows
//! the ranks in this order, which a test compares.

/// Declares the ranks in their order, and the list of all of them.
macro_rules! lock_ranks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A lock's place in the order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum LockRank {
            $($(#[$doc])* $name,)*
        }

        impl LockRank {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

lock_ranks! {
    // Sleeping locks.
    /// The application's own mutexes, in any order among themselves.
    Application,
    /// Pressure callbacks that were registered.
    PressureCallbacks,
    /// The application's heap of small objects.
    ApplicationHeap,
    // Spin locks.
    /// What reclaim knows about pages.
    Reclaimer,
    /// The registers of the virtio balloon.
    BalloonDevice,
    /// Regions and page tables.
    AddressSpace,
    /// A disk's registers and its queue of requests.
    DiskPort,
    /// A CPU's frame cache; several are taken in the order of the CPUs.
    FrameCache,
    /// The frame allocator.
    FrameAllocator,
    // Leaves.
    /// The kernel's own heap.
    KernelHeap,
    /// The file that is mapped.
    MappedFile,
    /// Which part of the file is read sequentially.
    FileReadAhead,
    /// Threads that wait for memory.
    Stalls,
    /// When the application was told last that memory is short.
    Announcements,
    /// How long threads wait for the application's reaction.
    Grace,
    /// Free bounce buffers of the application's disk.
    BounceBuffers,
    /// The application's progress.
    Progress,
    /// What the guest is going to need, and what it asks its host for.
    Requests,
    /// The balloon driver before its thread runs.
    BalloonStart,
    /// The balloon that is left to an application.
    BalloonLeft,
    /// The thread table and the timer; held across a context switch.
    Scheduler,
    /// A line of the log.
    LogLine,
}

#[cfg(any(test, debug_assertions))]
impl LockRank {
    /// Returns whether a thread that holds the lock may wait.
    pub(super) fn is_sleeping(self) -> bool {
        self < Self::Reclaimer
    }

    /// Returns whether no lock is taken while this one is held.
    pub(super) fn is_leaf(self) -> bool {
        self >= Self::KernelHeap
    }
}

#[cfg(test)]
mod tests {
    use super::LockRank;

    /// Returns the ranks that a table of ARCHITECTURE.md lists below a heading of its own.
    fn documented(kind: &str) -> Vec<String> {
        let text = include_str!("../../../docs/ARCHITECTURE.md");
        let (_, table) = text.split_once(&format!("\n| {kind} |")).expect("the document has a table of this kind");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('`').nth(1).expect("a row begins with a rank").to_owned()).collect()
    }

    #[test]
    fn the_document_lists_all_ranks_in_their_order() {
        let names = |is_listed: fn(LockRank) -> bool| -> Vec<String> {
            LockRank::ALL.iter().filter(|rank| is_listed(**rank)).map(|rank| format!("{rank:?}")).collect()
        };
        assert_eq!(documented("sleeping lock"), names(LockRank::is_sleeping));
        assert_eq!(documented("spin lock"), names(|rank| !rank.is_sleeping() && !rank.is_leaf()));
        assert_eq!(documented("leaf"), names(LockRank::is_leaf));
    }
}
