//! What has happened; stored before anybody hears of it. Applying the same events to an empty state gives the same state again.

use serde::{Deserialize, Serialize};
use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::{HostKey, TokenId};
use weft_api::roster::{MeshRecord, RosterRecord};
use weft_api::sign::Signed;
use weft_api::succession::Succession;

/// One change of the state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The mesh exists.
    Founded(MeshRecord),
    /// A new mesh key signs every record, again; no host but one has it.
    Rotated {
        /// Signed by the old key.
        succession: Signed<Succession>,
        /// The host that has the new one.
        by: HostKey,
    },
    /// This signer has the last mesh key of this chain.
    KeyTaken(Vec<Signed<Succession>>),
    /// A host's place in the mesh is this now.
    Enrolled(RosterRecord),
    /// A token exists.
    TokenMade {
        /// Its id.
        id: TokenId,
        /// The public key that wishes must be signed with.
        key: [u8; 32],
        /// Unix seconds.
        expires: u64,
        /// Good for one host only.
        once: bool,
    },
    /// A token is worth nothing any more.
    TokenRemoved(TokenId),
    /// A host joined by this token.
    TokenUsed {
        /// The token.
        id: TokenId,
        /// The host.
        by: HostKey,
    },
    /// A decision.
    Decided {
        /// Its revision, higher than any before.
        revision: u64,
        /// What it is about.
        key: DecisionKey,
        /// What holds now; `None`: it is gone.
        body: Option<DecisionBody>,
    },
}
