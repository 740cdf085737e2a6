//! Follows the target from the VMM process's main thread. For a smaller one, what the guest offers
//! is reclaimed first, without waking the guest. For a larger one, memory is attached first. The
//! guest is told if that is not enough, of memory that it can use now, or if the host's resources
//! have changed.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use aerostat_abi::registers::{BootStage, Epoch};
use aerostat_abi::units::FrameCount;
use aerostat_link::SharedPage;
use aerostat_link::doorbell::answer;

use super::balloon::{Balloon, BalloonHost};
use super::balloon_interrupt::BalloonInterrupt;
use super::lock::lock;
use super::memory_slots::MemorySlots;
use super::shared_registers::SharedRegisters;

/// Follows the target.
#[derive(Debug)]
pub(super) struct TargetWatch<H> {
    /// Becomes readable when the supervisor has set a target. `None` while there is none.
    pub(super) doorbell: Option<OwnedFd>,
    interrupt: BalloonInterrupt,
    slots: Arc<MemorySlots>,
    balloon: Arc<Mutex<Balloon<H>>>,
    registers: Arc<SharedRegisters>,
    /// Whether the guest has not been told what there is to be told.
    is_ring_due: bool,
}

impl<H: BalloonHost> TargetWatch<H> {
    pub(super) fn new(
        doorbell: OwnedFd,
        (interrupt, slots): (BalloonInterrupt, Arc<MemorySlots>),
        balloon: Arc<Mutex<Balloon<H>>>,
        registers: Arc<SharedRegisters>,
    ) -> Self {
        Self { doorbell: Some(doorbell), interrupt, slots, balloon, registers, is_ring_due: false }
    }

    /// Handles that the doorbell is readable.
    pub(super) fn rung(&mut self) {
        if let Some(doorbell) = &self.doorbell {
            answer(doorbell);
        }
        lock(&self.balloon).acknowledge();
        self.is_ring_due = true;
    }

    /// Keeps the target as it is, whatever the supervisor that published it does to its page.
    /// Returns the target and its epoch.
    pub(super) fn freeze(&mut self) -> (FrameCount, Epoch) {
        self.doorbell = None;
        let mut balloon = lock(&self.balloon);
        let (target, epoch) = {
            let page = self.registers.page();
            // The epoch is stored after its target: a supervisor that was killed in between has
            // published the target, and no number for it.
            let epoch = page.target_epoch();
            (page.target(), epoch)
        };
        let limit = self.registers.page().resident_limit();
        // Without a page of its own the process keeps the old one, which no process writes as a
        // rule.
        if let Ok((page, _)) = SharedPage::create_at(target, epoch) {
            page.limit_resident(limit);
            self.registers.replace(page);
        }
        balloon.acknowledge();
        (target, epoch)
    }

    /// Follows another supervisor from now on.
    pub(super) fn take_over(&mut self, page: SharedPage, doorbell: OwnedFd) {
        self.doorbell = Some(doorbell);
        let mut balloon = lock(&self.balloon);
        self.registers.replace(page);
        balloon.acknowledge();
        self.is_ring_due = true;
    }

    /// Returns the guest's size as it is published.
    pub(super) fn size(&self) -> FrameCount {
        self.registers.page().facts().size
    }

    /// Reclaims a part of what the guest offers, if it is larger than its target, or attaches a
    /// part of what it lacks, and tells the guest what it has to know. Returns whether there is
    /// more to do.
    pub(super) fn follow(&mut self) -> bool {
        if lock(&self.balloon).host_reclaim() {
            return true;
        }
        if std::mem::take(&mut self.is_ring_due) && lock(&self.balloon).has_to_be_told() {
            self.interrupt.ring();
        }
        // The guest can run meanwhile, and call. But to attach memory delays its faults, so what it
        // does not need to start with waits until it has.
        let page = self.registers.page();
        let has_started = page.boot_ns(BootStage::Main) != 0;
        self.is_ring_due = has_started && self.slots.attach_next(page.target());
        self.is_ring_due
    }
}
