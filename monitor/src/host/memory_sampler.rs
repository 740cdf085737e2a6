//! Samples of the host's memory for the scheduler: what is available, and how long tasks stalled.
//!
//! All of it is in small files of the kernel, which are read at most once per second. A file that
//! does not exist is a fact that the host does not say.

use std::fs;
use std::time::Duration;

use super::capacity::available_at;
use super::cgroup::{Location, Version};
use crate::clock::Moment;
use crate::scheduler::{HostMemory, MemoryStalls};

/// The time between samples. The kernel computes its shortest average of stalls every two seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// The sampler of a run.
#[derive(Debug)]
pub struct MemorySampler {
    /// The memory control group of this process, if it has one.
    location: Option<Location>,
    /// When the next sample is due.
    next: Moment,
}

impl Default for MemorySampler {
    fn default() -> Self {
        Self { location: Location::of_this_process().ok(), next: Moment::default() }
    }
}

impl MemorySampler {
    /// Returns a sample, or `None` if it is not time for one, or the host does not say.
    pub fn sample(&mut self, now: Moment) -> Option<HostMemory> {
        if now < self.next {
            return None;
        }
        self.next = now.after(INTERVAL);
        let available = available_at(self.location.as_ref())?.memory;
        Some(HostMemory { available, stalls: self.stalls() })
    }

    /// Reads the stalls of this process's own group if the kernel counts them by group: those of
    /// other groups are none of the fleet's.
    fn stalls(&self) -> Option<MemoryStalls> {
        let group = self.location.as_ref().filter(|location| location.version == Version::V2);
        let of_group = group.and_then(|group| fs::read_to_string(group.folder.join("memory.pressure")).ok());
        let text = of_group.or_else(|| fs::read_to_string("/proc/pressure/memory").ok())?;
        parse_stalls(&text)
    }
}

/// Returns the averages of ten seconds in a file of pressure stall information.
fn parse_stalls(text: &str) -> Option<MemoryStalls> {
    let average = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let average = line.split(' ').find_map(|field| field.strip_prefix("avg10="))?;
        let (percent, hundredths) = average.split_once('.')?;
        let (percent, hundredths): (u32, u32) = (percent.parse().ok()?, hundredths.parse().ok()?);
        (percent <= 100 && hundredths < 100).then(|| percent * 100 + hundredths)
    };
    Some(MemoryStalls { some: average("some")?, full: average("full")? })
}

#[cfg(test)]
mod tests {
    use super::{MemorySampler, parse_stalls};
    use crate::clock::Moment;
    use crate::scheduler::MemoryStalls;
    use proptest::proptest;

    const TEXT: &str = "some avg10=12.05 avg60=1.00 avg300=0.00 total=13971092\n\
                        full avg10=3.40 avg60=0.00 avg300=0.00 total=4502193\n";

    #[test]
    fn stalls_are_parsed() {
        assert_eq!(parse_stalls(TEXT), Some(MemoryStalls { some: 1205, full: 340 }));
        for text in ["", "some avg10=1.00\n", "some avg10=1 avg60=0\nfull avg10=2\n"] {
            assert_eq!(parse_stalls(text), None, "{text}");
        }
        assert_eq!(parse_stalls(&TEXT.replace("12.05", "4000000000.99")), None);
    }

    #[test]
    fn the_host_is_sampled_once_a_second() {
        let mut sampler = MemorySampler::default();
        let mut has_sample_at = |ms: u64| sampler.sample(Moment::from_ns(ms * 1_000_000)).is_some();
        assert!(has_sample_at(100), "this host says how much memory it has");
        assert!(!has_sample_at(1099));
        assert!(has_sample_at(1100));
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = parse_stalls(&text);
            let _ = parse_stalls(&TEXT.replace("12", &text));
        }
    }
}
