//! Tests a disk behind its queue with valid and invalid requests.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use proptest::prelude::{Just, Strategy, any, prop, proptest};
use proptest::{prop_assert, prop_oneof};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{AdaptivePoll, serve};
use crate::virtio::block::Disk;
use crate::virtio::device::QueueIndex;
use crate::virtio::state::{State, status};
use crate::virtio::test_driver::{
    DATA, DISCARD, Descriptor, Driver, FLUSH, GET_ID, HEADER, IN, NEXT, OUT, SETUP, SIZE, STATUS, WRITE,
};
use aerostat_link::disk::{DiskFaults, DiskMode, DiskRole, OpenDisk, Sectors};

/// `VIRTIO_BLK_F_FLUSH`.
const FLUSH_FEATURE: u64 = 1 << 9;
/// The only queue of a disk.
const QUEUE: QueueIndex = QueueIndex(0);
const SECTORS: u64 = 256;
const MEMORY: usize = 0x1_0000;

struct Bench {
    memory: GuestMemoryMmap,
    state: State,
    disk: Disk,
    file: File,
}

impl Bench {
    fn new(mode: DiskMode, faults: DiskFaults) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY), (GuestAddress(0x2_0000), MEMORY)]);
        let file = tempfile::tempfile().unwrap();
        let contents: Vec<u8> = (0..SECTORS * 512).map(|at| (at / 512).to_le_bytes()[0]).collect();
        file.write_all_at(&contents, 0).unwrap();
        let disk = OpenDisk { role: DiskRole::Data, mode, faults, file: file.try_clone().unwrap() };
        let bench = Self {
            memory: memory.unwrap(),
            state: State::new(1, EventFd::new(EFD_NONBLOCK).unwrap()),
            disk: Disk::new(disk, None, crate::transfers::Transfers::default()).unwrap(),
            file,
        };
        bench.start();
        bench
    }

    fn writable() -> Self {
        Self::new(DiskMode::ReadWrite, DiskFaults::default())
    }

    fn start(&self) {
        self.state.start(&[SETUP], FLUSH_FEATURE, &[256], &self.memory);
    }

    fn serve(&mut self) {
        serve(&self.disk, QUEUE, (&self.state, &self.memory), &mut AdaptivePoll::default());
    }

    /// Serves one request; returns its status byte and the bytes written.
    fn run(&mut self, driver: &mut Driver<'_>, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> (u8, u32) {
        driver.request(kind, sector, data);
        self.serve();
        let (_, written) = driver.finished().expect("the request is finished");
        (driver.status(), written)
    }

    fn sector(&self, sector: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        self.file.read_exact_at(&mut bytes, sector * 512).unwrap();
        bytes
    }

    /// Returns the interrupts raised since the last call.
    fn interrupts(&self) -> u64 {
        self.state.interrupt().read().unwrap_or(0)
    }
}

