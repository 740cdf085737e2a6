//! The balloon device: what happens when the guest accesses the balloon port.
//!
//! The guest does not run during a call, so a call is one function: registers in, registers out.
//! The device trusts nothing from the guest: it checks every address and every entry. A bad entry
//! fails only that entry, and a bad call fails only that call. Memory is released before the reply,
//! so a frame that counts as ballooned already belongs to the host.

#[cfg(any(test, feature = "harness"))]
pub mod harness;
mod offers;
mod paging;
mod reported_use;
mod requests;

use std::io;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use aerostat_abi::batch::{self, Entry, EntryStatus};
use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION, Welcome};
use aerostat_abi::registers::Facts;
use aerostat_abi::statistics::{self, Statistics};
use aerostat_abi::units::{FRAME_BYTES, FrameCount, FrameNumber, HUGE_BYTES, HUGE_FRAMES, to_usize};

use self::offers::{CHUNK, Offers};
use self::reported_use::ReportedUse;
use self::requests::Passed;
use super::frame_map::{FrameMap, Frames};
use super::huge_pages::{Copier, SPLIT_IN_A_CALL, Unsplit};
use super::layout::GuestAddress;
use super::memory::GuestMemory;
use super::page_sizes::{HugeIndex, HugeRun, PageSize, PageSizes, fixed_frames};
use super::paging::Paging;
use super::release::Releaser;
use super::shared_registers::SharedRegisters;
use super::virtio::Quiescent;

/// The lowest interrupt vector that is not reserved for exceptions.
const FIRST_VECTOR: u8 = 32;
/// Consecutive reports that must disagree with the real balloon: one may cross with a change.
pub const DISAGREEING_REPORTS: u64 = 3;
/// Frames, and runs of frames, that are released at once while no guest waits for a reply: 64 MiB
/// take 6 ms in small pages.
const RECLAIMED_AT_ONCE: usize = 16 << 10;
const RANGES_AT_ONCE: usize = 512;

/// What the device needs from the process around it.
pub(super) trait BalloonHost {
    /// Connects the doorbell to interrupt `vector`.
    fn connect_doorbell(&mut self, vector: u8);
    /// Disconnects the doorbell's interrupt. Does nothing where there was none.
    fn disconnect_doorbell(&mut self);
    /// Notes that the guest reported at `now_ns` that a thread in it waits for memory. Must not
    /// block.
    fn pressure(&mut self, now_ns: u64);
    /// Notes that the guest reported another use of its memory at `now_ns`, and that no thread
    /// waits. Must not block.
    fn use_changed(&mut self, now_ns: u64);
    /// Notes that the guest filed a request at `now_ns`. Must not block.
    fn requested(&mut self, now_ns: u64);
    /// Returns how many frames the guest can use without waiting.
    fn attached(&self) -> FrameCount;
    /// Makes sure that the guest can use the frames of these indexes; returns whether it can. They
    /// lie in one block.
    fn attach(&mut self, frames: &Range<usize>) -> bool;
    /// Notes that memory went back to the host.
    fn memory_released(&mut self);
    /// Notes that there is work that can be done while the guest runs. Must not block.
    fn work_left(&mut self);
    /// Keeps every device out of guest memory as long as the result lives; returns `None` where a
    /// device is at work. Must not block.
    fn quiesce(&self) -> Option<Quiescent<'_>>;
}

/// The balloon device.
#[derive(Debug)]
pub(super) struct Balloon<H> {
    map: FrameMap,
    page_sizes: PageSizes,
    memory: Arc<GuestMemory>,
    /// [`GuestMemory::allow`]; in tests also a host that refuses.
    allow: fn(&GuestMemory, &Range<usize>, PageSize) -> io::Result<()>,
    releaser: Releaser,
    copier: Copier,
    unsplit: Unsplit,
    /// `None` where the guest can't be paged.
    paging: Option<Arc<Paging>>,
    registers: Arc<SharedRegisters>,
    host: H,
    negotiation: Negotiation,
    /// The features that the guest negotiated.
    features: Features,
    /// The guest's own floor: the host reclaims nothing below it.
    floor: FrameCount,
    /// Where the guest's shared words are, while it shares them.
    offers: Option<Offers>,
    /// The host's resources, and the guest's requests.
    passed: Passed,
    reported: ReportedUse,
    /// Whether the next call is answered with an order to reset.
    is_reset_ordered: bool,
    facts: Facts,
}

