//! The host of the kernel's driver: a monitor, and what differs between the ways to reach one.
//!
//! [`Host`] names what the driver's thread needs besides [`Monitor`]. [`AnyHost`] is the one that
//! the machine has, chosen once at the start.

use aerostat_abi::batch::{CAPACITY, Entry};
use aerostat_abi::requests::{Generation, Request, Resources};
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameNumber;
use aerostat_balloon_driver::{Listed, Monitor, Reply};

use super::port::Port;
use super::virtio::VirtioBalloon;
use crate::requests::ResourceHost;
use crate::time::Instant;

/// When a host gets statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatisticsMode {
    /// When the guest has something to report, and from time to time.
    Reported,
    /// When the host asks, which it does now.
    Asked,
    /// When the host asks, which it does not do now.
    NotAsked,
}

/// A host, as the driver's thread needs it.
pub(super) trait Host: Monitor + ResourceHost {
    /// Returns when the host gets statistics.
    fn statistics_mode(&mut self) -> StatisticsMode;
    /// Reports statistics.
    fn report(&mut self, statistics: &Statistics) -> Option<Reply>;
    /// Does what is due besides moving the balloon. Returns when more is due, if it is.
    fn serve(&mut self, now: Instant) -> Option<Instant>;
}

/// The machine's host.
#[derive(Debug)]
pub(super) enum AnyHost {
    /// Our own monitor, through the balloon port.
    Port(Port),
    /// Another monitor, through a virtio balloon.
    Virtio(VirtioBalloon),
}

impl AnyHost {
    fn get(&mut self) -> &mut dyn Host {
        match self {
            Self::Port(port) => port,
            Self::Virtio(virtio) => virtio,
        }
    }
}

impl Monitor for AnyHost {
    fn negotiate(&mut self) -> Option<Reply> {
        self.get().negotiate()
    }

    fn enable_features(&mut self) {
        self.get().enable_features();
    }

    fn reset(&mut self) -> Option<Reply> {
        self.get().reset()
    }

    fn list(&mut self, from: FrameNumber, entries: &mut [Entry; CAPACITY]) -> Option<Listed> {
        self.get().list(from, entries)
    }

    fn target(&mut self) -> Option<Reply> {
        self.get().target()
    }

    fn inflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.get().inflate(entries)
    }

    fn deflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.get().deflate(entries)
    }
}

impl ResourceHost for AnyHost {
    fn generation(&self) -> Option<Generation> {
        match self {
            Self::Port(port) => port.generation(),
            Self::Virtio(virtio) => virtio.generation(),
        }
    }

    fn resources(&mut self) -> Option<Resources> {
        self.get().resources()
    }

    fn request(&mut self, request: &Request) {
        self.get().request(request);
    }
}

impl Host for AnyHost {
    fn statistics_mode(&mut self) -> StatisticsMode {
        self.get().statistics_mode()
    }

    fn report(&mut self, statistics: &Statistics) -> Option<Reply> {
        self.get().report(statistics)
    }

    fn serve(&mut self, now: Instant) -> Option<Instant> {
        self.get().serve(now)
    }
}
