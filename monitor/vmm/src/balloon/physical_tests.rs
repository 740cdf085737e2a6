//! Which part of ballooned memory is really free on the host, by the charge of a control group,
//! which falls when pages are free. Each test runs in its own process, as a group counts whole
//! processes.

use std::env;
use std::ops::Range;
use std::process::Command as Process;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::port::Command;
use aerostat_abi::units::{FRAME_BYTES, FrameCount, HUGE_FRAMES};

use super::Balloon;
use super::tests::{Heard, batch, negotiated_whole};
use crate::huge_pages::SPLIT_IN_A_CALL;
use crate::layout::GuestAddress;
use crate::virtio::Workers;
use aerostat::host::cgroup::MemoryGroup;

const TOTAL: FrameCount = FrameCount::from_mib(256);
/// Huge frames of which a part is ballooned: those behind the boot information, the image and the
/// batch page.
const MIXED: Range<u64> = 2..TOTAL.0 / HUGE_FRAMES;
/// How far metrics may differ: charges are batched by processor.
const TOLERANCE: u64 = 4 << 20;
const IN_GROUP: &str = "AEROSTAT_TEST_IN_GROUP";

/// Returns the group where the test is to go on here, in a process of its own. Elsewhere runs the
/// test in such a process.
fn in_group(test: &str) -> Option<MemoryGroup> {
    if env::var_os(IN_GROUP).is_none() {
        let name = format!("balloon::physical_tests::{test}");
        let output = Process::new(env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture", "--test-threads=1"])
            .env(IN_GROUP, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return None;
    }
    let Ok(group) = MemoryGroup::create() else {
        println!("skipped: no memory control group can be made here");
        return None;
    };
    group.enter().unwrap();
    Some(group)
}

/// Creates a device whose guest has written its own number into every frame.
fn touched() -> Balloon<Heard> {
    let device = negotiated_whole(TOTAL);
    for frame in 0..TOTAL.0 {
        device.memory.write_words(GuestAddress(frame * FRAME_BYTES), &[frame]).unwrap();
    }
    device
}

/// Inflates what `is_ballooned` says of each mixed huge frame, by the frame's number in it.
fn inflate(device: &mut Balloon<Heard>, is_ballooned: impl Fn(u64) -> bool) {
    for huge in MIXED {
        let frames = (0..HUGE_FRAMES).filter(|&frame| is_ballooned(frame));
        let entries: Vec<_> = frames.map(|frame| (huge * HUGE_FRAMES + frame, 0)).collect();
        let (_, statuses) = batch(device, Command::Inflate, &entries);
        assert!(statuses.iter().all(|status| *status == EntryStatus::Done));
    }
}

/// Checks that the guest's frames of each mixed huge frame are unchanged.
fn check_kept(device: &Balloon<Heard>, is_ballooned: impl Fn(u64) -> bool) {
    for frame in MIXED.start * HUGE_FRAMES..MIXED.end * HUGE_FRAMES {
        let mut word = [0];
        device.memory.read_words(GuestAddress(frame * FRAME_BYTES), &mut word).unwrap();
        let expected = if is_ballooned(frame % HUGE_FRAMES) { 0 } else { frame };
        assert_eq!(word[0], expected, "frame {frame}");
    }
}

/// Inflates in one batch for each huge frame, and checks that as much becomes free.
fn check_release(group: &MemoryGroup, device: &mut Balloon<Heard>, is_ballooned: impl Fn(u64) -> bool) {
    let anonymous = || group.usage().unwrap().anonymous();
    let before = anonymous();
    inflate(device, &is_ballooned);
    let ballooned = (0..HUGE_FRAMES).filter(|&frame| is_ballooned(frame)).count() as u64 * FRAME_BYTES;
    let ballooned = ballooned * (MIXED.end - MIXED.start);
    let free = before.saturating_sub(anonymous());
    assert!(free.abs_diff(ballooned) <= TOLERANCE, "{} of {} KiB are free", free >> 10, ballooned >> 10);
}

#[test]
fn few_of_the_guests_frames_are_copied() {
    let Some(group) = in_group("few_of_the_guests_frames_are_copied") else { return };
    let is_ballooned = |frame| frame % 32 != 5;
    let mut device = touched();
    check_release(&group, &mut device, is_ballooned);
    check_kept(&device, is_ballooned);
}

#[test]
fn many_of_the_guests_frames_are_split_off() {
    let Some(group) = in_group("many_of_the_guests_frames_are_split_off") else { return };
    let is_ballooned = |frame| frame % 2 == 0;
    let mut device = touched();
    check_release(&group, &mut device, is_ballooned);
    check_kept(&device, is_ballooned);
}

#[test]
fn frames_inflated_gradually_are_free_each_time() {
    let Some(group) = in_group("frames_inflated_gradually_are_free_each_time") else { return };
    let mut device = touched();
    check_release(&group, &mut device, |frame| frame < 64);
    check_release(&group, &mut device, |frame| (64..400).contains(&frame));
    check_kept(&device, |frame| frame < 400);
    check_release(&group, &mut device, |frame| frame >= 400);
}

#[test]
fn a_device_at_work_changes_nothing() {
    let Some(group) = in_group("a_device_at_work_changes_nothing") else { return };
    let is_ballooned = |frame| frame != 7;
    let mut device = touched();
    device.host.workers = Workers::one_at_work();
    check_release(&group, &mut device, is_ballooned);
    check_kept(&device, is_ballooned);
}

#[test]
fn touched_ballooned_frames_can_be_released_after_a_part_was_deflated() {
    let name = "touched_ballooned_frames_can_be_released_after_a_part_was_deflated";
    let Some(group) = in_group(name) else { return };
    let mut device = negotiated_whole(TOTAL);
    let entries: Vec<_> = MIXED.map(|huge| (huge * HUGE_FRAMES, 9)).collect();
    batch(&mut device, Command::Inflate, &entries);
    let before = group.usage().unwrap().anonymous();
    for huge in MIXED {
        device.memory.write_words(GuestAddress(huge * HUGE_FRAMES * FRAME_BYTES), &[1]).unwrap();
    }
    let entries: Vec<_> = MIXED.map(|huge| (huge * HUGE_FRAMES, 0)).collect();
    batch(&mut device, Command::Deflate, &entries);
    let mut at = Some(0);
    while let Some(from) = at {
        at = device.reclaim_ballooned(from);
    }
    let held = group.usage().unwrap().anonymous().saturating_sub(before);
    assert!(held <= TOLERANCE, "{} KiB are held", held >> 10);
}

#[test]
fn a_call_that_names_many_huge_frames_leaves_splitting_to_the_main_thread() {
    let Some(group) = in_group("a_call_that_names_many_huge_frames_leaves_splitting_to_the_main_thread") else {
        return;
    };
    let mut device = touched();
    let size = device.registers.page().facts().size;
    let before = group.usage().unwrap().anonymous();
    let count = MIXED.end - MIXED.start;
    for part in 0..2_u64 {
        let entries: Vec<_> =
            MIXED.flat_map(|huge| [0, 1].map(|frame| (huge * HUGE_FRAMES + 2 * part + frame, 0))).collect();
        let (frames, _) = batch(&mut device, Command::Inflate, &entries);
        assert_eq!(frames, 2 * count);
    }
    assert_eq!(device.host.work_left, 1, "the second call names no huge frame for the first time");
    let facts = device.registers.page().facts();
    let not_free = (count - SPLIT_IN_A_CALL as u64) * 4;
    assert_eq!(size.0 - facts.size.0, 4 * count - not_free, "what is not free yet is size");
    assert_eq!((facts.inflated.0, facts.size.0 + facts.balloon.0), (4 * count, TOTAL.0));
    while device.split_left() {}
    assert_eq!(size.0 - device.registers.page().facts().size.0, 4 * count);
    // The rest of each huge frame: it would be held by what is left of the huge pages.
    let entries: Vec<_> =
        MIXED.flat_map(|huge| [8, 7, 6].map(|order| (huge * HUGE_FRAMES + (1 << order), order))).collect();
    for entries in entries.chunks(300) {
        batch(&mut device, Command::Inflate, entries);
    }
    let ballooned = count * (4 + 256 + 128 + 64) * FRAME_BYTES;
    let free = before.saturating_sub(group.usage().unwrap().anonymous());
    assert!(free.abs_diff(ballooned) <= TOLERANCE, "{} of {} KiB are free", free >> 10, ballooned >> 10);
    check_kept(&device, |frame| !(4..64).contains(&frame));
}

#[test]
fn page_tables_go_with_the_last_part() {
    let Some(group) = in_group("page_tables_go_with_the_last_part") else { return };
    let mut device = negotiated_whole(TOTAL);
    let before = page_tables();
    // One frame at a time: no batch names the second half of a huge frame together with the first.
    for is_ballooned in [|frame| frame < 256, |frame| frame >= 256_u64] {
        for frame in MIXED.map(|huge| huge * HUGE_FRAMES) {
            device.memory.write_words(GuestAddress(frame * FRAME_BYTES), &[1]).unwrap();
        }
        inflate(&mut device, is_ballooned);
    }
    drop(group);
    let left = page_tables().saturating_sub(before);
    assert!(left <= 64, "{left} KiB of page tables are left of {} KiB", 4 * (MIXED.end - MIXED.start));
}

/// In KiB.
fn page_tables() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPTE:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