/// Whether the guest has said HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Negotiation {
    Awaited,
    Done,
}

/// A block that an entry named, and the entry's place in the batch.
type Named = (Range<usize>, usize);

/// How a call ended: a status, and the values for `RDI` and `R8`.
struct Outcome {
    status: Status,
    result: u64,
    /// `None` for what every reply has there.
    second: Option<u64>,
}

impl Outcome {
    const fn new(status: Status, result: u64) -> Self {
        Self { status, result, second: None }
    }
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        Self::new(status, 0)
    }
}

impl<H: BalloonHost> Balloon<H> {
    /// Creates the device of a guest whose frames are as `map` says.
    pub(super) fn new(memory: Arc<GuestMemory>, registers: Arc<SharedRegisters>, host: H, map: FrameMap) -> Self {
        let page_sizes = PageSizes::new(memory.layout().total(), &fixed_frames(map.image()));
        let mut balloon = Self {
            map,
            page_sizes,
            memory,
            allow: GuestMemory::allow,
            releaser: Releaser::new(),
            copier: Copier::default(),
            unsplit: Unsplit::default(),
            paging: None,
            registers,
            host,
            negotiation: Negotiation::Awaited,
            features: Features::default(),
            floor: FrameCount::ZERO,
            offers: None,
            passed: Passed::default(),
            reported: ReportedUse::default(),
            is_reset_ordered: false,
            facts: Facts::default(),
        };
        balloon.publish();
        balloon
    }

    /// Carries out the call in `registers` and returns the reply's registers.
    pub(super) fn call(&mut self, registers: Registers, now_ns: u64) -> Registers {
        self.facts.port_calls += 1;
        self.facts.last_call_ns = now_ns;
        self.passed.refresh(&self.registers.page());
        let reply = match (Command::decode(registers.rax), self.negotiation) {
            (None, _) => self.reply(Status::UnknownCommand.into()),
            (Some(_), Negotiation::Done) if mem::take(&mut self.is_reset_ordered) => {
                self.end_session();
                self.reply(Status::ResetOrdered.into())
            }
            (Some(Command::Hello), Negotiation::Awaited) => self.hello(&registers),
            (Some(Command::Hello), Negotiation::Done) => self.reply(Status::SessionExists.into()),
            (Some(_), Negotiation::Awaited) => self.reply(Status::NoSession.into()),
            (Some(Command::GetTarget), _) => self.reply(Status::Ok.into()),
            (Some(Command::Inflate), _) => {
                let outcome = self.batch(&registers, Self::inflate);
                self.host.memory_released();
                self.reply(outcome)
            }
            (Some(Command::Deflate), _) => {
                let outcome = self.batch(&registers, Self::deflate);
                self.reply(outcome)
            }
            (Some(Command::Report), _) => {
                let outcome = self.report(&registers, now_ns);
                self.reply(outcome)
            }
            (Some(Command::List), _) => {
                let outcome = self.list(&registers);
                self.reply(outcome)
            }
            (Some(Command::Share), _) if !self.features.contains(Features::OFFERS) => {
                self.reply(Status::UnknownCommand.into())
            }
            (Some(Command::Share), _) => {
                let status = self.share(&registers);
                self.reply(status.into())
            }
            (Some(Command::Resources | Command::Request), _) if !self.features.contains(Features::REQUESTS) => {
                self.reply(Status::UnknownCommand.into())
            }
            (Some(Command::Resources), _) => {
                let outcome = self.tell_resources(&registers);
                self.reply(outcome)
            }
            (Some(Command::Request), _) => {
                let status = self.file_request(&registers, now_ns);
                self.reply(status.into())
            }
            (Some(Command::Reset), _) => {
                self.end_session();
                self.reply(Status::Ok.into())
            }
        };
        self.publish();
        reply
    }

