//! Everything that a driver must not ask for: each is refused with its own status, and nothing is harmed.

#![no_std]
#![no_main]

use core::arch::asm;
use core::cell::UnsafeCell;

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::{Command, PORT, Status};
use aerostat_abi::units::FrameNumber;
use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

const MEMORY: FrameNumber = FrameNumber(64 << 8);
/// A frame near the end of memory, which nobody uses so early.
const SPARE: FrameNumber = FrameNumber(MEMORY.0 - 1024);

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; CAPACITY]>);

// SAFETY: used by the one thread below.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; CAPACITY]));

fn main() -> Outcome {
    let own_page = FrameNumber::containing(PAGE.0.get().expose_provenance() as u64);
    let image = FrameNumber(512);
    let done = [
        // GIVE, entry by entry.
        expect(Command::Give, Entry::pending(FrameNumber(SPARE.0 + 1), 9), EntryStatus::Misaligned),
        expect(Command::Give, Entry::pending(FrameNumber(0), 19), EntryStatus::BadOrder),
        expect(Command::Give, Entry::pending(FrameNumber(0), 255), EntryStatus::BadOrder),
        expect(Command::Give, Entry::pending(MEMORY, 0), EntryStatus::OutOfRange),
        expect(Command::Give, Entry::pending(FrameNumber(0), 18), EntryStatus::OutOfRange),
        expect(Command::Give, Entry::pending(FrameNumber((1 << 48) - 512), 9), EntryStatus::OutOfRange),
        expect(Command::Give, Entry::pending(image, 9), EntryStatus::Protected),
        expect(Command::Give, Entry::pending(FrameNumber(0), 0), EntryStatus::Protected),
        expect(Command::Give, Entry::pending(own_page, 0), EntryStatus::Protected),
        // TAKE of what was never given, then a frame's whole journey.
        expect(Command::Take, Entry::pending(SPARE, 0), EntryStatus::NotGiven),
        expect(Command::Give, Entry::pending(SPARE, 0), EntryStatus::Done),
        expect(Command::Give, Entry::pending(SPARE, 0), EntryStatus::AlreadyGiven),
        expect(Command::Give, Entry::pending(FrameNumber(SPARE.0 & !511), 9), EntryStatus::AlreadyGiven),
        expect(Command::Take, Entry::pending(FrameNumber(SPARE.0 & !511), 9), EntryStatus::NotGiven),
        expect(Command::Take, Entry::pending(SPARE, 0), EntryStatus::Done),
        expect(Command::Take, Entry::pending(SPARE, 0), EntryStatus::NotGiven),
        twice_in_one_batch(),
        // Calls that are wrong as a whole.
        expect_status(page_address(), 0, Status::BadCount),
        expect_status(page_address(), CAPACITY as u64 + 1, Status::BadCount),
        expect_status(page_address(), u64::MAX, Status::BadCount),
        expect_status(page_address() + 8, 1, Status::BadPage),
        expect_status(MEMORY.address(), 1, Status::BadPage),
        expect_status(!4095, 1, Status::BadPage),
        call(0xae50_00ff, 0, 0).0 == Status::UnknownCommand.encode(),
        call(0, 0, 0).0 == Status::UnknownCommand.encode(),
        call(Command::Hello.encode(), 1, 0).0 == Status::AlreadyGreeted.encode(),
    ];
    if let Some(place) = done.iter().position(|is_done| !is_done) {
        log::error!("malformed batches: number {place} was not answered as it should be");
        return Outcome::Failure;
    }
    log::info!("malformed batches: ok");
    Outcome::Success
}

fn twice_in_one_batch() -> bool {
    let entry = Entry::pending(SPARE, 0);
    write(&[entry, entry]);
    let given = call(Command::Give.encode(), page_address(), 2).1;
    let statuses = [read(0).status, read(1).status];
    given == 1
        && statuses == [EntryStatus::Done, EntryStatus::AlreadyGiven]
        && expect(Command::Take, entry, EntryStatus::Done)
}

fn expect(command: Command, entry: Entry, status: EntryStatus) -> bool {
    write(&[entry]);
    let (answer, _) = call(command.encode(), page_address(), 1);
    let result = read(0);
    if answer != Status::Ok.encode() || result != (Entry { status, ..entry }) {
        log::error!("{command:?} {entry:?}: status {answer}, {result:?}");
        return false;
    }
    true
}

fn expect_status(page: u64, count: u64, status: Status) -> bool {
    call(Command::Give.encode(), page, count).0 == status.encode()
        && call(Command::Take.encode(), page, count).0 == status.encode()
}

fn page_address() -> u64 {
    PAGE.0.get().expose_provenance() as u64
}

fn write(entries: &[Entry]) {
    let mut words = [0; CAPACITY];
    for (word, entry) in words.iter_mut().zip(entries) {
        *word = entry.encode();
    }
    // SAFETY: the page is used by this thread and, during a call, by the monitor.
    unsafe { PAGE.0.get().write_volatile(words) };
}

fn read(place: usize) -> Entry {
    // SAFETY: as in `write`.
    let words = unsafe { PAGE.0.get().read_volatile() };
    Entry::decode(words[place])
}

/// A call through the balloon port: status and result.
fn call(command: u64, argument: u64, second: u64) -> (u64, u64) {
    let (mut status, mut result) = (command, argument);
    // SAFETY: the monitor changes the four registers and the batch page.
    unsafe {
        asm!("out dx, eax", in("dx") PORT, inout("rax") status, inout("rdi") result, inout("rsi") second => _, inout("r8") 0_u64 => _);
    }
    (status, result)
}
