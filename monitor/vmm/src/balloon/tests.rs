//! Tests the device without a guest: by direct calls, on memory in which no guest runs.

mod requests;

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::frame_state::{HugeFrameState, HugeFrameWord};
use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION, Welcome};
use aerostat_abi::registers::Epoch;
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::{FrameCount, FrameNumber};

use super::{Balloon, BalloonHost, merged};
use crate::frame_map::FrameMap;
use crate::layout::{GuestAddress, MemoryLayout};
use crate::memory::GuestMemory;
use crate::page_sizes::PageSize;
use crate::shared_registers::SharedRegisters;
use crate::virtio::{Quiescent, Workers};
use aerostat_link::SharedPage;

/// Where batches and records lie: frame 768, 3 MiB.
const PAGE: GuestAddress = GuestAddress(3 << 20);
const TOTAL: FrameCount = FrameCount::from_mib(16);

#[derive(Debug, Default)]
pub(super) struct Heard {
    vector: Option<u8>,
    pressure: u32,
    changes: u32,
    requests: u32,
    released: u32,
    pub(super) work_left: u32,
    pub(super) workers: Workers,
    /// Frames that the guest can use without waiting; all if `None`.
    attached: Option<FrameCount>,
    /// Frames that can't be attached.
    unattachable: Range<usize>,
}

impl BalloonHost for Heard {
    fn connect_doorbell(&mut self, vector: u8) {
        self.vector = Some(vector);
    }

    fn disconnect_doorbell(&mut self) {
        self.vector = None;
    }

    fn pressure(&mut self, _now_ns: u64) {
        self.pressure += 1;
    }

    fn use_changed(&mut self, _now_ns: u64) {
        self.changes += 1;
    }

    fn requested(&mut self, _now_ns: u64) {
        self.requests += 1;
    }

    fn attached(&self) -> FrameCount {
        self.attached.unwrap_or(FrameCount(u64::MAX))
    }

    fn attach(&mut self, frames: &Range<usize>) -> bool {
        !self.unattachable.contains(&frames.start)
    }

    fn memory_released(&mut self) {
        self.released += 1;
    }

    fn work_left(&mut self) {
        self.work_left += 1;
    }

    fn quiesce(&self) -> Option<Quiescent<'_>> {
        self.workers.hold()
    }
}

/// Creates a device whose guest has `initial` frames.
fn device(initial: FrameCount) -> Balloon<Heard> {
    device_of(TOTAL, initial)
}

/// Does the same with `total` frames in all.
fn device_of(total: FrameCount, initial: FrameCount) -> Balloon<Heard> {
    let memory = Arc::new(GuestMemory::new(MemoryLayout::new(total).unwrap()).unwrap());
    let (registers, _) = SharedPage::create(initial).unwrap();
    let image = FrameNumber(512)..FrameNumber(520);
    let map = FrameMap::new(*memory.layout(), initial, image);
    Balloon::new(memory, Arc::new(SharedRegisters::new(registers)), Heard::default(), map)
}

/// Creates a device with a session.
fn negotiated(initial: FrameCount) -> Balloon<Heard> {
    negotiate(device(initial))
}

/// Creates a device with a session, whose guest has all of its `total` frames.
pub(super) fn negotiated_whole(total: FrameCount) -> Balloon<Heard> {
    negotiate(device_of(total, total))
}

fn negotiate(mut device: Balloon<Heard>) -> Balloon<Heard> {
    let reply = device.call(hello(0x40).encode(), 1);
    assert_eq!(Status::decode(reply.rax), Some(Status::Ok));
    device
}

const fn hello(vector: u8) -> Hello {
    Hello { version: VERSION, features: Features(12), floor: FrameCount(1024), vector }
}

fn status(device: &mut Balloon<Heard>, command: Command, rdi: u64, rsi: u64) -> Option<Status> {
    Status::decode(device.call(Registers { rax: command.encode(), rdi, rsi, r8: 0 }, 2).rax)
}

/// Returns the target that the guest is told.
fn told(device: &mut Balloon<Heard>) -> u64 {
    device.call(Registers { rax: Command::GetTarget.encode(), rdi: 0, rsi: 0, r8: 0 }, 2).rsi
}

