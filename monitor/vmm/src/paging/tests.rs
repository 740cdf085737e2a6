//! Moves memory that threads of the test use as a guest would. They run without KVM; accesses are
//! served in the same way.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use aerostat_abi::units::{FRAME_SIZE, FrameCount, HUGE_FRAMES, HUGE_SIZE, to_usize};
use aerostat_link::SharedPage;
use aerostat_link::disk::{DiskFaults, Sectors};
use aerostat_link::message::StartHostSwap;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestRunner};
use proptest::{prop_assert_eq, prop_oneof};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::mm::Advice;

use super::area::Area;
use super::fault_service::FaultService;
use super::frame_mask::FrameMask;
use super::mover::{Departure, Paging};
use crate::host_files::MemoryFiles;
use crate::layout::{GuestAddress, MemoryLayout};
use crate::lock::lock;
use crate::memory::GuestMemory;
use crate::page_sizes::HugeIndex;
use crate::release::Releaser;
use crate::resident::ResidentMeter;
use crate::shared_registers::SharedRegisters;

const MIB: u64 = 16;
const HUGE: usize = to_usize(HUGE_FRAMES);
const HUGE_COUNT: usize = to_usize(MIB) / 2;
const WORDS: usize = FRAME_SIZE / 8;

/// Memory that is paged, without a machine.
struct Bench {
    memory: Arc<GuestMemory>,
    paging: Arc<Paging>,
    staging: Area,
    releaser: Releaser,
    registers: Arc<SharedRegisters>,
}

impl Bench {
    /// Returns `None` where this host can't page.
    fn new(faults: DiskFaults) -> Option<Self> {
        let file = direct_file(MIB << 20)?;
        let memory = Arc::new(GuestMemory::new(MemoryLayout::new(FrameCount::from_mib(MIB)).unwrap()).unwrap());
        let registers = Arc::new(SharedRegisters::new(SharedPage::create(FrameCount::from_mib(MIB)).unwrap().0));
        let work_left = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let host_swap = StartHostSwap { faults };
        let made = super::Userfault::new().and_then(|userfault| {
            Paging::new(Arc::clone(&memory), Arc::clone(&registers), (&host_swap, file.into(), userfault), work_left)
        });
        let paging = match made {
            Ok(paging) => Arc::new(paging),
            Err(error) => {
                eprintln!("skipped: {error}");
                return None;
            }
        };
        paging.map_cache().unwrap();
        let service =
            FaultService::new(Arc::clone(&paging), Arc::new(ResidentMeter::new(MemoryFiles::open().unwrap()).unwrap()))
                .unwrap();
        thread::spawn(move || service.run());
        let staging = Area::new(1, Advice::LinuxHugepage).unwrap();
        Some(Self { memory, paging, staging, releaser: Releaser::new(), registers })
    }

    fn address(frame: usize) -> GuestAddress {
        GuestAddress((frame * FRAME_SIZE) as u64)
    }

    fn write(&self, frame: usize, contents: Contents) {
        self.memory.write_words(Self::address(frame), &contents.words()).unwrap();
    }

    fn read(&self, frame: usize) -> Vec<u64> {
        let mut words = vec![0; WORDS];
        self.memory.read_words(Self::address(frame), &mut words).unwrap();
        words
    }

    /// Does what the balloon device does with frames that are inflated.
    fn inflate(&self, frames: Range<usize>) {
        self.paging.forget([&frames].into_iter());
        assert_eq!(self.releaser.release(&self.memory, &[frames]), 1);
    }

    fn move_out(&self, huge: usize) -> Departure {
        self.paging.move_out(HugeIndex(huge), FrameMask::ALL)
    }

    fn bring_next(&self, from: usize) {
        if let Some(next) = self.paging.begin_next_read(HugeIndex(from)) {
            self.paging.bring_in(&next, &self.staging).unwrap();
        }
    }

