//! This host's own facts: what it says, and under which version.

use std::time::Duration;

use weft_api::fact::{FactRecord, FactVersion, Item, Items, MAX_ITEM_LEN, MAX_ITEMS};
use weft_api::id::{HostId, MeshId};
use weft_api::sign::SigningKey;

use super::bucket::{Bucket, Rate};
use super::facts::MAX_FACTS_LEN;

/// So often a host says something new; what changes meanwhile is said together. Others take [`super::THEIRS`].
const PACE: Rate = Rate { per_second: 8, burst: 16 };

/// What this host says.
#[derive(Debug)]
pub(super) struct Own {
    mesh: MeshId,
    owner: HostId,
    version: FactVersion,
    /// What the agent says of this host.
    given: Vec<Vec<u8>>,
    /// Its links and the addresses that it is seen at.
    links: Vec<Vec<u8>>,
    pace: Bucket,
    /// Something is to be said.
    unsaid: bool,
    /// Whether the agent has said anything in this boot; what the disk has of before stands until then.
    begun: bool,
}

impl Own {
    /// Nothing said yet in this boot; `before` is the version on disk.
    pub(super) fn new(mesh: MeshId, owner: HostId, boot: u64, before: Option<FactVersion>) -> Self {
        let version = FactVersion { boot, sequence: 0 };
        Self {
            mesh,
            owner,
            version: before.map_or(version, |b| b.max(version)),
            given: Vec::new(),
            links: Vec::new(),
            pace: Bucket::default(),
            unsaid: false,
            begun: false,
        }
    }

    /// The agent says this from now on, in any order. What exceeds the bounds of a record is left out; returns how much.
    pub(super) fn give(&mut self, items: &[Item]) -> usize {
        let mut given: Vec<Vec<u8>> =
            items.iter().map(Item::encode).filter(|i| i.len() <= MAX_ITEM_LEN).collect();
        given.sort();
        given.dedup();
        // Room for the links and the signature.
        given.truncate(MAX_ITEMS - 256);
        let mut room = MAX_FACTS_LEN - (64 << 10);
        given.retain(|i| {
            let fits = i.len() + 2 <= room;
            room -= if fits { i.len() + 2 } else { 0 };
            fits
        });
        let left_out = items.len() - given.len();
        self.unsaid |= !self.begun || given != self.given;
        (self.given, self.begun) = (given, true);
        left_out
    }

    /// The mesh layer says this from now on. Whether it is something else than before.
    pub(super) fn set_links(&mut self, items: &[Item]) -> bool {
        let mut links: Vec<Vec<u8>> = items.iter().map(Item::encode).collect();
        links.sort();
        let differ = links != self.links;
        self.unsaid |= differ && self.begun;
        self.links = links;
        differ
    }

    /// Somebody has a record of ours, validly signed, that is newer than what we say: a backup was restored here. The present
    /// items are said again under a version beyond it.
    pub(super) fn heard(&mut self, version: FactVersion) {
        if version >= self.version {
            self.version = version;
            self.unsaid = true;
        }
    }

    /// The disk did not take what was said.
    pub(super) fn say_again(&mut self) {
        self.unsaid = true;
    }

    /// What is to be said now, signed.
    pub(super) fn say(&mut self, now: Duration, key: &SigningKey) -> Option<FactRecord> {
        if !self.unsaid || !self.pace.takes(now, 1, PACE) {
            return None;
        }
        self.unsaid = false;
        let FactVersion { boot, sequence } = self.version;
        self.version = match sequence.checked_add(1) {
            Some(sequence) => FactVersion { boot, sequence },
            None => FactVersion { boot: boot.saturating_add(1), sequence: 1 },
        };
        let items = Items::new(self.given.iter().chain(&self.links).cloned().collect());
        Some(FactRecord::sign(key, self.mesh, self.owner, self.version, items))
    }

    /// When [`Self::say`] has something.
    pub(super) fn next(&self) -> Option<Duration> {
        self.unsaid.then(|| self.pace.ready(1, PACE))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(boot: u64) -> Own {
        Own::new(MeshId([1; 32]), HostId([2; 8]), boot, None)
    }

    fn key() -> SigningKey {
        SigningKey::from_seed([2; 32])
    }

    fn version(record: &FactRecord) -> FactVersion {
        record.head.verify(&key().public()).unwrap().version
    }

    #[test]
    fn an_owner_jumps_past_a_higher_version_of_itself() {
        let (mut own, now) = (own(3), Duration::ZERO);
        own.give(&[Item::Version("1".into())]);
        own.say(now, &key()).unwrap();
        let higher = FactVersion { boot: 9, sequence: u64::MAX };
        own.heard(higher);
        let record = own.say(now, &key()).unwrap();
        assert!(version(&record) > higher);
        assert_eq!(record.items.decoded().collect::<Vec<_>>(), [Item::Version("1".into())]);
        own.heard(higher);
        assert_eq!(own.say(now, &key()), None);
    }

    #[test]
    fn the_same_again_is_no_news_and_many_changes_are_said_together() {
        let (mut own, mut said, mut now) = (own(1), 0, Duration::ZERO);
        for n in 0..1000 {
            own.give(&[Item::Version((n / 2).to_string())]);
            said += usize::from(own.say(now, &key()).is_some());
            now += Duration::from_millis(1);
        }
        assert!((20..30).contains(&said), "{said} in a second");
        let at = own.next().unwrap();
        let record = own.say(at, &key()).unwrap();
        assert_eq!(record.items.decoded().last(), Some(Item::Version("499".into())));
        own.give(&[Item::Version("499".into())]);
        assert_eq!((own.next(), own.say(at * 2, &key())), (None, None));
    }

    proptest! {
        #[test]
        fn what_is_said_always_holds(lengths in prop::collection::vec(0usize..2000, 0..1500)) {
            let mut own = own(7);
            let items: Vec<Item> =
                lengths.iter().enumerate().map(|(n, l)| Item::Version(format!("{n} {}", "x".repeat(*l)))).collect();
            let left_out = own.give(&items);
            let record = own.say(Duration::ZERO, &key()).unwrap();
            prop_assert!(record.items.hold() && record.items.size() < MAX_FACTS_LEN);
            prop_assert_eq!(record.items.iter().count() + left_out, items.len());
        }
    }
}
