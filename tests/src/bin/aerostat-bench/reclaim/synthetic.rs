//! Traces made by rule, for a memory of a given number of frames. The same arguments make the same
//! trace.

use super::trace::Trace;

/// A generator of pseudo-random numbers: splitmix64 (S. Vigna,
/// <https://prng.di.unimi.it/splitmix64.c>).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from `0..end`, evenly distributed.
    #[expect(clippy::cast_possible_truncation, reason = "the result is below `end`")]
    fn below(&mut self, end: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u32
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn shuffle(&mut self, items: &mut [u32]) {
        for end in (1..items.len()).rev() {
            let other = self.below(u32::try_from(end + 1).unwrap_or(u32::MAX)) as usize;
            items.swap(end, other);
        }
    }
}

/// Pages in shuffled places. The page of rank `r` (from 1) is touched with a probability
/// proportional to `r^-skew`.
#[derive(Debug)]
struct Zipf {
    cumulative: Vec<f64>,
    pages: Vec<u32>,
}

impl Zipf {
    fn new(first: u32, count: u32, skew: f64, random: &mut Random) -> Self {
        let mut pages: Vec<u32> = (first..first + count).collect();
        random.shuffle(&mut pages);
        let mut sum = 0.0;
        let cumulative = (1..=count)
            .map(|rank| {
                sum += f64::from(rank).powf(-skew);
                sum
            })
            .collect();
        Self { cumulative, pages }
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let at = random.unit() * total;
        let rank = self.cumulative.partition_point(|&sum| sum <= at);
        self.pages[rank.min(self.pages.len() - 1)]
    }
}

/// Makes a trace in which every other touch is of a page that is never touched again. The rest
/// falls on a hot set of 60 % of memory.
pub(crate) fn scan(frames: u32) -> Trace {
    let mut random = Random(1);
    let hot = frames * 6 / 10;
    Trace::new((0..frames * 16).flat_map(|step| [random.below(hot), hot + step]).collect())
}

/// Makes a trace of four times as many pages as frames, touched with Zipf's frequencies.
pub(crate) fn zipf(frames: u32) -> Trace {
    let mut random = Random(2);
    let zipf = Zipf::new(0, frames * 4, 0.9, &mut random);
    Trace::new((0..frames * 64).map(|_| zipf.draw(&mut random)).collect())
}

/// Makes a trace of a loop over pages of `percent` % of memory.
pub(crate) fn circle(frames: u32, percent: u32) -> Trace {
    let pages = frames * percent / 100;
    Trace::new((0..frames * 40).map(|step| step % pages).collect())
}

/// Makes a trace of six phases, each with a working set of its own of 80 % of memory, touched with
/// Zipf's frequencies.
pub(crate) fn phases(frames: u32) -> Trace {
    let mut random = Random(3);
    let size = frames * 8 / 10;
    let mut touches = Vec::new();
    for phase in 0..6 {
        let zipf = Zipf::new(phase * size, size, 0.6, &mut random);
        touches.extend((0..frames * 6).map(|_| zipf.draw(&mut random)));
    }
    Trace::new(touches)
}

/// Makes a trace of a window of 90 % of memory that moves over ten times as many pages as frames:
/// the best case for LRU.
pub(crate) fn window(frames: u32) -> Trace {
    let mut random = Random(4);
    let size = frames * 9 / 10;
    Trace::new((0..frames * 50).map(|step| step / 5 + random.below(size)).collect())
}

/// Makes a trace of a loop over 60 % of memory, a Zipf set of twice memory and a scan, in turn,
/// like index, rows and reports of a database.
pub(crate) fn mixed(frames: u32) -> Trace {
    let mut random = Random(5);
    let looped = frames * 6 / 10;
    let rows = Zipf::new(looped, frames * 2, 1.0, &mut random);
    let report = looped + frames * 2;
    let mut touches = Vec::new();
    for step in 0..frames * 20 {
        touches.push(step % looped);
        touches.push(rows.draw(&mut random));
        if step / frames % 4 == 3 {
            touches.push(report + step % (frames * 4));
        }
    }
    Trace::new(touches)
}

/// Makes a trace in which a page is the likelier, the more recently it was touched, over 120 % of
/// memory. Pages differ by recency only, so no policy is much better than LRU.
pub(crate) fn recency(frames: u32) -> Trace {
    let mut random = Random(6);
    let mut stack: Vec<u32> = (0..frames * 12 / 10).collect();
    let mut touches = Vec::new();
    for _ in 0..frames * 30 {
        let count = u32::try_from(stack.len()).unwrap_or(u32::MAX);
        let upper = random.below(count);
        let depth = random.below(upper + 1) as usize;
        let page = stack.remove(stack.len() - 1 - depth);
        stack.push(page);
        touches.push(page);
    }
    Trace::new(touches)
}

/// Makes the same trace with its pages at other addresses.
pub(crate) fn shuffled(trace: &Trace) -> Trace {
    let mut addresses: Vec<u32> = (0..u32::try_from(trace.pages()).unwrap_or(u32::MAX)).collect();
    Random(7).shuffle(&mut addresses);
    Trace::new(trace.touches().iter().map(|&page| addresses[page as usize]).collect())
}