/// Makes a batch call; returns the reply's first result and each entry's status.
pub(super) fn batch(device: &mut Balloon<Heard>, command: Command, blocks: &[(u64, u8)]) -> (u64, Vec<EntryStatus>) {
    let mut words: Vec<_> =
        blocks.iter().map(|&(frame, order)| Entry::pending(FrameNumber(frame), order).encode()).collect();
    device.memory.write_words(PAGE, &words).unwrap();
    let call = Registers { rax: command.encode(), rdi: PAGE.0, rsi: blocks.len() as u64, r8: 0 };
    let reply = device.call(call, 3);
    assert_eq!(Status::decode(reply.rax), Some(Status::Ok));
    assert_eq!(reply.rsi, device.target().0, "every reply carries the target");
    device.memory.read_words(PAGE, &mut words).unwrap();
    (reply.rdi, words.into_iter().map(|word| Entry::decode(word).status).collect())
}

/// A guest grows only by frames that it can use.
#[test]
fn frames_that_can_not_be_attached_stay_ballooned() {
    let mut device = negotiated(FrameCount(2048));
    device.registers.page().set_target(TOTAL);
    device.host.unattachable = 2560..3072;
    let statuses = batch(&mut device, Command::Deflate, &[(2048, 9), (2560, 9), (3072, 9)]);
    assert_eq!(statuses, (1024, vec![EntryStatus::Done, EntryStatus::HostFailed, EntryStatus::Done]));
    assert_eq!(device.map.size(), FrameCount(3072));
    device.host.unattachable = 0..0;
    assert_eq!(batch(&mut device, Command::Deflate, &[(2560, 9)]), (512, vec![EntryStatus::Done]));
}

/// A guest that is told of memory without a slot would wait for it.
#[test]
fn a_guest_is_told_of_what_is_attached() {
    let mut device = negotiated(FrameCount(2048));
    device.registers.page().set_target(TOTAL);
    device.host.attached = Some(FrameCount(2048));
    assert!(!device.has_to_be_told());
    assert_eq!(told(&mut device), 2048);
    device.host.attached = Some(FrameCount(3072));
    assert!(device.has_to_be_told());
    assert_eq!(told(&mut device), 3072);
    device.registers.page().set_target(FrameCount(1024));
    assert_eq!(told(&mut device), 1024);
    // What the guest chooses beyond is attached for it.
    device.registers.page().set_target(TOTAL);
    assert_eq!(batch(&mut device, Command::Deflate, &[(3584, 9)]), (512, vec![EntryStatus::Done]));
}

#[test]
fn hello_comes_first_and_once() {
    let mut device = device(FrameCount(2048));
    assert_eq!(status(&mut device, Command::GetTarget, 0, 0), Some(Status::NoSession));
    let welcome = Welcome::decode(&device.call(hello(0x40).encode(), 1));
    assert_eq!(welcome, Welcome { version: VERSION, features: Features(0), target: FrameCount(2048) });
    assert_eq!(device.host.vector, Some(0x40));
    let again = device.call(hello(0x41).encode(), 1);
    assert_eq!(Status::decode(again.rax), Some(Status::SessionExists));
    assert_eq!(device.host.vector, Some(0x40));
}

#[test]
fn touched_ballooned_frames_are_released_a_chunk_at_a_time() {
    let mut device = negotiated(FrameCount(2048));
    let (ballooned, guests) = (GuestAddress(9 << 20), GuestAddress(5 << 20));
    assert_eq!(batch(&mut device, Command::Inflate, &[(1024, 0), (1026, 0)]).0, 2);
    for address in [ballooned, guests, GuestAddress(1025 << 12), GuestAddress(1026 << 12)] {
        device.memory.write_words(address, &[7]).unwrap();
    }
    let mut at = Some(0);
    let mut chunks = 0;
    while let Some(from) = at {
        at = device.reclaim_ballooned(from);
        chunks += 1;
    }
    assert_eq!(chunks, 2, "one that releases, one that finds nothing");
    let mut word = [0];
    for (address, expected) in
        [(ballooned, 0), (guests, 7), (GuestAddress(1025 << 12), 7), (GuestAddress(1026 << 12), 0)]
    {
        device.memory.read_words(address, &mut word).unwrap();
        assert_eq!(word, [expected], "{address:?}");
    }
    assert_eq!(device.registers.page().facts().balloon, FrameCount(2050), "nothing changed hands");
}