    fn hello(&mut self, registers: &Registers) -> Registers {
        let Some(hello) = Hello::decode(registers) else { return self.reply(Status::BadArgument.into()) };
        if hello.version != VERSION {
            return self.reply(Outcome::new(Status::UnsupportedVersion, VERSION.into()));
        }
        let vector_is_good = hello.vector == 0 || hello.vector >= FIRST_VECTOR;
        if !vector_is_good || hello.floor > self.memory.layout().total() {
            return self.reply(Status::BadArgument.into());
        }
        if hello.vector != 0 {
            self.host.connect_doorbell(hello.vector);
        }
        self.negotiation = Negotiation::Done;
        self.features = hello.features.intersection(Features::SUPPORTED);
        self.floor = hello.floor;
        Welcome { version: VERSION, features: self.features, target: self.target() }.encode()
    }

    /// Ends the session: the guest has to say HELLO again. What is ballooned stays ballooned.
    fn end_session(&mut self) {
        self.negotiation = Negotiation::Awaited;
        self.offers = None;
        self.map.end_protection();
        self.host.disconnect_doorbell();
    }

    /// Returns the page that the registers name for a batch, if it is one of the guest's.
    fn batch_page(&self, registers: &Registers) -> Option<FrameNumber> {
        let page = FrameNumber::containing(registers.rdi);
        (registers.rdi.is_multiple_of(FRAME_BYTES) && self.map.is_guests(page)).then_some(page)
    }

    /// Writes what is ballooned into the batch page.
    fn list(&self, registers: &Registers) -> Outcome {
        if self.batch_page(registers).is_none() {
            return Status::BadPage.into();
        }
        let mut blocks = self.map.ballooned_blocks(FrameNumber(registers.rsi)).peekable();
        let words: Vec<_> = blocks.by_ref().take(batch::CAPACITY).map(Entry::encode).collect();
        let next = blocks.peek().map_or(0, |block| block.frame.0);
        match self.memory.write_words(GuestAddress(registers.rdi), &words) {
            Ok(()) => Outcome { status: Status::Ok, result: words.len() as u64, second: Some(next) },
            Err(_) => Status::BadPage.into(),
        }
    }

    /// Uses the guest's shared words from now on.
    fn share(&mut self, registers: &Registers) -> Status {
        let huge_frames = self.memory.layout().end().0.div_ceil(HUGE_BYTES);
        if registers.rsi != huge_frames {
            return Status::BadCount;
        }
        let Some(offers) = Offers::new(registers.rdi, huge_frames) else { return Status::BadPage };
        if !self.map.protect_shared(offers.frames()) {
            return Status::BadPage;
        }
        self.offers = Some(offers);
        Status::Ok
    }

    /// Reclaims up to [`CHUNK`] huge frames that the guest offers, as far as the guest is larger
    /// than its target, and releases them. Returns whether there may be more. The guest need not
    /// run; it may also run on another processor and use what is not reclaimed.
    pub(super) fn host_reclaim(&mut self) -> bool {
        let Self { offers: Some(offers), map, memory, .. } = self else { return false };
        let surplus = map.size().saturating_sub(self.registers.page().target().max(self.floor));
        let wanted = to_usize(surplus.0 / HUGE_FRAMES).min(CHUNK);
        let reclaimed = offers.accept(wanted, memory, map);
        if reclaimed.is_empty() {
            return false;
        }
        let ranges = merged(reclaimed.iter());
        if let Some(paging) = &self.paging {
            paging.forget(ranges.iter());
        }
        let released = self.releaser.release(memory, &ranges);
        for range in &ranges[released..] {
            // It is ballooned, and a ballooned frame reads as zero when it comes back, released or
            // not.
            memory.clear(range);
        }
        let frames = FrameCount(reclaimed.len() as u64 * HUGE_FRAMES);
        self.facts.inflated = self.facts.inflated.saturating_add(frames);
        self.facts.host_reclaimed = self.facts.host_reclaimed.saturating_add(frames);
        self.host.memory_released();
        self.publish();
        true
    }

    /// Adopts the target and the host's resources as they are now; no earlier ones are used any
    /// more.
    pub(super) fn acknowledge(&mut self) {
        self.passed.refresh(&self.registers.page());
        self.publish();
    }

