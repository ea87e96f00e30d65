//! What all records have in common: a key, a rank among those of the same key, and a mark that tells any two apart.

use std::any::Any;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use weft_api::decision::{Decision, DecisionKey};
use weft_api::id::HostId;
use weft_api::roster::RosterRecord;
use weft_api::sign::{Record, SignatureError, Signed, verify_bytes};
use weft_api::succession::Succession;

use super::facts::Said;
use crate::drop::DropReason;

/// Which record: a newer one of the same key replaces the older.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RecordKey {
    /// The mesh key of this number. First in order: without it the others are not believed.
    Succession(u32),
    /// A host's place in the mesh. Next in order, for the same reason.
    Roster(HostId),
    /// What the controller says of something.
    Decision(DecisionKey),
    /// What a host says of itself.
    Facts(HostId),
}

impl RecordKey {
    /// The same on every host, spread evenly.
    pub(super) fn leaf(&self) -> u8 {
        match self {
            Self::Succession(number) => number.to_be_bytes()[3],
            Self::Roster(HostId([byte, ..])) => *byte,
            Self::Facts(HostId([_, byte, ..])) => *byte,
            Self::Decision(key) => {
                let bytes = postcard::to_allocvec(key).expect("keys are plain data and always encode");
                // FNV-1a.
                let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
                });
                hash.to_be_bytes()[2]
            }
        }
    }
}

/// Names one version of a record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Id {
    /// Of which record.
    pub key: RecordKey,
    /// The higher one replaces the lower.
    pub rank: (u64, u64),
    /// Tells two of one rank apart.
    pub mark: u32,
}

impl Id {
    /// Of two versions of one record the newer; [`None`] if only their bytes could say.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match self.rank.cmp(&other.rank) {
            Ordering::Equal if self.mark != other.mark => None,
            order => Some(order),
        }
    }
}

/// What became of a record that holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// It replaces what was known.
    New,
    /// It is what is known.
    Same,
    /// Something newer is known: who sent this should be told.
    Old,
}

impl News {
    pub(super) fn of(order: Ordering) -> Self {
        match order {
            Ordering::Greater => Self::New,
            Ordering::Equal => Self::Same,
            Ordering::Less => Self::Old,
        }
    }
}

/// A record that was verified, and the bytes that its signer wrote.
#[derive(Debug)]
pub struct Held<T> {
    /// What it says.
    pub record: T,
    /// What travels and lies on the disk.
    pub signed: Signed<T>,
    /// A hash of the signed bytes.
    pub mark: u128,
}

impl<T: Record> Held<T> {
    /// The hash of these bytes as a record of this kind.
    pub(super) fn mark_of(signed: &Signed<T>) -> u128 {
        let hash = digest(&SHA256, &[T::DOMAIN.as_bytes(), &[0], signed.bytes()].concat());
        let mut mark = [0; 16];
        mark.copy_from_slice(&hash.as_ref()[..16]);
        u128::from_be_bytes(mark)
    }
}

/// The lowest 32 bits of a mark.
#[expect(clippy::cast_possible_truncation, reason = "that is what is meant")]
pub(super) fn short(mark: u128) -> u32 {
    mark as u32
}

impl Held<RosterRecord> {
    pub(super) fn id(&self) -> Id {
        Id { key: RecordKey::Roster(self.record.key.id()), rank: self.record.rank(), mark: short(self.mark) }
    }
}

impl Held<Decision> {
    pub(super) fn id(&self) -> Id {
        let rank = (self.record.revision, 0);
        Id { key: RecordKey::Decision(self.record.key.clone()), rank, mark: short(self.mark) }
    }
}

/// Whether a signature is a key's. A simulation of many hosts on one machine has one notary for all of them, which
/// verifies each record once and lets all hosts hold the same copy; a real host has [`Signatures`].
pub trait Notary: Send + Sync + fmt::Debug {
    /// Whether `key` signed `bytes` (its domain included).
    fn verify(&self, key: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool;

    /// What was kept under this mark.
    fn recall(&self, _mark: u128) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    /// This was verified and built; others may hold it too.
    fn keep(&self, _mark: u128, _held: &Arc<dyn Any + Send + Sync>) {}
}

/// Real signatures; nothing is shared.
#[derive(Clone, Copy, Default, Debug)]
pub struct Signatures;

impl Notary for Signatures {
    fn verify(&self, key: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool {
        verify_bytes(key, bytes, signature).is_ok()
    }
}

/// Verifies a record, or finds it verified.
pub(super) fn certify<T: Record + Send + Sync + 'static>(
    notary: &dyn Notary,
    key: &[u8; 32],
    signed: &Signed<T>,
) -> Result<Arc<Held<T>>, DropReason> {
    let mark = Held::mark_of(signed);
    if let Some(held) = notary.recall(mark).and_then(|known| known.downcast::<Held<T>>().ok())
        && held.signed == *signed
    {
        return Ok(held);
    }
    let record = signed.verify_by(key, |k, b, s| notary.verify(k, b, s)).map_err(signature)?;
    let held: Arc<Held<T>> = Arc::new(Held { record, signed: signed.clone(), mark });
    let shared: Arc<dyn Any + Send + Sync> = Arc::clone(&held) as _;
    notary.keep(mark, &shared);
    Ok(held)
}

/// The name of what a signature's error is.
pub(super) fn signature(error: SignatureError) -> DropReason {
    match error {
        SignatureError::Forged => DropReason::RecordForged,
        SignatureError::Unreadable => DropReason::RecordUnreadable,
    }
}

/// A record of any kind, verified.
#[derive(Clone, Debug)]
pub enum AnyRecord {
    /// A successor of the mesh key.
    Succession(Arc<Held<Succession>>),
    /// A member's, or a removed member's.
    Roster(Arc<Held<RosterRecord>>),
    /// What the controller says.
    Decision(Arc<Held<Decision>>),
    /// What a host says of itself.
    Facts(Arc<Said>),
}

impl AnyRecord {
    /// Which version of which record.
    #[must_use]
    pub fn id(&self) -> Id {
        match self {
            Self::Succession(held) => held.id(),
            Self::Roster(held) => held.id(),
            Self::Decision(held) => held.id(),
            Self::Facts(said) => said.id(),
        }
    }

    pub(super) fn mark(&self) -> u128 {
        match self {
            Self::Succession(held) => held.mark,
            Self::Roster(held) => held.mark,
            Self::Decision(held) => held.mark,
            Self::Facts(said) => said.mark,
        }
    }
}
