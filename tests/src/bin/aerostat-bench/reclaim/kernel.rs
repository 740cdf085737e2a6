//! Replays a policy as the guest kernel drives it: with accessed bits only, in batches between two
//! watermarks, with a hand that visits resident pages in the order of their addresses.

use aerostat_reclaim_policy::{Age, Arrival, Pass, Policy, Refault, Seen, Verdict};

use super::trace::Trace;

/// The smallest memory for which reclaim is replayed.
pub(crate) const SMALLEST_FRAMES: usize = 64;

/// Returns the number of free frames at which reclaim begins, and of frames that it then frees: 32
/// for 8192 frames, and in proportion for others.
fn batch(frames: usize) -> usize {
    (frames / 256).clamp(4, 64)
}

/// The costs of a replay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Replay {
    pub(crate) misses: u64,
    evictions: u64,
    /// Pages that the hand has visited.
    visits: u64,
}

impl Replay {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
    pub(crate) fn visits_per_eviction(self) -> f64 {
        self.visits as f64 / self.evictions.max(1) as f64
    }
}

/// Replays `trace` in a memory of so many frames.
pub(crate) fn replay(trace: &Trace, frames: usize, policy: &mut impl Policy) -> Replay {
    let mut memory = Memory::new(trace.pages(), frames);
    for &page in trace.touches() {
        memory.touch(page as usize, policy);
    }
    memory.replay
}

/// The kernel's record of a page.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    age: Age,
    accessed: bool,
    /// The count of evictions when it was evicted.
    evicted_at: Option<u64>,
}

struct Memory {
    pages: Vec<Page>,
    resident: Residents,
    frames: usize,
    batch: usize,
    free: usize,
    hand: usize,
    pass: Pass,
    replay: Replay,
}

impl Memory {
    fn new(pages: usize, frames: usize) -> Self {
        Self {
            pages: vec![Page::default(); pages],
            resident: Residents(vec![0; pages.div_ceil(64)]),
            frames,
            batch: batch(frames),
            free: frames,
            hand: 0,
            pass: Pass { visited: 0, evicted: 0 },
            replay: Replay::default(),
        }
    }

    fn touch(&mut self, page: usize, policy: &mut impl Policy) {
        if !self.resident.has(page) {
            self.fault(page, policy);
        }
        self.pages[page].accessed = true;
    }

    fn fault(&mut self, page: usize, policy: &mut impl Policy) {
        self.replay.misses += 1;
        if self.free <= self.batch {
            self.reclaim(policy);
        }
        self.free -= 1;
        let how = self.pages[page].evicted_at.map_or(Arrival::First, |then| {
            Arrival::Refault(Refault {
                distance: self.replay.evictions - then,
                resident: (self.frames - self.free) as u64,
                age: self.pages[page].age,
            })
        });
        self.resident.insert(page);
        self.pages[page].age = policy.arrived(how);
    }

    fn reclaim(&mut self, policy: &mut impl Policy) {
        while self.free < 2 * self.batch {
            let Some(page) = self.resident.next(self.hand) else {
                self.hand = 0;
                policy.pass_ended(std::mem::replace(&mut self.pass, Pass { visited: 0, evicted: 0 }));
                continue;
            };
            self.hand = page + 1;
            self.replay.visits += 1;
            self.pass.visited += 1;
            let known = &mut self.pages[page];
            let accessed = std::mem::take(&mut known.accessed);
            match policy.visited(Seen { age: known.age, accessed }) {
                Verdict::Keep(age) => known.age = age,
                Verdict::Evict => {
                    known.evicted_at = Some(self.replay.evictions);
                    self.resident.remove(page);
                    self.replay.evictions += 1;
                    self.pass.evicted += 1;
                    self.free += 1;
                }
            }
        }
    }
}

/// A set of pages, one bit each.
struct Residents(Vec<u64>);

impl Residents {
    fn has(&self, page: usize) -> bool {
        self.0[page / 64] >> (page % 64) & 1 != 0
    }

    fn insert(&mut self, page: usize) {
        self.0[page / 64] |= 1 << (page % 64);
    }

    fn remove(&mut self, page: usize) {
        self.0[page / 64] &= !(1 << (page % 64));
    }

    /// Returns the first page at or after `from`.
    fn next(&self, from: usize) -> Option<usize> {
        let first = from / 64;
        let mut word = self.0.get(first)? & (u64::MAX << (from % 64));
        let mut at = first;
        while word == 0 {
            at += 1;
            word = *self.0.get(at)?;
        }
        Some(at * 64 + word.trailing_zeros() as usize)
    }
}