    /// Returns whether the host's resources have changed since the guest read them, if it wants to
    /// know.
    fn has_news(&self) -> bool {
        self.generation() != 0 && self.passed.has_news()
    }

    /// Splits a few of the huge pages that calls have left. Returns whether there may be more. Safe
    /// while the guest runs.
    pub(super) fn split_left(&mut self) -> bool {
        if self.unsplit.is_empty() {
            return false;
        }
        let parts = self.unsplit.take(&self.map);
        self.releaser.split(&self.memory, &parts);
        self.publish();
        true
    }

    /// Returns whether the guest has something to do or to read: it has another size than its
    /// target, or the host's resources have changed.
    pub(super) fn has_to_be_told(&self) -> bool {
        self.map.size() != self.target() || self.has_news()
    }

    /// Runs `carry_out` over the batch that the registers name and writes the entries back. The
    /// result is the number of frames done.
    fn batch(
        &mut self,
        registers: &Registers,
        carry_out: fn(&mut Self, &mut [Entry], FrameNumber) -> FrameCount,
    ) -> Outcome {
        let Some(page) = self.batch_page(registers) else { return Status::BadPage.into() };
        if registers.rsi == 0 || registers.rsi > batch::CAPACITY as u64 {
            return Status::BadCount.into();
        }
        let address = GuestAddress(registers.rdi);
        let mut words = [0; batch::CAPACITY];
        let words = &mut words[..to_usize(registers.rsi)];
        if self.memory.read_words(address, words).is_err() {
            return Status::BadPage.into();
        }
        let mut entries: Vec<_> = words.iter().map(|word| Entry::decode(*word)).collect();
        let frames = carry_out(self, &mut entries, page);
        for (word, entry) in words.iter_mut().zip(&entries) {
            *word = entry.encode();
        }
        for entry in entries.iter().filter(|entry| entry.status != EntryStatus::Done) {
            self.facts.refused_entries[usize::from(entry.status.code())] += 1;
        }
        // The page was readable a moment ago, and its own batch can't balloon it.
        match self.memory.write_words(address, words) {
            Ok(()) => Outcome::new(Status::Ok, frames.0),
            Err(_) => Status::BadPage.into(),
        }
    }

    fn inflate(&mut self, entries: &mut [Entry], page: FrameNumber) -> FrameCount {
        let mut done = judge(entries, |entry| self.map.inflate(entry, page));
        // Before the release: released memory must not come back as a huge page.
        let (mut failed, mixed) = self.fit_pages(&mut done);
        if let Some(paging) = &self.paging {
            paging.forget(done.iter().map(|(block, _)| block));
        }
        let to_split = self.copy_out_of_huge_pages(&mixed);
        let blocks: Vec<_> = done.iter().map(|(block, _)| self.with_page_table(block)).collect();
        let ranges = merged(blocks.iter());
        let released = self.releaser.release(&self.memory, &ranges);
        // After the release, when there is less left to split. Any of the guest's frames stands for
        // its huge page.
        let (now, later) = to_split.split_at(to_split.len().min(SPLIT_IN_A_CALL));
        let kept = now.iter().filter_map(|&huge| self.map.runs(Frames::Guest, huge.frames()).next());
        let parts: Vec<_> = kept.map(|run| run.start..run.start + 1).collect();
        self.releaser.split(&self.memory, &parts);
        if !later.is_empty() {
            self.unsplit.extend(later.iter().copied());
            self.host.work_left();
        }
        if let Some(first) = ranges.get(released) {
            failed.extend(done.extract_if(.., |(block, _)| block.start >= first.start));
        }
        for (block, index) in failed {
            self.map.undo_inflate(&block);
            entries[index].status = EntryStatus::HostFailed;
        }
        let frames = frames(&done);
        self.facts.inflated = self.facts.inflated.saturating_add(frames);
        frames
    }

