//! Makes calls that a driver must not make. The monitor refuses each with its own status, and
//! nothing is harmed.

#![no_std]
#![no_main]

#[path = "../port.rs"]
mod port;

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::{Command, Registers, Status};
use aerostat_abi::units::FrameNumber;
use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

const MEMORY: FrameNumber = FrameNumber(64 << 8);
/// A frame near the end of memory, which the kernel has not used yet.
const SPARE: FrameNumber = FrameNumber(MEMORY.0 - 1024);
/// Registers of the first virtio device and of the local APIC, in the hole for devices.
const DEVICES: [FrameNumber; 2] = [FrameNumber(0xd_0000), FrameNumber(0xf_ee00)];
/// The largest number that an entry can name.
const LAST: FrameNumber = FrameNumber((1 << 48) - 1);

fn main() -> Outcome {
    let own_page = FrameNumber::containing(port::page());
    let image = FrameNumber(512);
    let done = [
        // INFLATE, entry by entry.
        expect(Command::Inflate, Entry::pending(FrameNumber(SPARE.0 + 1), 9), EntryStatus::Misaligned),
        expect(Command::Inflate, Entry::pending(FrameNumber(0), 19), EntryStatus::BadOrder),
        expect(Command::Inflate, Entry::pending(FrameNumber(0), 255), EntryStatus::BadOrder),
        expect(Command::Inflate, Entry::pending(MEMORY, 0), EntryStatus::OutOfRange),
        expect(Command::Inflate, Entry::pending(FrameNumber(0), 18), EntryStatus::OutOfRange),
        expect(Command::Inflate, Entry::pending(FrameNumber((1 << 48) - 512), 9), EntryStatus::OutOfRange),
        expect(Command::Inflate, Entry::pending(LAST, 0), EntryStatus::OutOfRange),
        expect(Command::Inflate, Entry::pending(FrameNumber((1 << 48) - (1 << 18)), 18), EntryStatus::OutOfRange),
        expect(Command::Inflate, Entry::pending(FrameNumber(3 << 12), 13), EntryStatus::Misaligned),
        expect(Command::Inflate, Entry::pending(LAST, 255), EntryStatus::BadOrder),
        expect(Command::Inflate, Entry::pending(DEVICES[0], 0), EntryStatus::OutOfRange),
        expect(Command::Inflate, Entry::pending(DEVICES[1], 0), EntryStatus::OutOfRange),
        expect(Command::Inflate, Entry::pending(FrameNumber(3 << 18), 18), EntryStatus::OutOfRange),
        expect(Command::Inflate, Entry::pending(image, 9), EntryStatus::Protected),
        expect(Command::Inflate, Entry::pending(FrameNumber(0), 0), EntryStatus::Protected),
        expect(Command::Inflate, Entry::pending(own_page, 0), EntryStatus::Protected),
        expect(Command::Inflate, Entry::pending(FrameNumber(0), 13), EntryStatus::Protected),
        expect(Command::Deflate, Entry::pending(MEMORY, 0), EntryStatus::OutOfRange),
        expect(Command::Deflate, Entry::pending(image, 9), EntryStatus::NotBallooned),
        // DEFLATE of a frame that is not ballooned, then INFLATE and DEFLATE of that frame.
        expect(Command::Deflate, Entry::pending(SPARE, 0), EntryStatus::NotBallooned),
        expect(Command::Inflate, Entry::pending(SPARE, 0), EntryStatus::Done),
        expect(Command::Inflate, Entry::pending(SPARE, 0), EntryStatus::AlreadyBallooned),
        expect(Command::Inflate, Entry::pending(FrameNumber(SPARE.0 & !511), 9), EntryStatus::AlreadyBallooned),
        expect(Command::Deflate, Entry::pending(FrameNumber(SPARE.0 & !511), 9), EntryStatus::NotBallooned),
        expect(Command::Deflate, Entry::pending(SPARE, 0), EntryStatus::Done),
        expect(Command::Deflate, Entry::pending(SPARE, 0), EntryStatus::NotBallooned),
        twice_in_one_batch(),
        // Calls that are wrong as a whole.
        expect_status(port::page(), 0, Status::BadCount),
        expect_status(port::page(), CAPACITY as u64 + 1, Status::BadCount),
        expect_status(port::page(), u64::MAX, Status::BadCount),
        expect_status(port::page() + 8, 1, Status::BadPage),
        expect_status(MEMORY.address(), 1, Status::BadPage),
        expect_status(!4095, 1, Status::BadPage),
        expect_status(DEVICES[0].address(), 1, Status::BadPage),
        a_full_batch_of_one_block(),
        a_ballooned_batch_page(),
        raw_status(0xae50_00ff) == Some(Status::UnknownCommand),
        raw_status(0) == Some(Status::UnknownCommand),
        port::call(Command::Hello, 1, 0) == Some(Status::SessionExists),
    ];
    if let Some(place) = done.iter().position(|is_done| !is_done) {
        log::error!("malformed batches: number {place} got a wrong answer");
        return Outcome::Failure;
    }
    log::info!("malformed batches: ok");
    Outcome::Success
}

fn twice_in_one_batch() -> bool {
    let entry = Entry::pending(SPARE, 0);
    let (_, frames, entries) = port::batch(Command::Inflate, [entry, entry]);
    frames == 1
        && entries.map(|entry| entry.status) == [EntryStatus::Done, EntryStatus::AlreadyBallooned]
        && expect(Command::Deflate, entry, EntryStatus::Done)
}

/// A block that a batch names as often as it can counts once.
fn a_full_batch_of_one_block() -> bool {
    let block = Entry::pending(FrameNumber(SPARE.0 & !511), 9);
    [Command::Inflate, Command::Deflate].into_iter().all(|command| {
        let (status, frames, entries) = port::batch(command, [block; CAPACITY]);
        let done = entries.iter().filter(|entry| entry.status == EntryStatus::Done).count();
        status == Some(Status::Ok) && (frames, done) == (512, 1)
    })
}

/// A batch page may be ballooned by a batch in another page, and can't be used as one afterwards.
fn a_ballooned_batch_page() -> bool {
    let page = Entry::pending(SPARE, 0);
    expect(Command::Inflate, page, EntryStatus::Done)
        && expect_status(SPARE.address(), 1, Status::BadPage)
        && expect(Command::Deflate, page, EntryStatus::Done)
}

fn expect(command: Command, entry: Entry, status: EntryStatus) -> bool {
    let (answer, _, [result]) = port::batch(command, [entry]);
    if answer != Some(Status::Ok) || result != (Entry { status, ..entry }) {
        log::error!("{command:?} {entry:?}: status {answer:?}, {result:?}");
        return false;
    }
    true
}

fn expect_status(page: u64, count: u64, status: Status) -> bool {
    [Command::Inflate, Command::Deflate].into_iter().all(|command| port::call(command, page, count) == Some(status))
}

fn raw_status(rax: u64) -> Option<Status> {
    Status::decode(port::raw_call(Registers { rax, ..Registers::default() }).rax)
}