#[test]
fn consecutive_reports_of_another_balloon_are_counted() {
    let mut device = negotiated(FrameCount(2048));
    let mut report = |mib: u64| {
        let report = Statistics { balloon_bytes: mib << 20, ..Statistics::default() };
        device.memory.write_words(PAGE, &report.encode()).unwrap();
        assert_eq!(status(&mut device, Command::Report, PAGE.0, 0), Some(Status::Ok));
        device.registers.page().facts().disagreeing_reports
    };
    assert_eq!([8, 7, 9, 8, 0].map(&mut report), [0, 1, 2, 0, 1]);
}

#[test]
fn a_guest_that_keeps_reporting_another_balloon_is_reset_once() {
    let mut device = negotiated(FrameCount(2048));
    let mut report = |mib: u64| {
        let report = Statistics { balloon_bytes: mib << 20, ..Statistics::default() };
        device.memory.write_words(PAGE, &report.encode()).unwrap();
        let answer = status(&mut device, Command::Report, PAGE.0, 0);
        if answer == Some(Status::ResetOrdered) {
            device.call(hello(0).encode(), 2);
        }
        answer
    };
    let (ok, reset) = (Some(Status::Ok), Some(Status::ResetOrdered));
    assert_eq!([7, 7, 8, 7, 7, 7].map(&mut report), [ok; 6], "the third in a row is answered");
    assert_eq!([7, 7, 7, 7, 7, 7, 7].map(&mut report), [reset, ok, ok, ok, ok, ok, ok]);
    assert_eq!([8, 7, 7, 7, 7].map(&mut report), [ok, ok, ok, ok, reset], "once they have agreed again");
}

#[test]
fn what_the_guest_has_not_noted_yet_is_no_disagreement() {
    let mut device = sharing();
    offer(&device, 3, true);
    assert_eq!(host_reclaim(&mut device, 0), [3]);
    let report = Statistics::default();
    device.memory.write_words(PAGE, &report.encode()).unwrap();
    assert_eq!(status(&mut device, Command::Report, PAGE.0, 0), Some(Status::Ok));
    assert_eq!(device.registers.page().facts().disagreeing_reports, 0);
    word(&device, 3).store(HugeFrameState::default().with_whole());
    assert_eq!(status(&mut device, Command::Report, PAGE.0, 0), Some(Status::Ok));
    assert_eq!(device.registers.page().facts().disagreeing_reports, 1);
}

#[test]
fn bad_hellos_are_refused_and_can_be_corrected() {
    let mut device = device(TOTAL);
    let mut negotiate = |hello: Hello| Status::decode(device.call(hello.encode(), 1).rax);
    assert_eq!(negotiate(Hello { version: 1, ..hello(0) }), Some(Status::UnsupportedVersion));
    assert_eq!(negotiate(hello(31)), Some(Status::BadArgument));
    assert_eq!(negotiate(Hello { floor: FrameCount(TOTAL.0 + 1), ..hello(0) }), Some(Status::BadArgument));
    assert_eq!(negotiate(hello(0)), Some(Status::Ok));
    assert_eq!(device.host.vector, None, "vector 0 asks for no interrupt");
}

#[test]
fn a_reset_ends_the_session_and_nothing_else() {
    let mut device = negotiated(FrameCount(2048));
    assert_eq!(status(&mut device, Command::Reset, 0, 0), Some(Status::Ok));
    assert_eq!(device.host.vector, None);
    for command in
        [Command::GetTarget, Command::Inflate, Command::Deflate, Command::Report, Command::List, Command::Reset]
    {
        assert_eq!(status(&mut device, command, PAGE.0, 1), Some(Status::NoSession), "{command:?}");
    }
    assert_eq!(Status::decode(device.call(hello(0x41).encode(), 1).rax), Some(Status::Ok));
    assert_eq!((device.host.vector, device.registers.page().facts().balloon), (Some(0x41), FrameCount(2048)));
}