    fn deflate(&mut self, entries: &mut [Entry], _page: FrameNumber) -> FrameCount {
        let target = self.registers.page().target();
        let mut done = judge(entries, |entry| self.map.deflate(entry, target));
        let (mut failed, mixed) = self.fit_pages(&mut done);
        failed.extend(done.extract_if(.., |(block, _)| !self.host.attach(block)));
        // These were wholly ballooned until now. A guest that touched one all the same may have a
        // huge page there, and the part of it that stays ballooned could not be released any more.
        let ranges: Vec<_> = mixed.iter().map(HugeRun::frames).collect();
        self.releaser.release(&self.memory, &ranges);
        for (block, index) in failed {
            self.map.undo_deflate(&block);
            entries[index].status = EntryStatus::HostFailed;
        }
        let frames = frames(&done);
        self.facts.deflated = self.facts.deflated.saturating_add(frames);
        frames
    }

    /// Has the host put pages of the right sizes behind blocks that were inflated or deflated.
    /// Removes and returns those where it can't, and returns the huge frames that have become
    /// mixed.
    fn fit_pages(&mut self, blocks: &mut Vec<Named>) -> (Vec<Named>, Vec<HugeRun>) {
        let Self { map, page_sizes, memory, allow, .. } = self;
        let named = blocks.iter().map(|(block, _)| block);
        let mixed = page_sizes.follow(map, named, |frames, size| allow(memory, frames, size));
        let unfit = blocks.extract_if(.., |(block, _)| !page_sizes.fits(map, block)).collect();
        (unfit, mixed)
    }

    /// Frees the huge pages behind huge frames that have just been ballooned in part, where copying
    /// the guest's frames does it. Returns those whose huge pages have to be split. Only for the
    /// vCPU's thread, as the guest must not run.
    fn copy_out_of_huge_pages(&mut self, mixed: &[HugeRun]) -> Vec<HugeIndex> {
        let mut huge_frames: Vec<_> = mixed.iter().flat_map(HugeRun::huge_frames).collect();
        if !huge_frames.is_empty()
            && let Some(quiescent) = self.host.quiesce()
        {
            let means = (&*self.memory, &self.releaser);
            huge_frames.retain(|&huge| !self.copier.free(huge, &self.map, means, &quiescent));
        }
        huge_frames
    }

    /// Returns a block that was ballooned, or its whole huge frame where that is now wholly
    /// ballooned: the kernel frees a page table only where all that it maps is released at once
    /// (Linux 6.14).
    fn with_page_table(&self, block: &Range<usize>) -> Range<usize> {
        let whole = HugeIndex::holding(block.start).frames();
        let is_part = block.len() < whole.len();
        if is_part && self.map.state(&whole) == Some(Frames::Ballooned) { whole } else { block.clone() }
    }

    fn report(&mut self, registers: &Registers, now_ns: u64) -> Outcome {
        let address = registers.rdi;
        let in_one_page = address % FRAME_BYTES + statistics::BYTES as u64 <= FRAME_BYTES;
        if !in_one_page || !self.map.is_guests(FrameNumber::containing(address)) {
            return Status::BadPage.into();
        }
        let mut words = [0; statistics::WORDS];
        if self.memory.read_words(GuestAddress(address), &mut words).is_err() {
            return Status::BadPage.into();
        }
        self.registers.page().set_statistics(&words);
        let report = Statistics::decode(&words);
        self.compare(FrameCount::from_bytes_floor(report.balloon_bytes));
        let has_changed = self.reported.take_change(&report);
        if report.wanted_bytes > 0 {
            self.host.pressure(now_ns);
        } else if has_changed {
            self.host.use_changed(now_ns);
        }
        Status::Ok.into()
    }

    /// Compares the balloon that the guest reports with the real one. What the guest has not noted
    /// yet counts for it. If they keep differing, the guest is ordered to ask anew what is
    /// ballooned; if that does not help, it is not ordered to again.
    fn compare(&mut self, reported: FrameCount) {
        let not_noted = self.offers.as_ref().map_or(FrameCount::ZERO, |offers| offers.not_noted(&self.memory));
        if reported.saturating_add(not_noted) == self.map.balloon() {
            self.facts.disagreeing_reports = 0;
            return;
        }
        self.facts.disagreeing_reports += 1;
        self.is_reset_ordered |= self.facts.disagreeing_reports == DISAGREEING_REPORTS;
    }