    fn out(&self) -> FrameCount {
        self.registers.page().facts().paging.unwrap().out
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Zero,
    Filled(u64),
    Counted(u64),
}

impl Contents {
    fn words(self) -> Vec<u64> {
        match self {
            Self::Zero => vec![0; WORDS],
            Self::Filled(word) => vec![word; WORDS],
            Self::Counted(first) => (0..WORDS as u64).map(|place| first.wrapping_add(place)).collect(),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Range<usize>, Contents),
    Read(usize),
    MoveOut(usize),
    WriteOldest,
    BringNext(usize),
    EmptyCache,
    Inflate(Range<usize>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let frames = || {
        (0..HUGE_COUNT * HUGE, 1_usize..700).prop_map(|(first, count)| first..(first + count).min(HUGE_COUNT * HUGE))
    };
    let contents = prop_oneof![
        1 => (0_u64..1).prop_map(|_| Contents::Zero),
        1 => any::<u64>().prop_map(Contents::Filled),
        3 => any::<u64>().prop_map(Contents::Counted),
    ];
    let step = prop_oneof![
        4 => (frames(), contents).prop_map(|(frames, contents)| Step::Write(frames, contents)),
        4 => (0..HUGE_COUNT * HUGE).prop_map(Step::Read),
        6 => (0..HUGE_COUNT).prop_map(Step::MoveOut),
        5 => (0_u8..1).prop_map(|_| Step::WriteOldest),
        2 => (0..HUGE_COUNT).prop_map(Step::BringNext),
        1 => (0_u8..1).prop_map(|_| Step::EmptyCache),
        2 => frames().prop_map(Step::Inflate),
    ];
    vec(step, 1..60)
}

/// Whatever moves when, memory holds what was written last, and zeros where it was inflated.
#[test]
fn contents_are_never_lost() {
    let Some(bench) = Bench::new(DiskFaults::default()) else { return };
    let everything = 0..HUGE_COUNT * HUGE;
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&steps(), |steps| {
        bench.inflate(everything.clone());
        prop_assert_eq!(bench.out(), FrameCount::ZERO);
        let mut model = vec![Contents::Zero; everything.len()];
        for step in steps {
            match step {
                Step::Write(frames, contents) => {
                    for frame in frames {
                        bench.write(frame, contents);
                        model[frame] = contents;
                    }
                }
                Step::Read(frame) => prop_assert_eq!(bench.read(frame), model[frame].words()),
                Step::MoveOut(huge) => {
                    bench.move_out(huge);
                }
                Step::WriteOldest => {
                    bench.paging.write_oldest().unwrap();
                }
                Step::BringNext(from) => bench.bring_next(from),
                Step::EmptyCache => bench.paging.empty_cache(),
                Step::Inflate(frames) => {
                    bench.inflate(frames.clone());
                    model[frames].fill(Contents::Zero);
                }
            }
        }
        for (frame, contents) in model.iter().enumerate() {
            prop_assert_eq!(bench.read(frame), contents.words(), "frame {}", frame);
        }
        Ok(())
    });
    result.unwrap();
    assert!(bench.paging.failure().is_none());
}

/// Threads count in memory while all of it moves; no count is lost.
#[test]
fn no_write_is_lost_on_the_way() {
    const THREADS: usize = 3;
    let Some(bench) = Bench::new(DiskFaults::default()) else { return };
    let is_over = AtomicBool::new(false);
    let counts: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    let word = |thread: usize, frame: usize| {
        let address = GuestAddress((frame * FRAME_SIZE + 64 * thread) as u64);
        bench.memory.shared_word(address).unwrap();
        bench.memory.host_address(frame * FRAME_SIZE + 64 * thread).cast::<u64>()
    };
    thread::scope(|scope| {
        for (thread, count) in counts.iter().enumerate() {
            let (word, is_over) = (&word, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    for frame in (0..HUGE_COUNT * HUGE).step_by(61) {
                        let place = word(thread, frame);
                        // SAFETY: mapped, aligned, and this thread's alone.
                        let count = unsafe { place.read_volatile() };
                        // SAFETY: as above.
                        unsafe { place.write_volatile(count + 1) };
                    }
                    count.fetch_add(1, Ordering::Release);
                    // Long enough for some to be written before they are touched.
                    thread::sleep(Duration::from_millis(3));
                }
            });
        }
        let mut at = 0;
        while counts.iter().any(|count| count.load(Ordering::Acquire) < 40) {
            at = (at * 5 + 3) % HUGE_COUNT;
            bench.move_out(at);
            bench.paging.write_oldest().unwrap();
            if at == 5 {
                bench.bring_next(0);
            }
        }
        is_over.store(true, Ordering::Release);
    });
    for (thread, count) in counts.iter().enumerate() {
        for frame in (0..HUGE_COUNT * HUGE).step_by(61) {
            // SAFETY: mapped and aligned, and no thread writes any more.
            let found = unsafe { word(thread, frame).read_volatile() };
            assert_eq!(found, count.load(Ordering::Acquire), "thread {thread}, frame {frame}");
        }
    }
    assert!(bench.registers.page().facts().paging.unwrap().all_in > FrameCount::ZERO);
}