#[test]
fn an_ordered_reset_is_the_answer_to_the_next_call_and_carries_nothing_out() {
    let mut device = negotiated(TOTAL);
    device.is_reset_ordered = true;
    assert_eq!(status(&mut device, Command::Inflate, PAGE.0, 1), Some(Status::ResetOrdered));
    assert_eq!(status(&mut device, Command::GetTarget, 0, 0), Some(Status::NoSession));
    assert_eq!(Status::decode(device.call(hello(0x40).encode(), 1).rax), Some(Status::Ok));
    assert_eq!(status(&mut device, Command::GetTarget, 0, 0), Some(Status::Ok));
}

/// Where the guest of these tests has its words: frame 769.
const WORDS: GuestAddress = GuestAddress(PAGE.0 + 4096);
const HUGE_FRAMES: u64 = TOTAL.0 / 512;

/// Creates a device whose guest shares its words.
fn sharing() -> Balloon<Heard> {
    sharing_above(FrameCount::ZERO)
}

/// Does the same, with a guest that has named a floor.
fn sharing_above(floor: FrameCount) -> Balloon<Heard> {
    let mut device = device(TOTAL);
    let hello = Hello { features: Features::OFFERS, floor, ..hello(0) };
    assert_eq!(Welcome::decode(&device.call(hello.encode(), 1)).features, Features::OFFERS);
    assert_eq!(status(&mut device, Command::Share, WORDS.0, HUGE_FRAMES), Some(Status::Ok));
    device
}

fn word(device: &Balloon<Heard>, huge: u64) -> &HugeFrameWord {
    device.memory.shared_word(GuestAddress(WORDS.0 + 4 * huge)).unwrap()
}

fn offer(device: &Balloon<Heard>, huge: u64, is_backed: bool) {
    let state = HugeFrameState::default();
    word(device, huge).store(if is_backed { state.with_backing() } else { state }.with_offer());
}

fn host_reclaim(device: &mut Balloon<Heard>, target: u64) -> Vec<u64> {
    device.registers.page().set_target(FrameCount(target));
    while device.host_reclaim() {}
    (0..HUGE_FRAMES).filter(|&huge| word(device, huge).load().is_reclaimed()).collect()
}

#[test]
fn offers_are_reclaimed_down_to_the_target_backed_memory_first() {
    let mut device = sharing();
    for (huge, is_backed) in [(2, false), (3, true), (4, false), (6, true), (7, false)] {
        offer(&device, huge, is_backed);
        device.memory.write_words(GuestAddress(huge << 21), &[7]).unwrap();
    }
    assert!(host_reclaim(&mut device, TOTAL.0).is_empty());
    assert_eq!(host_reclaim(&mut device, TOTAL.0 - 3 * 512 - 100), [2, 3, 6], "no more than whole huge frames");
    for (huge, content) in [(2, 0), (3, 0), (4, 7), (6, 0), (7, 7)] {
        let mut words = [1];
        device.memory.read_words(GuestAddress(huge << 21), &mut words).unwrap();
        assert_eq!(words, [content], "huge frame {huge}");
    }
    let facts = device.registers.page().facts();
    assert_eq!((facts.size.0, facts.inflated.0, facts.host_reclaimed.0), (TOTAL.0 - 1536, 1536, 1536));
    assert_eq!(host_reclaim(&mut device, 0), [2, 3, 4, 6, 7]);
    device.registers.page().set_target(TOTAL);
    assert_eq!(batch(&mut device, Command::Deflate, &[(6 * 512, 9)]), (512, vec![EntryStatus::Done]));
}

#[test]
fn a_target_is_acknowledged_when_nothing_acts_on_an_older_one_any_more() {
    let mut device = sharing();
    assert_eq!(device.registers.page().facts().acknowledged, Epoch::FIRST);
    device.registers.page().set_target(FrameCount(1024));
    assert_eq!(device.registers.page().facts().acknowledged, Epoch::FIRST, "the device has not adopted it");
    device.acknowledge();
    assert_eq!(device.registers.page().facts().acknowledged, Epoch(2));
    device.registers.page().set_target(TOTAL);
    status(&mut device, Command::GetTarget, 0, 0);
    assert_eq!(device.registers.page().facts().acknowledged, Epoch(3), "a call does as well");
}