    /// Releases what is resident in ballooned frames, from frame index `from` on: a guest that has
    /// touched ballooned frames has no right to what they hold. Releases at most
    /// [`RECLAIMED_AT_ONCE`], as the guest's calls wait meanwhile. Returns where to go on; `None`
    /// when all is done.
    pub(super) fn reclaim_ballooned(&mut self, from: usize) -> Option<usize> {
        self.host.memory_released();
        let before = self.registers.page().facts().resident;
        let (mut at, mut left, mut ranges) = (from, RECLAIMED_AT_ONCE, Vec::new());
        while left > 0
            && ranges.len() < RANGES_AT_ONCE
            && let Some(run) = self.map.ballooned_run(at, left)
        {
            at = run.end;
            left -= run.len();
            ranges.push(run);
        }
        // What can't be released stays resident, and so counts against the guest.
        self.releaser.release(&self.memory, &ranges);
        self.host.memory_released();
        let after = self.registers.page().facts().resident;
        self.facts.reclaimed = self.facts.reclaimed.saturating_add(before.saturating_sub(after));
        self.publish();
        (!ranges.is_empty()).then_some(at)
    }

    fn reply(&self, outcome: Outcome) -> Registers {
        let Outcome { status, result, second } = outcome;
        let r8 = second.unwrap_or_else(|| self.generation());
        Registers { rax: status.encode(), rdi: result, rsi: self.target().0, r8 }
    }

    /// Has memory attached that the target calls for: the guest has started.
    pub(super) fn begin_growth(&mut self) {
        self.host.work_left();
    }

    /// Returns the target that the guest is told: the supervisor's, as far as the guest could use
    /// that memory at once.
    fn target(&self) -> FrameCount {
        self.registers.page().target().min(self.host.attached())
    }

    /// Returns the generation of the host's resources, for a guest that negotiated to know it.
    fn generation(&self) -> u64 {
        let is_known = self.negotiation == Negotiation::Done && self.features.contains(Features::REQUESTS);
        if is_known { self.passed.generation().0 } else { 0 }
    }

    /// Publishes the facts, and acknowledges the target that is acted on from now on. The caller
    /// holds the device's lock, so no operation is under way that has read an older one.
    fn publish(&mut self) {
        let epoch = self.registers.page().target_epoch();
        // Size counts what the host can't have yet. What a call has left unsplit does not belong to
        // the host yet, so size does not fall by it.
        let size = self.map.size();
        let held = size.saturating_add(self.unsplit.ballooned(&self.map));
        self.facts.size = if self.unsplit.is_empty() { size } else { size.max(held.min(self.facts.size)) };
        self.facts.balloon = self.memory.layout().total().saturating_sub(self.facts.size);
        self.registers.page().set_balloon_facts(&self.facts);
        self.registers.page().acknowledge(epoch);
    }
}

/// Checks all entries in order; returns the blocks of those that are done, ascending.
fn judge(entries: &mut [Entry], mut judge: impl FnMut(Entry) -> Result<Range<usize>, EntryStatus>) -> Vec<Named> {
    let mut blocks = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter_mut().enumerate() {
        entry.status = match judge(*entry) {
            Ok(block) => {
                blocks.push((block, index));
                EntryStatus::Done
            }
            Err(refusal) => refusal,
        };
    }
    // An allocator that runs low hands blocks out in descending order: once sorted, they merge all
    // the same.
    blocks.sort_unstable_by_key(|(block, _)| block.start);
    blocks
}

fn frames(blocks: &[Named]) -> FrameCount {
    FrameCount(blocks.iter().map(|(block, _)| block.len() as u64).sum())
}

/// Merges sorted blocks, which may repeat, into the fewest ranges.
fn merged<'a>(blocks: impl Iterator<Item = &'a Range<usize>>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for block in blocks {
        match ranges.last_mut() {
            Some(last) if block.start <= last.end => last.end = last.end.max(block.end),
            _ => ranges.push(block.clone()),
        }
    }
    ranges
}

#[cfg(test)]
mod physical_tests;
#[cfg(test)]
mod tests;
