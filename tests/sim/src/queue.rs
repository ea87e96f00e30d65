//! What becomes due when: in order of time, then of scheduling.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Places are used again, so that a world of many datagrams asks for memory once.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    order: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    places: Vec<Option<T>>,
    free: Vec<usize>,
    scheduled: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { order: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), scheduled: 0 }
    }
}

impl<T> Queue<T> {
    pub(crate) fn push(&mut self, at: Duration, what: T) {
        self.scheduled += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(what);
        self.order.push(Reverse((at, self.scheduled, place)));
    }

    /// The next that is due by then.
    pub(crate) fn pop(&mut self, by: Duration) -> Option<(Duration, T)> {
        let Reverse((at, ..)) = self.order.peek()?;
        if *at > by {
            return None;
        }
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        self.places[place].take().map(|what| (at, what))
    }

    /// How many were ever scheduled.
    pub(crate) fn scheduled(&self) -> u64 {
        self.scheduled
    }
}