#[test]
fn nothing_is_reclaimed_below_the_guests_floor() {
    let mut device = sharing_above(FrameCount(2000));
    for huge in 0..HUGE_FRAMES {
        offer(&device, huge, true);
    }
    assert_eq!(host_reclaim(&mut device, 0), [2, 3, 4, 5]);
    assert_eq!(device.registers.page().facts().size, FrameCount(TOTAL.0 - 4 * 512));
}

#[test]
fn an_offer_of_what_is_not_the_guests_to_offer_is_ignored() {
    let mut device = sharing();
    assert_eq!(batch(&mut device, Command::Inflate, &[(5 * 512, 0), (6 * 512, 9)]).0, 513);
    for huge in 0..HUGE_FRAMES {
        offer(&device, huge, true);
    }
    // 0 has boot information, 1 the image and the words; 5 is ballooned in part, 6 as a whole.
    assert_eq!(host_reclaim(&mut device, 0), [2, 3, 4, 7]);
    assert_eq!(device.registers.page().facts().size.0, 2 * 512 + 511);
}

#[test]
fn words_are_shared_once_agreed_upon_and_stay_where_they_are() {
    let mut device = negotiated(TOTAL);
    assert_eq!(status(&mut device, Command::Share, WORDS.0, HUGE_FRAMES), Some(Status::UnknownCommand));
    let mut device = sharing();
    for (address, count, expected) in [
        (WORDS.0, HUGE_FRAMES + 1, Status::BadCount),
        (WORDS.0, u64::MAX, Status::BadCount),
        (WORDS.0 + 2, HUGE_FRAMES, Status::BadPage),
        (TOTAL.bytes() - 4, HUGE_FRAMES, Status::BadPage),
        (1 << 40, HUGE_FRAMES, Status::BadPage),
        (u64::MAX - 3, HUGE_FRAMES, Status::BadPage),
    ] {
        assert_eq!(status(&mut device, Command::Share, address, count), Some(expected), "{address:#x}");
    }
    assert_eq!(batch(&mut device, Command::Inflate, &[(769, 0)]).1, [EntryStatus::Protected]);
    offer(&device, 4, true);
    assert_eq!(status(&mut device, Command::Reset, 0, 0), Some(Status::Ok));
    assert!(host_reclaim(&mut device, 0).is_empty(), "nothing is shared any more");
    assert_eq!(Status::decode(device.call(hello(0).encode(), 1).rax), Some(Status::Ok));
    assert_eq!(batch(&mut device, Command::Inflate, &[(769, 0)]).1, [EntryStatus::Done]);
}

#[test]
fn ballooned_frames_are_listed_a_page_at_a_time() {
    let mut device = negotiated(TOTAL);
    // Every second frame of two huge frames: a page full, and a few more.
    let scattered: Vec<_> = (1024..2048).step_by(2).map(|frame| (frame, 0)).collect();
    batch(&mut device, Command::Inflate, &scattered);
    batch(&mut device, Command::Inflate, &[(2048, 9), (3000, 0)]);
    let mut list = |from| {
        let call = Registers { rax: Command::List.encode(), rdi: PAGE.0, rsi: from, r8: 0 };
        let reply = device.call(call, 4);
        assert_eq!((Status::decode(reply.rax), reply.rsi), (Some(Status::Ok), TOTAL.0));
        let mut words = vec![0; usize::try_from(reply.rdi).unwrap()];
        device.memory.read_words(PAGE, &mut words).unwrap();
        let blocks: Vec<_> = words.into_iter().map(Entry::decode).map(|entry| (entry.frame.0, entry.order)).collect();
        (blocks, reply.r8)
    };
    assert_eq!(list(0), (scattered, 2048));
    assert_eq!(list(2048), (vec![(2048, 9), (3000, 0)], 0));
    assert_eq!(list(3001), (vec![], 0));
    assert_eq!(status(&mut device, Command::List, 1 << 40, 0), Some(Status::BadPage));
}

#[test]
fn unknown_commands_are_reported() {
    let mut device = negotiated(TOTAL);
    let reply = device.call(Registers { rax: 0xae50_00ff, ..Registers::default() }, 1);
    assert_eq!(Status::decode(reply.rax), Some(Status::UnknownCommand));
    assert_eq!(reply.rsi, TOTAL.0);
}

