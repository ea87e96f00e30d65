//! What each neighbour still needs: everything when it connects, then what changes, each record once and newest only, however
//! slowly the neighbour reads. So the queue towards it is bounded by the number of records.

use std::collections::{BTreeMap, BTreeSet};

use weft_api::id::HostId;

use super::RecordKey;

/// A batch ends with the record that takes it to this many bytes.
pub const MAX_BATCH_LEN: usize = 64 << 10;

/// The neighbours and what must be sent to them.
#[derive(Debug, Default)]
pub struct Spread {
    neighbours: BTreeMap<HostId, BTreeSet<RecordKey>>,
}

impl Spread {
    /// A neighbour's connection begins, or began anew: it needs all of this.
    pub fn connected(&mut self, host: HostId, everything: impl IntoIterator<Item = RecordKey>) {
        self.neighbours.insert(host, everything.into_iter().collect());
    }

    /// It needs nothing any more.
    pub fn disconnected(&mut self, host: HostId) {
        self.neighbours.remove(&host);
    }

    /// A record is new: everybody needs it but who sent it, who need not even have what waited for it.
    pub fn changed(&mut self, key: &RecordKey, from: Option<HostId>) {
        for (host, needs) in &mut self.neighbours {
            if Some(*host) == from {
                needs.remove(key);
            } else {
                needs.insert(key.clone());
            }
        }
    }

    /// The neighbour has what we have.
    pub fn has(&mut self, host: HostId, key: &RecordKey) {
        if let Some(needs) = self.neighbours.get_mut(&host) {
            needs.remove(key);
        }
    }

    /// The neighbour has something older than we have.
    pub fn lacks(&mut self, host: HostId, key: &RecordKey) {
        if let Some(needs) = self.neighbours.get_mut(&host) {
            needs.insert(key.clone());
        }
    }

    /// What to send to this neighbour next, in order, until [`MAX_BATCH_LEN`]; `length` is a record's.
    pub fn next_batch(
        &mut self,
        host: HostId,
        mut length: impl FnMut(&RecordKey) -> usize,
    ) -> Vec<RecordKey> {
        let Some(needs) = self.neighbours.get_mut(&host) else { return Vec::new() };
        let (mut batch, mut total) = (Vec::new(), 0);
        while total < MAX_BATCH_LEN
            && let Some(key) = needs.pop_first()
        {
            total += length(&key);
            batch.push(key);
        }
        batch
    }

    /// Whether something waits for this neighbour.
    #[must_use]
    pub fn waits(&self, host: HostId) -> bool {
        self.neighbours.get(&host).is_some_and(|n| !n.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> RecordKey {
        RecordKey::Facts(HostId([n; 8]))
    }

    #[test]
    fn each_needs_what_it_has_not_heard() {
        let (a, b) = (HostId([1; 8]), HostId([2; 8]));
        let mut spread = Spread::default();
        spread.connected(a, [key(1), RecordKey::Roster(b)]);
        spread.connected(b, []);
        spread.changed(&key(3), Some(a));
        spread.changed(&key(4), None);
        spread.has(a, &key(4));
        assert_eq!(spread.next_batch(a, |_| 1), [RecordKey::Roster(b), key(1)], "the roster first");
        assert_eq!(spread.next_batch(b, |_| 1), [key(3), key(4)]);
        assert!(!spread.waits(b));
        spread.lacks(b, &key(3));
        assert!(spread.waits(b));
        assert_eq!(spread.next_batch(b, |_| 1), [key(3)]);
        spread.disconnected(b);
        spread.changed(&key(5), None);
        assert!(spread.next_batch(b, |_| 1).is_empty());
    }

    proptest! {
        #[test]
        fn batches_end_in_time_and_lose_nothing(lengths in prop::collection::vec(1usize..200_000, 1..60)) {
            let host = HostId([1; 8]);
            let mut spread = Spread::default();
            spread.connected(host, (0..lengths.len()).map(|i| key(i as u8)));
            let length = |k: &RecordKey| match k { RecordKey::Facts(h) => lengths[h.0[0] as usize], _ => 0 };
            let mut seen = Vec::new();
            while spread.waits(host) {
                let batch = spread.next_batch(host, length);
                let total: usize = batch.iter().map(length).sum();
                prop_assert!(total - length(batch.last().unwrap()) < MAX_BATCH_LEN);
                seen.extend(batch);
            }
            prop_assert_eq!(seen.len(), lengths.len());
        }
    }
}
