//! What the guest is told about its host's resources, and what it asks for. The device passes both
//! on: the supervisor's record to the guest, the guest's latest request of each kind to the
//! supervisor.

use aerostat_abi::port::{Registers, Status};
use aerostat_abi::registers::RegisterPage;
use aerostat_abi::requests::{self, FiledRequest, Generation, Request, ResourceKind, Resources, Sequence};
use aerostat_abi::units::{FRAME_BYTES, FrameNumber};

use super::{Balloon, BalloonHost, Outcome};
use crate::layout::GuestAddress;

/// What has passed in both directions.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// The host's resources as they were read last.
    resources: Resources,
    /// The version of what was read.
    version: u64,
    /// The generation of what the guest has read last.
    told: Generation,
    /// The number of the latest request of each kind. Numbers go on when a session ends.
    latest: [Sequence; ResourceKind::ALL.len()],
}

impl Passed {
    /// Reads the supervisor's record, if it was written since it was read.
    pub(super) fn refresh(&mut self, registers: &RegisterPage) {
        let version = registers.resources_version();
        if version == self.version {
            return;
        }
        // While the supervisor writes, the record that was read before is still true.
        if let Some(resources) = registers.resources() {
            (self.resources, self.version) = (resources, version);
        }
    }

    /// Returns the generation of the host's resources.
    pub(super) fn generation(&self) -> Generation {
        self.resources.generation
    }

    /// Returns whether the guest has not read this generation.
    pub(super) fn has_news(&self) -> bool {
        self.told != self.resources.generation
    }
}

impl<H: BalloonHost> Balloon<H> {
    /// Writes the host's resources to the address that the registers name.
    pub(super) fn tell_resources(&mut self, registers: &Registers) -> Outcome {
        let address = registers.rdi;
        let in_one_page = address % FRAME_BYTES + requests::BYTES as u64 <= FRAME_BYTES;
        if !in_one_page || !self.map.is_guests(FrameNumber::containing(address)) {
            return Status::BadPage.into();
        }
        if self.memory.write_words(GuestAddress(address), &self.passed.resources.encode()).is_err() {
            return Status::BadPage.into();
        }
        self.passed.told = self.passed.resources.generation;
        Outcome::new(Status::Ok, requests::WORDS as u64)
    }

    /// Files the request in the registers. It replaces the one before of its kind, so however many
    /// there are, they cost one place.
    pub(super) fn file_request(&mut self, registers: &Registers, now_ns: u64) -> Status {
        let Some(request) = Request::decode(registers) else { return Status::BadArgument };
        let latest = &mut self.passed.latest[request.kind.index()];
        if request.sequence <= *latest {
            return Status::BadArgument;
        }
        *latest = request.sequence;
        self.registers.page().file_request(&FiledRequest::new(&request, now_ns));
        self.host.requested(now_ns);
        Status::Ok
    }
}