#[test]
fn ballooned_memory_is_released_and_counted() {
    let mut device = negotiated(TOTAL);
    let kept = GuestAddress(1024 * 4096);
    let lost = GuestAddress(1536 * 4096);
    device.memory.write_words(kept, &[7]).unwrap();
    device.memory.write_words(lost, &[7]).unwrap();

    let (frames, statuses) =
        batch(&mut device, Command::Inflate, &[(2050, 0), (2049, 0), (1536, 9), (1536, 0), (100, 0)]);
    assert_eq!(frames, 514);
    let (done, already, protected) = (EntryStatus::Done, EntryStatus::AlreadyBallooned, EntryStatus::Protected);
    assert_eq!(statuses, [done, done, done, already, protected]);

    let mut word = [0];
    device.memory.read_words(lost, &mut word).unwrap();
    assert_eq!(word[0], 0);
    device.memory.read_words(kept, &mut word).unwrap();
    assert_eq!(word[0], 7);
    let facts = device.registers.page().facts();
    assert_eq!((facts.size.0, facts.balloon.0), (TOTAL.0 - 514, 514));
    assert_eq!((facts.inflated.0, facts.deflated.0, facts.all_refused_entries()), (514, 0, 2));
    assert_eq!((facts.port_calls, facts.last_call_ns), (2, 3));
    assert_eq!(device.host.released, 1);
}

#[test]
fn frames_come_back_up_to_the_target() {
    let mut device = negotiated(FrameCount(2048));
    assert_eq!(batch(&mut device, Command::Deflate, &[(2048, 0)]), (0, vec![EntryStatus::NotGranted]));
    device.registers.page().set_target(FrameCount(2048 + 513));
    let (frames, statuses) = batch(&mut device, Command::Deflate, &[(2048, 9), (2048, 0), (2560, 0), (2561, 0)]);
    assert_eq!(frames, 513);
    let (done, kept, late) = (EntryStatus::Done, EntryStatus::NotBallooned, EntryStatus::NotGranted);
    assert_eq!(statuses, [done, kept, done, late]);
    assert_eq!(device.registers.page().facts().size, FrameCount(2048 + 513));
}

/// Returns what the kernel says may be behind a frame; `None` where it was told nothing, or knows
/// small pages only.
fn allowed(device: &Balloon<Heard>, frame: usize) -> Option<PageSize> {
    let address = device.memory.host_address(frame * 4096).addr();
    let areas = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_in_area = false;
    for line in areas.lines() {
        if let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
            let bound = |text| usize::from_str_radix(text, 16).unwrap();
            is_in_area = (bound(start)..bound(end)).contains(&address);
        }
        if is_in_area && let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |name| flags.split_whitespace().any(|flag| flag == name);
            return has("hg").then_some(PageSize::Huge).or(has("nh").then_some(PageSize::Small));
        }
    }
    panic!("guest memory is mapped")
}

#[test]
fn the_kernel_puts_small_pages_behind_mixed_huge_frames() {
    let mut device = negotiated(TOTAL);
    let (huge, small) = (Some(PageSize::Huge), Some(PageSize::Small));
    if allowed(&device, 1024) != huge {
        return; // This kernel knows no huge pages.
    }
    let mut step = |command, blocks: &[_]| {
        let (_, statuses) = batch(&mut device, command, blocks);
        assert!(statuses.iter().all(|status| *status == EntryStatus::Done), "{statuses:?}");
        [512, 1024, 1536, 2048].map(|frame| allowed(&device, frame))
    };
    assert_eq!(step(Command::Inflate, &[(1600, 0), (1024, 8), (2048, 9)]), [huge, small, small, huge]);
    assert_eq!(step(Command::Inflate, &[(1280, 8)]), [huge, small, small, huge]);
    assert_eq!(step(Command::Deflate, &[(2050, 0), (1600, 0)]), [huge, small, huge, small]);
    assert_eq!(step(Command::Deflate, &[(1024, 9)]), [huge, huge, huge, small]);
}

