//! What neighbours say to each other about records. Everything from a peer: bounded here, judged by [`super::Mesh`].

use serde::{Deserialize, Serialize};
use weft_api::decision::Decision;
use weft_api::fact::{FactVersion, MAX_ITEMS};
use weft_api::roster::RosterRecord;
use weft_api::sign::Signed;
use weft_api::succession::{MAX_SUCCESSIONS, Succession};

use super::delta::Delta;
use super::record::{Id, RecordKey};
use super::sums::FAN_OUT;

/// Records of one message; the sender begins another.
pub const MAX_RECORDS: usize = 64;
/// Ids of one message, unless one leaf alone has more.
pub const MAX_IDS: usize = 1024;
/// What one message may name at most.
const MOST_IDS: usize = 65_536;

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Gossip {
    /// What the sender makes of the link.
    Neighbour(Bond),
    /// News, along the tree.
    Push(Records),
    /// What was asked for.
    Answer(Records),
    /// Your push has come by another way before: announce instead of pushing.
    Prune,
    /// The sender has these.
    Ids(Vec<Id>),
    /// Send these. With `graft`: and push again from now on.
    Ask {
        /// The tree has failed to bring them.
        graft: bool,
        /// What.
        asks: Vec<Ask>,
    },
    /// The sum of all that the sender has.
    Root(u64),
    /// The 16 branches, to a root that differs.
    Branches(Vec<u64>),
    /// The 16 leaves of each branch that differs.
    Leaves(Vec<(u8, Vec<u64>)>),
    /// Everything that the sender has in these leaves.
    Listing {
        /// The leaves.
        leaves: Vec<u8>,
        /// What is in them.
        ids: Vec<Id>,
    },
}

/// What one end makes of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Bond {
    /// It gossips on it.
    Wanted,
    /// It does not need to.
    Spare,
    /// It has too many neighbours to gossip on one more.
    Full,
}

/// Signed records of any kind.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Records {
    /// Of the mesh key.
    pub successions: Vec<Signed<Succession>>,
    /// Of members and removed members.
    pub roster: Vec<Signed<RosterRecord>>,
    /// What the controller says.
    pub decisions: Vec<Signed<Decision>>,
    /// What hosts say of themselves.
    pub facts: Vec<Delta>,
}

impl Records {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.successions.len() + self.roster.len() + self.decisions.len() + self.facts.len()
    }

    /// Bytes that they take on the wire, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let signed = self.successions.iter().map(|s| s.bytes().len());
        let signed = signed.chain(self.roster.iter().map(|s| s.bytes().len()));
        let signed = signed.chain(self.decisions.iter().map(|s| s.bytes().len()));
        signed.map(|len| len + 80).sum::<usize>() + self.facts.iter().map(Delta::size).sum::<usize>()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What makes a host a member for who has not heard of it: signatures, which whoever knows the first mesh key can check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// From the first mesh key to the one that has signed the record.
    pub successions: Vec<Signed<Succession>>,
    /// The host's own.
    pub record: Signed<RosterRecord>,
}

impl Proof {
    /// Whether its numbers are within what a host sends.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.successions.len() <= MAX_SUCCESSIONS as usize
    }
}

/// A record that is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Which.
    pub key: RecordKey,
    /// Of facts: the version that the asker has, and the fingerprints of its items in their order.
    pub have: Option<(FactVersion, Vec<u32>)>,
}

impl Gossip {
    /// Bytes that it takes on the wire, about.
    #[must_use]
    pub fn size(&self) -> usize {
        const ID: usize = 24;
        match self {
            Self::Neighbour(_) | Self::Prune => 8,
            Self::Root(_) => 16,
            Self::Push(records) | Self::Answer(records) => 16 + records.size(),
            Self::Ids(ids) => 16 + ID * ids.len(),
            Self::Ask { asks, .. } => {
                let prints = |a: &Ask| a.have.as_ref().map_or(0, |(_, prints)| 5 * prints.len());
                16 + asks.iter().map(|a| ID + prints(a)).sum::<usize>()
            }
            Self::Branches(sums) => 16 + 10 * sums.len(),
            Self::Leaves(branches) => 16 + branches.iter().map(|(_, sums)| 10 * sums.len()).sum::<usize>(),
            Self::Listing { leaves, ids } => 16 + leaves.len() + ID * ids.len(),
        }
    }

    /// Whether its numbers are within what a host sends.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self {
            Self::Neighbour(_) | Self::Prune | Self::Root(_) => true,
            Self::Push(records) | Self::Answer(records) => records.len() <= MAX_RECORDS,
            Self::Ids(ids) => ids.len() <= MAX_IDS,
            Self::Ask { asks, .. } => {
                let prints = |a: &Ask| a.have.as_ref().map_or(0, |(_, prints)| prints.len());
                asks.len() <= MAX_RECORDS && asks.iter().all(|a| prints(a) <= MAX_ITEMS)
            }
            Self::Branches(sums) => sums.len() == FAN_OUT,
            Self::Leaves(branches) => {
                branches.len() <= FAN_OUT && branches.iter().all(|(_, sums)| sums.len() == FAN_OUT)
            }
            Self::Listing { leaves, ids } => leaves.len() <= FAN_OUT * FAN_OUT && ids.len() <= MOST_IDS,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, kind in 0u8..11) {
            for bytes in [&bytes[..], &[&[kind], &bytes[..]].concat()] {
                let _ = postcard::from_bytes::<Gossip>(bytes).map(|g| g.holds());
            }
        }
    }

    #[test]
    fn numbers_are_bounded() {
        assert!(Gossip::Branches(vec![0; 16]).holds() && !Gossip::Branches(vec![0; 15]).holds());
        assert!(!Gossip::Leaves(vec![(0, vec![0; 17])]).holds());
        assert!(!Gossip::Leaves(vec![(0, vec![0; 16]); 17]).holds());
        let ask = Ask { key: RecordKey::Facts(weft_api::id::HostId([1; 8])), have: None };
        assert!(!Gossip::Ask { graft: false, asks: vec![ask.clone(); MAX_RECORDS + 1] }.holds());
        let long = Ask { have: Some((FactVersion::default(), vec![0; MAX_ITEMS + 1])), ..ask };
        assert!(!Gossip::Ask { graft: false, asks: vec![long] }.holds());
    }
}