/// A device reads into memory while it moves, past the page cache.
#[test]
fn what_a_device_reads_arrives() {
    let Some(bench) = Bench::new(DiskFaults::default()) else { return };
    let Some(disk) = direct_file(HUGE_SIZE as u64) else { return };
    let mut contents = vec![0_u8; HUGE_SIZE];
    let is_over = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..60_u8 {
                contents.fill(round);
                write_all(&disk, &contents);
                let target = bench.memory.host_address(usize::from(round) % HUGE_COUNT * HUGE_SIZE);
                {
                    let _in_progress = bench.memory.transfers().begin();
                    // SAFETY: a huge frame of mapped memory, to which there are no references.
                    let read = unsafe { libc::pread(disk.as_raw_fd(), target.cast(), HUGE_SIZE, 0) };
                    assert_eq!(read, HUGE_SIZE as isize);
                }
                // SAFETY: mapped; nothing writes there but this thread.
                let wrong = (0..HUGE_SIZE)
                    .step_by(512)
                    .filter(|&at| unsafe { target.wrapping_add(at).read_volatile() } != round);
                lock(&results).push(wrong.count());
            }
            is_over.store(true, Ordering::Release);
        });
        let mut at = 0;
        while !is_over.load(Ordering::Acquire) {
            at = (at + 1) % HUGE_COUNT;
            {
                let _no_transfer = bench.memory.transfers().hold();
                bench.move_out(at);
            }
            bench.paging.write_oldest().unwrap();
        }
    });
    assert_eq!(lock(&results).as_slice(), [0; 60]);
}

/// A file that can't be written, or is full, costs no contents.
#[test]
fn what_can_t_be_written_stays() {
    let bad = |first| Sectors { first, count: 1 };
    for faults in [
        DiskFaults { write_errors: vec![bad(HUGE_SIZE as u64 / 512 + 77)], ..DiskFaults::default() },
        DiskFaults { full_after_bytes: Some(HUGE_SIZE as u64 + 4096), ..DiskFaults::default() },
    ] {
        let Some(bench) = Bench::new(faults) else { return };
        let frames = 0..2 * HUGE;
        frames.clone().for_each(|frame| bench.write(frame, Contents::Counted(frame as u64)));
        for (huge, works) in [(0, true), (1, false)] {
            assert_eq!(bench.move_out(huge), Departure::Left);
            assert_eq!(bench.paging.write_oldest().is_ok(), works, "huge frame {huge}");
        }
        assert_eq!(bench.out(), FrameCount(HUGE_FRAMES));
        for frame in frames {
            assert_eq!(bench.read(frame), Contents::Counted(frame as u64).words());
        }
        assert_eq!(bench.out(), FrameCount::ZERO);
    }
}

/// A file that can't be read ends the guest instead of giving it other contents.
#[test]
fn what_can_t_be_read_ends_the_guest() {
    let faults = DiskFaults { read_errors: vec![Sectors { first: 0, count: 8 }], ..DiskFaults::default() };
    let Some(bench) = Bench::new(faults) else { return };
    bench.write(0, Contents::Counted(1));
    assert_eq!(bench.move_out(0), Departure::Left);
    bench.paging.write_oldest().unwrap();
    // This thread waits for ever; it is not joined.
    let memory = Arc::clone(&bench.memory);
    thread::spawn(move || memory.read_words(GuestAddress(0), &mut [0]));
    while bench.paging.failure().is_none() {
        thread::yield_now();
    }
}

/// Physical memory falls, and so does what a meter sees; both come back.
#[test]
fn memory_that_is_out_is_not_resident() {
    let Some(bench) = Bench::new(DiskFaults::default()) else { return };
    for frame in 0..HUGE_COUNT * HUGE {
        bench.write(frame, Contents::Counted(frame as u64));
    }
    for huge in 0..HUGE_COUNT {
        assert_eq!(bench.move_out(huge), Departure::Left);
        assert!(bench.paging.write_oldest().unwrap());
        assert!(!bench.memory.is_any_resident(&HugeIndex(huge).frames()));
    }
    assert_eq!((bench.out(), bench.paging.cached()), (FrameCount::from_mib(MIB), 0));
    (0..HUGE_COUNT).for_each(|huge| bench.bring_next(huge));
    assert_eq!(bench.out(), FrameCount::ZERO);
    assert!(bench.memory.is_resident(&(0..HUGE_COUNT * HUGE)));
    assert!(bench.paging.end_use() && !bench.paging.is_in_use());
}

fn direct_file(bytes: u64) -> Option<File> {
    let file = tempfile::tempfile_in("/var/tmp").unwrap();
    file.set_len(bytes).unwrap();
    fcntl_setfl(&file, fcntl_getfl(&file).unwrap() | OFlags::DIRECT).ok().map(|()| file)
}

fn write_all(file: &File, bytes: &[u8]) {
    let aligned = Area::new(1, Advice::LinuxHugepage).unwrap();
    let start = aligned.frame(super::area::Slot(0), 0);
    // SAFETY: the area is new, and as large as a huge frame.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
    // SAFETY: as above.
    let written = unsafe { libc::pwrite(file.as_raw_fd(), start.cast(), bytes.len(), 0) };
    assert_eq!(written, bytes.len() as isize);
}