/// Runs `test` with a bench and a driver of its memory.
fn with_driver(mut bench: Bench, test: impl FnOnce(&mut Bench, &mut Driver<'_>)) {
    let memory = bench.memory.clone();
    test(&mut bench, &mut Driver::new(&memory));
}

#[test]
fn requests_do_what_they_say() {
    with_driver(Bench::writable(), |bench, driver| {
        assert_eq!(bench.run(driver, IN, 7, &[(DATA, 1024, WRITE)]), (0, 1025));
        assert_eq!(driver.get(DATA, 1024), [[7; 512], [8; 512]].concat());

        driver.put(DATA, &[0xaa; 1024]);
        let scattered = [(DATA, 100, 0), (DATA + 100, 512, 0), (DATA + 612, 412, 0)];
        assert_eq!(bench.run(driver, OUT, 254, &scattered), (0, 1));
        assert_eq!((bench.sector(253), bench.sector(255)), (vec![253; 512], vec![0xaa; 512]));

        assert_eq!(bench.run(driver, FLUSH, 0, &[]), (0, 1));
        assert_eq!(bench.run(driver, GET_ID, 0, &[(DATA, 20, WRITE)]), (0, 21));
        assert_eq!(driver.get(DATA, 20), b"data\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!((bench.interrupts(), bench.state.interrupts(), bench.state.status()), (4, 1, 0));
    });
}

#[test]
fn the_framing_of_a_request_does_not_matter() {
    with_driver(Bench::writable(), |bench, driver| {
        // The header in three parts, the last of them with data; the status byte at the end of a
        // part of data.
        driver.put(HEADER, &[1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        driver.put(HEADER + 16, &[0xbb; 512]);
        driver.offer_parts(&[(HEADER, 1, 0), (HEADER + 1, 8, 0), (HEADER + 9, 7 + 512, 0), (STATUS, 1, WRITE)]);
        driver.put(HEADER + 0x800, &[0; 16]);
        driver.offer_parts(&[(HEADER + 0x800, 16, 0), (DATA, 513, WRITE)]);
        bench.serve();
        assert_eq!((driver.finished(), driver.finished()), (Some((0, 1)), Some((4, 513))));
        assert_eq!((bench.sector(3), driver.get(DATA, 513)), (vec![0xbb; 512], vec![0; 513]));
    });
}

#[test]
fn discarded_sectors_are_holes() {
    with_driver(Bench::writable(), |bench, driver| {
        let blocks = bench.file.metadata().unwrap().blocks();
        driver.put(DATA, &[0; 16]);
        driver.put(DATA + 8, &64_u32.to_le_bytes());
        driver.put(DATA + 16, &128_u64.to_le_bytes());
        driver.put(DATA + 24, &[8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bench.run(driver, DISCARD, 0, &[(DATA, 32, 0)]), (0, 1));
        assert_eq!(
            (bench.sector(63), bench.sector(64), bench.sector(128)),
            (vec![0; 512], vec![64; 512], vec![0; 512])
        );
        assert!(bench.file.metadata().unwrap().blocks() < blocks, "the host's disk has the space again");

        // One range behind the disk's end, and nothing is done.
        driver.put(DATA, &200_u64.to_le_bytes());
        driver.put(DATA + 16, &250_u64.to_le_bytes());
        assert_eq!(bench.run(driver, DISCARD, 0, &[(DATA, 32, 0)]), (1, 1));
        assert_eq!(bench.sector(200), [200; 512]);
    });
}

#[test]
fn refusals_cost_the_request_only() {
    with_driver(Bench::new(DiskMode::ReadOnly, DiskFaults::default()), |bench, driver| {
        let too_far = (DATA, 1024, WRITE);
        assert_eq!(bench.run(driver, IN, SECTORS - 1, &[too_far]), (1, 0));
        assert_eq!(bench.run(driver, IN, u64::MAX, &[too_far]), (1, 0));
        assert_eq!(bench.run(driver, IN, 0, &[(DATA, 100, WRITE)]), (1, 0));
        assert_eq!(bench.run(driver, OUT, 0, &[(DATA, 512, 0)]), (1, 1));
        assert_eq!(bench.run(driver, DISCARD, 0, &[(DATA, 16, 0)]), (1, 1));
        assert_eq!(bench.run(driver, 77, 0, &[]), (2, 1));
        assert_eq!(bench.run(driver, IN, 1, &[(DATA, 512, WRITE)]), (0, 513));
        assert_eq!((bench.sector(0), bench.state.complaint()), (vec![0; 512], None));
    });
}

#[test]
fn a_disk_that_shrank_fails_beyond_its_end() {
    with_driver(Bench::writable(), |bench, driver| {
        bench.file.set_len(10 * 512).unwrap();
        assert_eq!(bench.run(driver, IN, 9, &[(DATA, 1024, WRITE)]), (1, 512));
        assert_eq!(driver.get(DATA, 512), [9; 512]);
    });
}

#[test]
fn faults_hit_in_the_middle_of_a_request() {
    let faults = DiskFaults {
        read_errors: vec![Sectors { first: 5, count: 1 }],
        write_errors: vec![Sectors { first: 20, count: 1 }],
        full_after_bytes: Some(2048),
    };
    with_driver(Bench::new(DiskMode::ReadWrite, faults), |bench, driver| {
        let parts = |flags| [(DATA, 512, flags), (DATA + 512, 512, flags), (DATA + 1024, 512, flags)];
        driver.put(DATA, &[0xee; 1536]);
        assert_eq!(bench.run(driver, IN, 4, &parts(WRITE)), (1, 512));
        assert_eq!(driver.get(DATA, 1536), [[4; 512], [0xee; 512], [0xee; 512]].concat());
        driver.put(DATA, &[0xee; 1536]);
        assert_eq!(bench.run(driver, OUT, 19, &parts(0)), (1, 1));
        assert_eq!((bench.sector(19), bench.sector(20)), (vec![0xee; 512], vec![20; 512]));
        assert_eq!(bench.run(driver, OUT, 40, &parts(0)), (0, 1));
        assert_eq!(bench.run(driver, OUT, 50, &parts(0)), (1, 1), "the host's disk is full");
        assert_eq!(bench.run(driver, IN, 40, &parts(WRITE)), (0, 1537), "and can still be read");
    });
}

#[test]
fn a_driver_that_polls_is_not_interrupted() {
    with_driver(Bench::writable(), |bench, driver| {
        driver.set_flags(1);
        assert_eq!(bench.run(driver, IN, 0, &[(DATA, 512, WRITE)]), (0, 513));
        assert_eq!(bench.interrupts(), 0);
        driver.set_flags(0);
        bench.run(driver, IN, 0, &[(DATA, 512, WRITE)]);
        assert_eq!(bench.interrupts(), 1);
    });
}

#[test]
fn a_full_ring_is_announced_in_few_interrupts() {
    with_driver(Bench::writable(), |bench, driver| {
        // One chain, made available as often as the ring allows.
        driver.request(IN, 0, &[(DATA, 512, WRITE)]);
        for _ in 1..SIZE {
            driver.offer(0);
        }
        bench.serve();
        assert_eq!((0..SIZE).filter_map(|_| driver.finished()).count(), usize::from(SIZE));
        assert_eq!(bench.interrupts(), 1);
    });
}

/// Makes an invalid chain available; checks that the device stops for this reason, and works again
/// after a reset.
#[track_caller]
fn expect_stop(why: &str, break_it: impl FnOnce(&mut Driver<'_>)) {
    with_driver(Bench::writable(), |bench, driver| {
        break_it(driver);
        bench.serve();
        assert_eq!((bench.state.status(), bench.state.is_running(QUEUE)), (status::NEEDS_RESET, false));
        let complaint = bench.state.complaint().unwrap();
        assert!(complaint.contains(why), "{complaint}");
        assert_eq!((bench.interrupts(), bench.state.interrupts() & 2), (1, 2), "the driver is told");
        assert_eq!(driver.finished(), None);
        driver.request(IN, 0, &[(DATA, 512, WRITE)]);
        bench.serve();
        assert_eq!(driver.finished(), None, "a stopped device does nothing");

        bench.state.reset();
        bench.start();
        let mut driver = Driver::new(driver.memory);
        assert_eq!(bench.run(&mut driver, IN, 1, &[(DATA, 512, WRITE)]), (0, 513));
        assert_eq!((0..SECTORS).find(|&sector| bench.sector(sector) != [sector.to_le_bytes()[0]; 512]), None);
    });
}

#[test]
fn malformed_chains_stop_the_device() {
    let data = |address, bytes| move |driver: &mut Driver<'_>| driver.request(IN, 0, &[(address, bytes, WRITE)]);
    let chain = |flags, next| {
        move |driver: &mut Driver<'_>| {
            driver.put_descriptor(0, Descriptor { address: HEADER, bytes: 16, flags, next });
            driver.offer(0);
        }
    };
    expect_stop("not memory", data(MEMORY as u64 - 4, 512));
    expect_stop("not memory", data(0x1_0000, 512));
    expect_stop("not memory", data(1 << 40, 512));
    expect_stop("behind the last address", data(u64::MAX - 511, 512));
    expect_stop("not memory", data(DATA, u32::MAX - 100));
    expect_stop("does not end", data(DATA, u32::MAX));
    expect_stop("no bytes", data(DATA, 0));
    expect_stop("does not end", chain(NEXT, 0));
    expect_stop("does not end", chain(NEXT, SIZE));
    expect_stop("does not end", chain(NEXT, u16::MAX));
    expect_stop("too short", chain(0, 0));
    expect_stop("too short", chain(WRITE, 0));
    expect_stop("no bytes", chain(NEXT, 1));
    expect_stop("empty", |driver| driver.offer(SIZE));
    expect_stop("empty", |driver| driver.offer(u16::MAX));
    expect_stop("follows", |driver| {
        driver.offer_parts(&[(STATUS, 1, WRITE), (HEADER, 16, 0)]);
    });
    expect_stop("too short", |driver| {
        driver.offer_parts(&[(HEADER, 15, 0), (STATUS, 1, WRITE)]);
    });
    expect_stop("available ring index", |driver| driver.set_available(SIZE + 1));
    expect_stop("available ring index", |driver| driver.set_available(u16::MAX));
}

#[test]
fn long_indirect_chains_stop_the_device() {
    const INDIRECT: u16 = 4;
    expect_stop("too many parts", |driver| {
        let table = DATA;
        for index in 0..200_u64 {
            let rest = 16 | u64::from(NEXT) << 32 | (index + 1) << 48;
            driver.put(table + index * 16, &[HEADER.to_le_bytes(), rest.to_le_bytes()].concat());
        }
        driver.offer_parts(&[(table, 200 * 16, INDIRECT)]);
    });
}

#[test]
fn a_stopped_queue_is_left_alone() {
    with_driver(Bench::writable(), |bench, driver| {
        bench.state.stop_queue(QUEUE);
        driver.request(IN, 0, &[(DATA, 512, WRITE)]);
        bench.serve();
        assert_eq!((driver.finished(), bench.interrupts()), (None, 0));
    });
}

/// Generates a descriptor of a malicious guest: often plausible, sometimes arbitrary.
fn descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![
        6 => (0_u64..0xe000).prop_map(|offset| DATA + offset),
        1 => Just(HEADER),
        1 => 0x1_0000_u64..0x4_0000,
        1 => any::<u64>(),
    ];
    let bytes = prop_oneof![3 => Just(16_u32), 3 => Just(512), 3 => Just(1), 2 => 0_u32..0x2000, 1 => any::<u32>()];
    let flags =
        prop_oneof![3 => Just(NEXT), 3 => Just(NEXT | WRITE), 3 => Just(WRITE), 1 => 0_u16..8, 1 => any::<u16>()];
    let next = prop_oneof![9 => 0_u16..SIZE, 1 => any::<u16>()];
    (address, bytes, flags, next).prop_map(|(address, bytes, flags, next)| Descriptor { address, bytes, flags, next })
}

/// Generates a table of descriptors that is arbitrary, or holds a request in every three with one
/// of its descriptors replaced.
fn table() -> impl Strategy<Value = Vec<Descriptor>> {
    let anything = prop::collection::vec(descriptor(), usize::from(SIZE));
    let data = (0_u64..0x8000, 0_u32..4, prop_oneof![Just(NEXT), Just(NEXT | WRITE)]);
    let nearly_right = (prop::collection::vec(data, 5), 0_usize..30, descriptor()).prop_map(|(data, place, other)| {
        let mut table: Vec<_> = (0_u16..)
            .step_by(3)
            .zip(data)
            .flat_map(|(head, (offset, sectors, flags))| {
                [
                    Descriptor { address: HEADER, bytes: 16, flags: NEXT, next: head + 1 },
                    Descriptor { address: DATA + offset, bytes: sectors * 512 + 16, flags, next: head + 2 },
                    Descriptor { address: STATUS, bytes: 1, flags: WRITE, next: 0 },
                ]
            })
            .collect();
        for data in table.iter_mut().skip(1).step_by(3).filter(|data| data.bytes > 16) {
            data.bytes -= 16;
        }
        table.push(other);
        if let Some(replaced) = table.get_mut(place) {
            *replaced = other;
        }
        table
    });
    prop_oneof![1 => anything, 3 => nearly_right]
}

/// Generates the head of one of the chains in a [`table`], or of none.
fn head() -> impl Strategy<Value = u16> {
    prop_oneof![9 => (0_u16..5).prop_map(|chain| chain * 3), 1 => 0_u16..SIZE + 2]
}

/// Returns where two memories differ.
fn differences(old: &[u8], new: &[u8]) -> impl Iterator<Item = u64> {
    const LINE: usize = 512;
    let lines = (0_u64..).step_by(LINE).zip(old.chunks(LINE).zip(new.chunks(LINE)));
    lines.filter(|(_, (old, new))| old != new).flat_map(|(start, (old, new))| {
        (start..).zip(old.iter().zip(new)).filter(|(_, (old, new))| old != new).map(|(offset, _)| offset)
    })
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(1000))]
    #[test]
    fn hostile_queues_touch_only_what_they_name(
        descriptors in table(),
        heads in prop::collection::vec(head(), 0..usize::from(SIZE)),
        kind in prop_oneof![Just(IN), Just(OUT), Just(FLUSH), Just(GET_ID), Just(DISCARD), any::<u32>()],
        sector in prop_oneof![4 => 0..SECTORS, 1 => any::<u64>()],
        jump in prop_oneof![9 => Just(0_u16), 1 => any::<u16>()],
    ) {
        let mut bench = Bench::writable();
        let memory = bench.memory.clone();
        let mut driver = Driver::new(&memory);
        driver.put(HEADER, &[u64::from(kind).to_le_bytes(), sector.to_le_bytes()].concat());
        for (index, descriptor) in (0..).zip(&descriptors) {
            driver.put_descriptor(index, *descriptor);
        }
        for head in &heads {
            driver.offer(*head);
        }
        driver.set_available(u16::try_from(heads.len()).unwrap().wrapping_add(jump));
        // Indirect descriptors reach descriptors that are not in the table: all of them come from
        // memory that is zero, and name nothing.
        let all = |memory: &GuestMemoryMmap| {
            let driver = Driver::untouched(memory);
            [driver.get(0, MEMORY), driver.get(0x2_0000, MEMORY)]
        };
        let before = all(&memory);
        bench.serve();

        let after = all(&memory);
        let used = SETUP.device_ring..SETUP.device_ring + 6 + 8 * u64::from(SIZE);
        for (region, start) in [(0, 0), (1, 0x2_0000_u64)] {
            for address in differences(&before[region], &after[region]).map(|offset| start + offset) {
                let may_change = used.contains(&address) || descriptors.iter().any(|part| {
                    let place = address.checked_sub(part.address);
                    part.flags & WRITE != 0 && place.is_some_and(|place| place < u64::from(part.bytes))
                });
                prop_assert!(may_change, "{address:#x} changed");
            }
        }
        prop_assert!(bench.file.metadata().unwrap().len() == SECTORS * 512, "the disk keeps its size");
        let finished = (0..=SIZE).filter_map(|_| driver.finished()).count();
        prop_assert!(finished <= heads.len().max(usize::from(SIZE)));
        prop_assert!(bench.state.is_running(QUEUE) || bench.state.status() == status::NEEDS_RESET);
    }
}
