//! A guest of a fleet, whatever its machine is.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::requests::Resources;
use aerostat_abi::units::FrameCount;

use super::qemu::QemuGuest;
use super::vmm_guest::VmmGuest;
use super::{Confinement, GuestEvent, GuestHandle, News, Observation, Origin};

/// A guest in one of the machines that a fleet file can name.
#[derive(Debug)]
pub enum AnyGuest {
    /// In a VMM process of ours.
    Vmm(Box<VmmGuest>),
    /// Under QEMU.
    Qemu(Box<QemuGuest>),
}

/// Calls a method of the guest's handle.
macro_rules! delegate {
    ($guest:expr, $handle:ident => $call:expr) => {
        match $guest {
            AnyGuest::Vmm($handle) => $call,
            AnyGuest::Qemu($handle) => $call,
        }
    };
}

impl From<VmmGuest> for AnyGuest {
    fn from(guest: VmmGuest) -> Self {
        Self::Vmm(Box::new(guest))
    }
}

impl From<QemuGuest> for AnyGuest {
    fn from(guest: QemuGuest) -> Self {
        Self::Qemu(Box::new(guest))
    }
}

impl GuestHandle for AnyGuest {
    fn observe(&self) -> Observation {
        delegate!(self, guest => guest.observe())
    }

    fn send_target(&mut self, target: FrameCount, epoch: Epoch) {
        delegate!(self, guest => guest.send_target(target, epoch));
    }

    fn send_resources(&mut self, resources: &Resources, news: News) {
        delegate!(self, guest => guest.send_resources(resources, news));
    }

    fn measure_resident(&self) -> Option<FrameCount> {
        delegate!(self, guest => guest.measure_resident())
    }

    fn own_memory(&self) -> FrameCount {
        delegate!(self, guest => guest.own_memory())
    }

    fn confinement(&self) -> Confinement {
        delegate!(self, guest => guest.confinement())
    }

    fn waited_for_processor(&self) -> Option<Duration> {
        delegate!(self, guest => guest.waited_for_processor())
    }

    fn origin(&self) -> Origin {
        delegate!(self, guest => guest.origin())
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        delegate!(self, guest => guest.event_fd())
    }

    fn next_event(&mut self) -> Option<GuestEvent> {
        delegate!(self, guest => guest.next_event())
    }

    fn limit_resident(&mut self, limit: Option<FrameCount>) {
        delegate!(self, guest => guest.limit_resident(limit));
    }

    fn pause(&mut self) {
        delegate!(self, guest => guest.pause());
    }

    fn resume(&mut self) {
        delegate!(self, guest => guest.resume());
    }

    fn reclaim_ballooned(&mut self) {
        delegate!(self, guest => guest.reclaim_ballooned());
    }

    fn limit_process(&mut self, size: FrameCount) {
        delegate!(self, guest => guest.limit_process(size));
    }

    fn squeeze(&mut self, excess: FrameCount) -> bool {
        delegate!(self, guest => guest.squeeze(excess))
    }

    fn inspect(&mut self) {
        delegate!(self, guest => guest.inspect());
    }

    fn request_stop(&mut self) {
        delegate!(self, guest => guest.request_stop());
    }

    fn kill(&mut self) {
        delegate!(self, guest => guest.kill());
    }

    fn leave(self) {
        delegate!(self, guest => guest.leave());
    }
}
