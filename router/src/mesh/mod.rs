//! What the mesh knows, pure: the roster, facts and decisions, each record signed and checked here, and what of it must be sent
//! to whom (PROTOCOL 1, 6, 7). Records travel whole; every host keeps the signer's own bytes.
//!
//! | room | holds |
//! |---|---|
//! | [`Roster`] | who is a member: `removed` is final, else the higher serial, ties by bytes |
//! | [`Facts`] | what each member says of itself: the higher version |
//! | [`Decisions`] | what the controller says: the higher revision of each key |
//! | [`Spread`] | what each neighbour has and what it still needs |

mod decisions;
mod facts;
mod roster;
mod spread;

use weft_api::decision::DecisionKey;
use weft_api::id::HostId;

pub use decisions::{Decisions, MAX_DECISIONS};
pub use facts::{Facts, MAX_FACTS_LEN, Own};
pub use roster::{MAX_ROSTER, MAX_ROSTER_RECORD_LEN, Roster};
pub use spread::{MAX_BATCH_LEN, Spread};

/// Which record: a newer one of the same key replaces the older.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RecordKey {
    /// A host's place in the mesh. First in order: without it the others are not believed.
    Roster(HostId),
    /// What the controller says of something.
    Decision(DecisionKey),
    /// What a host says of itself.
    Facts(HostId),
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
