//! The kinds of threads. The build script uses them too.

/// A kind of thread. Threads inherit the filter of [`Thread::Setup`] and add their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The main thread until the guest runs: may do what any thread may, and start threads.
    Setup,
    /// The main thread while the guest runs.
    Main,
    /// The thread that runs the guest.
    Vcpu,
    /// A thread that serves a queue of a disk.
    Disk,
    /// The thread that reads the image.
    Loader,
    /// A thread that moves guest memory to the host's swap file and back.
    Paging,
}

impl Thread {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Setup, Self::Main, Self::Vcpu, Self::Disk, Self::Loader, Self::Paging];
}