#[test]
fn what_the_host_can_not_tell_apart_is_neither_inflated_nor_deflated() {
    let mut device = negotiated(FrameCount(2048));
    device.registers.page().set_target(TOTAL);
    device.allow = |_, _, _| Err(io::ErrorKind::OutOfMemory.into());
    device.memory.write_words(GuestAddress(1024 * 4096), &[7]).unwrap();
    let (done, failed) = (EntryStatus::Done, EntryStatus::HostFailed);
    let inflated = batch(&mut device, Command::Inflate, &[(1024, 0), (1536, 9), (1025, 0)]);
    assert_eq!(inflated, (512, vec![failed, done, failed]));
    let deflated = batch(&mut device, Command::Deflate, &[(2048, 0), (2560, 9), (1536, 0)]);
    assert_eq!(deflated, (512, vec![failed, done, failed]));
    let mut word = [0];
    device.memory.read_words(GuestAddress(1024 * 4096), &mut word).unwrap();
    assert_eq!(word[0], 7, "nothing of it was released");
    let facts = device.registers.page().facts();
    assert_eq!((facts.size.0, facts.inflated.0, facts.deflated.0, facts.all_refused_entries()), (2048, 512, 512, 4));
}

#[test]
fn bad_batches_cost_only_the_call() {
    let mut device = negotiated(FrameCount(2048));
    for page in [PAGE.0 + 8, 2048 * 4096, 1 << 40, !0xfff, 3 << 30] {
        assert_eq!(status(&mut device, Command::Inflate, page, 1), Some(Status::BadPage), "{page:#x}");
    }
    for count in [0, 513, u64::MAX] {
        assert_eq!(status(&mut device, Command::Deflate, PAGE.0, count), Some(Status::BadCount));
    }
    assert_eq!(device.registers.page().facts().size, FrameCount(2048));
}

#[test]
fn the_batch_page_itself_is_protected() {
    let mut device = negotiated(TOTAL);
    assert_eq!(batch(&mut device, Command::Inflate, &[(768, 0)]).1, [EntryStatus::Protected]);
    assert_eq!(batch(&mut device, Command::Inflate, &[(768, 3)]).1, [EntryStatus::Protected]);
}

#[test]
fn reports_are_copied_out_and_pressure_is_passed_on() {
    let mut device = negotiated(TOTAL);
    let calm = Statistics { free_memory_bytes: 5, ..Statistics::default() };
    device.memory.write_words(PAGE, &calm.encode()).unwrap();
    assert_eq!(status(&mut device, Command::Report, PAGE.0, 0), Some(Status::Ok));
    assert_eq!((device.registers.page().statistics(), device.host.pressure), (calm, 0));
    let pressed = Statistics { wanted_bytes: 5, ..calm };
    device.memory.write_words(PAGE, &pressed.encode()).unwrap();
    assert_eq!(status(&mut device, Command::Report, PAGE.0, 0), Some(Status::Ok));
    assert_eq!((device.registers.page().statistics(), device.host.pressure), (pressed, 1));
    for address in [PAGE.0 + 4, PAGE.0 + 4096 - 8, 1 << 40, u64::MAX, 15 << 28] {
        assert_eq!(status(&mut device, Command::Report, address, 0), Some(Status::BadPage), "{address:#x}");
    }
}

#[test]
fn a_change_of_use_is_passed_on_unless_pressure_is() {
    let mut device = negotiated(TOTAL);
    let used = |mib: u64| Statistics {
        total_memory_bytes: 16 << 20,
        free_memory_bytes: (16 - mib) << 20,
        committable_bytes: 16 << 20,
        ..Statistics::default()
    };
    let pressed = Statistics { wanted_bytes: 5, ..used(12) };
    for (report, heard) in
        [(used(2), (0, 0)), (used(6), (1, 0)), (used(6), (1, 0)), (pressed, (1, 1)), (used(12), (1, 1))]
    {
        device.memory.write_words(PAGE, &report.encode()).unwrap();
        assert_eq!(status(&mut device, Command::Report, PAGE.0, 0), Some(Status::Ok));
        assert_eq!((device.host.changes, device.host.pressure), heard);
    }
}

#[test]
fn neighbours_merge() {
    let blocks = [0..4, 4..5, 6..8, 8..16];
    assert_eq!(merged(blocks.iter()), [0..5, 6..16]);
}
