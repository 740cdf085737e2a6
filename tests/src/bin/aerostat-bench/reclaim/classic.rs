//! The policies of the textbooks, which see every touch, to compare with the kernel's, which see
//! only accessed bits.
//!
//! Each function returns the misses of a trace in a memory of so many frames, first touches
//! included.

use std::collections::BTreeSet;

use super::trace::Trace;

/// Means "not resident" or "never again".
const NONE: u32 = u32::MAX;

/// Replays FIFO: first in, first out.
pub(crate) fn fifo(trace: &Trace, frames: usize) -> u64 {
    second_chance(trace, frames, |_| false)
}

/// Replays CLOCK. The hand moves on misses only and stops after the page that arrived last.
pub(crate) fn clock(trace: &Trace, frames: usize) -> u64 {
    second_chance(trace, frames, |touched| touched)
}

/// Replays a policy with a ring of frames. `spares` says whether the hand spares a page, by whether
/// it was touched since the hand was there last.
fn second_chance(trace: &Trace, frames: usize, spares: impl Fn(bool) -> bool) -> u64 {
    let mut frame_of = vec![NONE; trace.pages()];
    let mut ring: Vec<u32> = Vec::with_capacity(frames);
    let mut touched = vec![false; frames];
    let (mut hand, mut misses) = (0, 0);
    for &page in trace.touches() {
        let frame = frame_of[page as usize];
        if frame != NONE {
            touched[frame as usize] = true;
            continue;
        }
        misses += 1;
        if ring.len() < frames {
            frame_of[page as usize] = number(ring.len());
            ring.push(page);
            continue;
        }
        while spares(touched[hand]) {
            touched[hand] = false;
            hand = (hand + 1) % frames;
        }
        frame_of[ring[hand] as usize] = NONE;
        frame_of[page as usize] = number(hand);
        ring[hand] = page;
        touched[hand] = false;
        hand = (hand + 1) % frames;
    }
    misses
}

/// Replays LRU: least recently used.
pub(crate) fn lru(trace: &Trace, frames: usize) -> u64 {
    // The trace is the queue of touches. Only the last touch of each page counts in it.
    let mut last_touch = vec![NONE; trace.pages()];
    let (mut oldest, mut resident, mut misses) = (0, 0, 0);
    for (now, &page) in trace.touches().iter().enumerate() {
        if last_touch[page as usize] == NONE {
            misses += 1;
            if resident == frames {
                let victim = loop {
                    let candidate = trace.touches()[oldest] as usize;
                    oldest += 1;
                    if last_touch[candidate] == number(oldest - 1) {
                        break candidate;
                    }
                };
                last_touch[victim] = NONE;
            } else {
                resident += 1;
            }
        }
        last_touch[page as usize] = number(now);
    }
    misses
}

/// Replays the optimum, which knows the future: it evicts the page whose next touch is farthest
/// away (L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", 1966).
pub(crate) fn optimum(trace: &Trace, frames: usize) -> u64 {
    let next = next_touches(trace);
    let mut by_next: BTreeSet<(u32, u32)> = BTreeSet::new();
    let mut next_of = vec![0; trace.pages()];
    let mut resident = vec![false; trace.pages()];
    let mut misses = 0;
    for (&page, &next) in trace.touches().iter().zip(&next) {
        let slot = page as usize;
        if resident[slot] {
            by_next.remove(&(next_of[slot], page));
        } else {
            misses += 1;
            if by_next.len() == frames
                && let Some((_, victim)) = by_next.pop_last()
            {
                resident[victim as usize] = false;
            }
            resident[slot] = true;
        }
        next_of[slot] = next;
        by_next.insert((next, page));
    }
    misses
}

/// Returns, for each touch, the next touch of its page.
fn next_touches(trace: &Trace) -> Vec<u32> {
    let mut seen = vec![NONE; trace.pages()];
    let mut next = vec![NONE; trace.touches().len()];
    for (now, &page) in trace.touches().iter().enumerate().rev() {
        next[now] = seen[page as usize];
        seen[page as usize] = number(now);
    }
    next
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}
