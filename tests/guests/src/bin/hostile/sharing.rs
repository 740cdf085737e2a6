//! Shares words at invalid addresses, and words that lie and change while the monitor reads them.

use core::ptr;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::frame_state::HugeFrameState;
use aerostat_abi::port::{Command, Features, Hello, Registers, Status, VERSION};
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HUGE_ORDER, to_usize};

use crate::{SPARE, Wrong, expect, port};

/// The number of words of a machine of 64 MiB.
const WORDS: u64 = 32;
/// Their address: the second page of the last huge frame.
const AT: u64 = (62 << 20) + 4096;
/// Rounds between two calls of LIST.
const ROUNDS: u32 = 2000;

pub(crate) fn ask_for_nonsense() -> Result<(), Wrong> {
    begin(Features(!0))?;
    let share = |address, count| port::call(Command::Share, address, count);
    for count in [0, 1, WORDS - 1, WORDS + 1, 1 << 32, u64::MAX] {
        expect(share(AT, count) == Some(Status::BadCount), "SHARE accepted a wrong number of words")?;
    }
    expect(port::batch(Command::Inflate, [Entry::pending(SPARE.start, 0)]).1 == 1, "INFLATE was refused")?;
    let ballooned = SPARE.start.address();
    for address in [
        AT + 1,
        AT + 2,
        ballooned,
        ballooned - 64,
        SPARE.end.address() - 4,
        SPARE.end.address(),
        3 << 30,
        0xd000_0000,
        !3,
    ] {
        expect(share(address, WORDS) == Some(Status::BadPage), "SHARE accepted words that are not the guest's")?;
    }
    expect(share(AT, WORDS) == Some(Status::Ok), "SHARE was refused")?;
    for entry in [Entry::pending(FrameNumber::containing(AT), 0), Entry::pending(FrameNumber(62 << 8), HUGE_ORDER)] {
        let [answer] = port::batch(Command::Inflate, [entry]).2;
        expect(answer.status == EntryStatus::Protected, "shared words could be inflated")?;
    }
    expect(share(AT + 8192, WORDS) == Some(Status::Ok), "SHARE was refused a second time")?;
    let [answer] = port::batch(Command::Inflate, [Entry::pending(FrameNumber::containing(AT), 0)]).2;
    expect(answer.status == EntryStatus::Done, "words that are not shared any more are still protected")?;
    begin(Features(0))?;
    expect(share(AT, WORDS) == Some(Status::UnknownCommand), "SHARE was accepted without its feature")
}

/// Offers valid and invalid huge frames and withdraws them, again and again, until the guest has
/// reached its target, which the test lowers. Withdraws all of them then.
pub(crate) fn flicker() -> Result<(), Wrong> {
    begin(Features::OFFERS)?;
    // Ballooned in part and as a whole: offers of these are lies.
    let lies = [Entry::pending(SPARE.start, 0), Entry::pending(FrameNumber(SPARE.start.0 + HUGE_FRAMES), HUGE_ORDER)];
    expect(port::batch(Command::Inflate, lies).1 == 1 + HUGE_FRAMES, "INFLATE was refused")?;
    expect(port::call(Command::Share, AT, WORDS) == Some(Status::Ok), "SHARE was refused")?;
    log::info!("hostile: flickers");
    let ballooned = loop {
        for round in 0..ROUNDS {
            for huge in 0..WORDS {
                let is_spare = (SPARE.start.0 / HUGE_FRAMES..WORDS).contains(&huge);
                // Protected memory in use is offered too: boot information, the image, the words.
                let is_offered = is_spare || huge < 2;
                let state = HugeFrameState(round.rotate_left(16)).with_backing();
                put(huge, if is_offered && round % 3 > 0 { state.with_offer() } else { state.without_offer() });
            }
        }
        let target = port::raw_call(Registers { rax: Command::GetTarget.encode(), ..Registers::default() }).rsi;
        let ballooned = ballooned()?;
        if SPARE.end.0 - ballooned <= target + HUGE_FRAMES && target < SPARE.end.0 {
            break ballooned;
        }
    };
    (0..WORDS).for_each(|huge| put(huge, HugeFrameState::default()));
    expect(ballooned > HUGE_FRAMES, "the balloon has lost frames")?;
    let [first, second] = port::batch(Command::Inflate, lies).2;
    let is_ballooned = first.status == EntryStatus::AlreadyBallooned && second.status == EntryStatus::AlreadyBallooned;
    expect(is_ballooned, "ballooned and offered frames could be inflated again")
}

/// Begins a new session. The guest's driver does not run any more.
fn begin(features: Features) -> Result<(), Wrong> {
    port::mask_upcalls();
    port::call(Command::Reset, 0, 0);
    let hello = Hello { version: VERSION, features, floor: FrameCount::ZERO, vector: 0 };
    expect(Status::decode(port::raw_call(hello.encode()).rax) == Some(Status::Ok), "HELLO was refused")
}

/// Returns the number of frames in the balloon, by LIST.
fn ballooned() -> Result<u64, Wrong> {
    let list = Registers { rax: Command::List.encode(), rdi: port::page(), rsi: 0, r8: 0 };
    let reply = port::raw_call(list);
    expect(Status::decode(reply.rax) == Some(Status::Ok) && reply.r8 == 0, "LIST was refused")?;
    Ok((0..to_usize(reply.rdi)).map(|index| Entry::decode(port::read(index)).count().0).sum())
}

fn put(huge: u64, state: HugeFrameState) {
    let word = ptr::with_exposed_provenance_mut::<u32>(to_usize(AT + 4 * huge));
    // SAFETY: memory of this guest, mapped at its own address, that the kernel has not used yet. A
    // driver would use compare-and-swap, which this guest deliberately does not.
    unsafe { word.write_volatile(state.0) };
}
