//! Tests of the thread table.

use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

use aerostat_abi::threads::{self, State, Wait};

use super::{Priority, Table, ThreadId};
use crate::thread::event::WaitKey;
use crate::thread::published::Published;
use crate::time::Instant;

const fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn ready(table: &mut Table, priority: Priority) -> ThreadId {
    let thread = table.add("test", priority).unwrap();
    table.wake(thread);
    thread
}

#[test]
fn equals_take_turns() {
    let mut table = Table::new();
    let (a, b) = (ready(&mut table, Priority::Application), ready(&mut table, Priority::Application));
    assert_eq!(table.take_next(at(5)), a);
    assert!(!table.should_switch(at(4)));
    assert!(table.should_switch(at(5)));
    table.preempt_current(at(5));
    assert_eq!(table.take_next(at(10)), b);
    table.preempt_current(at(10));
    assert_eq!(table.take_next(at(15)), a);
}

#[test]
fn a_woken_kernel_thread_runs_at_once_and_the_interrupted_one_next() {
    let mut table = Table::new();
    let (a, b) = (ready(&mut table, Priority::Application), ready(&mut table, Priority::Application));
    assert_eq!(table.take_next(at(5)), a);
    let driver = ready(&mut table, Priority::Kernel);
    assert!(table.should_switch(at(1)));
    table.preempt_current(at(1));
    assert_eq!(table.take_next(at(6)), driver);
    table.block_current(None, None);
    assert_eq!(table.take_next(at(6)), a);
    table.block_current(None, None);
    assert_eq!(table.take_next(at(6)), b);
}

#[test]
fn sleepers_wake_in_time_and_the_timer_follows_the_earliest() {
    let mut table = Table::new();
    let (a, b) = (ready(&mut table, Priority::Application), ready(&mut table, Priority::Application));
    assert_eq!(table.take_next(at(5)), a);
    table.block_current(None, Some(at(30)));
    assert_eq!(table.take_next(at(5)), b);
    table.block_current(None, Some(at(20)));
    assert_eq!(table.take_next(at(5)), ThreadId::IDLE);
    assert_eq!(table.next_timer(), Some(at(20)));
    table.wake_due(at(20));
    assert_eq!(table.take_next(at(25)), b);
    assert_eq!(table.next_timer(), Some(at(30)));
    table.wake_due(at(30));
    assert_eq!(table.next_timer(), Some(at(25)), "a thread waits: the slice's end counts");
}

#[test]
fn a_kernel_thread_has_no_slice_to_wait_for() {
    let mut table = Table::new();
    let driver = ready(&mut table, Priority::Kernel);
    ready(&mut table, Priority::Application);
    assert_eq!(table.take_next(at(5)), driver);
    assert!(!table.should_switch(at(9)));
    assert_eq!(table.next_timer(), None, "a timer at the end of a slice that doesn't end would interrupt for ever");
}

#[test]
fn a_place_is_used_again_and_the_table_can_be_full() {
    let mut table = Table::new();
    let first = ready(&mut table, Priority::Application);
    while table.add("more", Priority::Application).is_some() {}
    assert_eq!(table.take_next(at(5)), first);
    table.end_current();
    assert_eq!(table.add("again", Priority::Application), Some(first));
}

#[test]
fn a_key_wakes_the_threads_that_wait_for_it_and_no_others() {
    let (door, window) = (WaitKey::from_number(1), WaitKey::from_number(2));
    let mut table = Table::new();
    let (a, b) = (ready(&mut table, Priority::Application), ready(&mut table, Priority::Application));
    assert_eq!(table.take_next(at(5)), a);
    table.block_current(Some(door), None);
    assert_eq!(table.take_next(at(5)), b);
    table.block_current(Some(window), Some(at(90)));
    assert_eq!(table.take_next(at(5)), ThreadId::IDLE);
    let before = table.wake_count();
    assert!(table.wake_waiters(window));
    assert_ne!(table.wake_count(), before);
    assert_eq!(table.take_next(at(5)), b);
    assert!(!table.wake_waiters(window), "it does not wait any more");
    assert!(!table.is_runnable());
    assert!(table.wake_waiters(door));
}

#[test]
fn waking_a_running_or_unused_thread_changes_nothing() {
    let mut table = Table::new();
    let a = ready(&mut table, Priority::Application);
    table.take_next(at(5));
    table.wake(a);
    table.wake(ThreadId(9));
    assert!(!table.is_runnable());
}

/// What the host reads.
#[test]
fn the_host_sees_what_each_thread_is_doing() {
    let published: &'static Published = Box::leak(Box::new(Published::new()));
    let mut table = Table::published_in(published);
    assert!(threads::decode(&published.words()).is_err(), "it is no table yet");
    table.publish();
    let worker = table.add("worker", Priority::Application).unwrap();
    let states = || -> Vec<_> {
        let words = published.words();
        let threads = threads::decode(&words).unwrap();
        threads.map(|(place, thread)| (place, String::from(thread.name.as_str()), thread.state)).collect()
    };
    table.wake(worker);
    assert_eq!(states(), [(0, "idle".into(), State::Running), (1, "worker".into(), State::Ready)]);
    table.take_next(at(5));
    assert_eq!(states(), [(0, "idle".into(), State::Ready), (1, "worker".into(), State::Running)]);
    let door = WaitKey { address: 7, wait: Wait::Memory };
    table.block_current(Some(door), Some(at(9)));
    let waiting = State::Waiting { wait: Some(Wait::Memory), key: 7, until_ns: 9_000_000 };
    assert_eq!(states()[1].2, waiting);
    table.take_next(at(5));
    assert_eq!(states()[0].2, State::Running);
    table.wake_waiters(door);
    assert_eq!(states()[1].2, State::Ready);
    table.take_next(at(9));
    table.block_current(None, Some(at(20)));
    assert_eq!(states()[1].2, State::Waiting { wait: Some(Wait::Timer), key: 0, until_ns: 20_000_000 });
    table.forget(worker);
    assert_eq!(states().len(), 1);
}
