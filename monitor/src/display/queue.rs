//! The queue of a sink: a bounded amount of text, and the newest frame of a live table. Pure.

use std::collections::VecDeque;
use std::mem;

/// Text that may wait in a queue, in bytes.
pub(super) const CAPACITY: usize = 1 << 20;

/// Something to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Whole lines, newlines included.
    Text(String),
    /// The number of texts that are missing at this place.
    Missing(u64),
    /// The lines of a table, which replaces the table before it.
    Frame(Vec<String>),
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// Texts that found the queue full since the last one that did not.
    dropped: u64,
    frame: Option<Vec<String>>,
}

impl Queue {
    /// Appends `text`, or counts it as dropped where there is no room for it.
    pub(super) fn push(&mut self, text: String) {
        if self.bytes.saturating_add(text.len()) > CAPACITY {
            self.dropped += 1;
        } else {
            self.push_last(text);
        }
    }

    /// Appends `text` also where the queue is full: for the end of a run, which happens once.
    pub(super) fn push_last(&mut self, text: String) {
        let dropped = self.take_dropped();
        self.items.extend(dropped);
        self.bytes = self.bytes.saturating_add(text.len());
        self.items.push_back(Item::Text(text));
    }

    /// Replaces the frame that has not been written yet.
    pub(super) fn set_frame(&mut self, lines: Vec<String>) {
        self.frame = Some(lines);
    }

    /// Returns the next item to write. Text comes before the frame, which is below all text.
    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front().or_else(|| self.take_dropped());
        if let Some(Item::Text(text)) = &item {
            self.bytes -= text.len();
        }
        item.or_else(|| self.frame.take().map(Item::Frame))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.dropped == 0 && self.frame.is_none()
    }

    /// Removes everything: it can't be written any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn take_dropped(&mut self) -> Option<Item> {
        let dropped = mem::take(&mut self.dropped);
        (dropped > 0).then_some(Item::Missing(dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, Item, Queue};

    #[test]
    fn a_full_queue_drops_and_says_where_and_how_many() {
        let mut queue = Queue::default();
        let half = || "x".repeat(CAPACITY / 2);
        for _ in 0..5 {
            queue.push(half());
        }
        assert_eq!(queue.pop(), Some(Item::Text(half())));
        queue.push("later".into());
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [Item::Text(half()), Item::Missing(3), Item::Text("later".into())]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_drop_at_the_end_is_reported_too() {
        let mut queue = Queue::default();
        queue.push("x".repeat(CAPACITY));
        queue.push("y".into());
        queue.pop();
        assert!(!queue.is_empty());
        assert_eq!((queue.pop(), queue.pop()), (Some(Item::Missing(1)), None));
    }

    #[test]
    fn the_end_of_a_run_always_finds_room() {
        let mut queue = Queue::default();
        queue.push("x".repeat(CAPACITY));
        queue.push_last("the end".into());
        queue.pop();
        assert_eq!(queue.pop(), Some(Item::Text("the end".into())));
    }

    #[test]
    fn only_the_newest_frame_waits_and_it_comes_last() {
        let mut queue = Queue::default();
        queue.set_frame(vec!["old".into()]);
        queue.set_frame(vec!["new".into()]);
        queue.push("line".into());
        let items: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(items, [Item::Text("line".into()), Item::Frame(vec!["new".into()])]);
    }
}
