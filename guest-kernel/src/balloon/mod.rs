//! The balloon driver: an ordinary kernel driver with a thread of its own.
//!
//! The driver's loop is [`aerostat_balloon_driver`]'s. This module has its two sides, `port` (the
//! monitor) and `memory` (the kernel's memory), and [`page_list`] between them. `thread` runs the
//! loop: the balloon interrupt, threads that need memory, and a timer wake it. What it shares with
//! the rest of the kernel is in `signals`. `statistics` and [`report_timer`] decide what the
//! monitor is told, and when.
//!
//! Under a monitor that others wrote there is a virtio balloon in place of the port: `virtio`, with
//! `free_pages`, which reports free memory, and `free_page_hints`, which names it to a host that
//! migrates the guest. `host` is what the thread needs of either.
//!
//! Without a driver in the kernel (`balloon=none`), `handover` keeps port and initial balloon for
//! an application.

#[cfg(target_os = "none")]
mod free_page_hints;
#[cfg(target_os = "none")]
mod free_pages;
#[cfg(target_os = "none")]
mod handover;
#[cfg(target_os = "none")]
mod host;
#[cfg(target_os = "none")]
mod memory;
mod page_list;
#[cfg(target_os = "none")]
mod port;
mod report_timer;
#[cfg(target_os = "none")]
mod signals;
#[cfg(target_os = "none")]
mod stall_log;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod statistics;
#[cfg(test)]
mod tests;
#[cfg(target_os = "none")]
mod thread;
#[cfg(target_os = "none")]
mod virtio;

#[cfg(target_os = "none")]
pub use self::port::Port;
#[cfg(target_os = "none")]
pub use self::stall_log::log_stall_change;
#[cfg(target_os = "none")]
pub(crate) use self::{
    handover::{claim_initial, take_port},
    signals::{flush_report, report_soon, size},
    start::{Hosts, extent, start, words},
};
