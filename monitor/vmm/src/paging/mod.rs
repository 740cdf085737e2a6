//! Host paging: holds a guest's resident memory at a limit without the guest's help.
//!
//! It is the last resort of the supervisor, for a guest that does not follow its target. Huge
//! frames leave guest memory for the swap cache, and from there for the host swap file; an access
//! brings one back. `docs/decisions/0120` has the reasons.
//!
//! | module | what |
//! |---|---|
//! | `control` | the main thread's side: starts the two threads when the first limit arrives |
//! | `pager` | the thread that moves out, and brings back unasked |
//! | `fault_service` | the thread that serves accesses to what is out |
//! | `mover` | what both share with the balloon device: the moves themselves |
//! | `table` | where each huge frame's contents are: pure |
//! | `victims` | which huge frames leave: pure |
//! | `contents`, `frame_mask` | what is written of a huge frame: pure |
//! | `swap_file`, `area`, `userfault` | the file, memory on the way, the kernel's interface |
//!
//! Locks: `Balloon` > `Table`. A thread that holds `Table` touches no guest memory, takes only the
//! register page's lock besides, and waits for nothing. The pager waits for transfers of devices
//! (`virtio::Transfers`) before it takes `Balloon`.

mod area;
mod contents;
mod control;
mod fault_service;
mod frame_mask;
mod mover;
mod pager;
mod swap_file;
mod table;
#[cfg(test)]
mod tests;
mod userfault;
mod victims;

pub(crate) use self::control::PagingControl;
pub(crate) use self::frame_mask::FrameMask;
pub(crate) use self::mover::{Departure, Paging};
pub(crate) use self::userfault::Userfault;
