//! What the mesh knows, pure: the roster, facts and decisions, each record signed and checked here; who says what to whom, so
//! that each record reaches each host about once; and who is alive by which way (PROTOCOL 1, 6, 7).
//!
//! | room | holds |
//! |---|---|
//! | [`Mesh`] | one host: (now, event) -> actions |
//! | [`Roster`] | who is a member: `removed` is final, else the higher serial, ties by bytes |
//! | `rotation` | who signs the roster: successors of the mesh key |
//! | [`Facts`] | what each member says of itself: the higher version |
//! | [`Decisions`] | what the controller says: the higher revision of each key |
//! | `own` | what this host says, and how often |
//! | `take`, `desk` | what becomes of a record: refused by name, stored, then spread |
//! | `spread` | who gets it from here, and how fast |
//! | `proof` | what a host presents of itself when a session begins |
//! | `tie` | one neighbour, and what waits for it |
//! | `wants`, `repair`, `sums` | what others have and we lack; comparison with a neighbour |
//! | `choice`, `links`, [`ways`] | whom to keep links with; what we claim of them; who is reachable through whom |
//! | [`Notary`] | signatures, replaced by a model in the big simulation |

mod bucket;
mod choice;
mod decisions;
mod delta;
mod desk;
mod facts;
mod graph;
mod links;
mod machine;
mod message;
mod own;
mod proof;
mod record;
mod repair;
mod roster;
mod rotation;
mod spread;
mod sums;
mod take;
mod tie;
mod wants;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use weft_api::decision::Decision;
use weft_api::fact::Item;
use weft_api::id::{HostId, HostKey};
use weft_api::roster::RosterRecord;
use weft_api::sign::Signed;
use weft_api::succession::Succession;

use crate::drop::DropReason;

pub use decisions::{Decisions, MAX_DECISIONS};
pub use delta::Delta;
pub use facts::{Claim, Facts, Heard, MAX_FACTS_LEN, Said};
pub use graph::routes;
pub use machine::{Mesh, Start};
pub use message::{Ask, Bond, Gossip, MAX_IDS, MAX_RECORDS, Proof, Records};
pub use record::{AnyRecord, Held, Id, News, Notary, RecordKey, Signatures};
pub use roster::{MAX_ROSTER, MAX_ROSTER_RECORD_LEN, Roster};
pub use tie::MAX_BATCH_LEN;
pub use wants::FETCH_AFTER;

/// How many neighbours (PROTOCOL 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// In a mesh of up to so many hosts everybody is everybody's neighbour.
    pub everybody: usize,
    /// In a larger one each host chooses so many.
    pub choices: usize,
    /// And takes at most so many, its own choices included.
    pub neighbours: usize,
}

impl Limits {
    /// The same with another limit of the full mesh. Below the usual one each host also chooses fewer.
    #[must_use]
    pub fn full_up_to(everybody: usize) -> Self {
        let usual = Self::default();
        Self { everybody, choices: (everybody / 8).clamp(2, usual.choices), ..usual }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { everybody: 32, choices: 4, neighbours: 16 }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Time has passed; due at [`Mesh::next_wake`] at the latest.
    Tick,
    /// Messages to this host can be sent, and begin anew: what was sent before may be lost.
    Connected(HostId),
    /// They cannot any more.
    Disconnected(HostId),
    /// Envelopes pass both ways.
    LinkUp(HostId),
    /// They do not any more.
    LinkDown(HostId),
    /// A link's round trip, and the share of its probes that was lost, 0 to 1.
    Measured(HostId, Option<Duration>, f32),
    /// A member sees this host at that address.
    Seen(HostId, SocketAddr),
    /// A neighbour's message.
    Heard(HostId, &'a Gossip),
    /// What the host that has proven this key presents of itself.
    Presented(HostKey, &'a Proof),
    /// What this host is to say of itself; replaces what was said before.
    Say(&'a [Item]),
    /// Successors of the mesh key, made on this host.
    MadeSuccessions(Vec<Signed<Succession>>),
    /// Records made on this host: a signer's.
    MadeRoster(Vec<Signed<RosterRecord>>),
    /// Records made on this host: the controller's.
    MadeDecisions(Vec<Signed<Decision>>),
    /// The oldest [`Action::Store`] without such an answer lies on the disk, or not at all.
    Stored(bool),
}

/// What must be done. Carried out in order.
#[derive(Debug)]
pub enum Action {
    /// Write this, durably, then say [`Event::Stored`]; until then it is not acted on.
    Store(Vec<ToStore>),
    /// [`Mesh::next_message`] has messages for this host.
    Send(HostId),
    /// Keep sessions with these hosts. Others may end when nothing needs them.
    Keep(BTreeSet<HostId>),
    /// The first hops towards members without a link to us, all of them.
    Routes(BTreeMap<HostId, HostId>),
    /// What the host presented does not make it a member.
    Refuse(HostId),
    /// [`Mesh::addresses`] of this host have changed.
    Addresses(HostId),
    /// What is known has changed; it lies on the disk.
    Changed(Changed),
    /// Count so many.
    Count(DropReason, u64),
}

/// Which part of what is known has changed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Changed {
    /// Records of members, or who signs them.
    pub roster: bool,
    /// What hosts say of themselves.
    pub facts: bool,
    /// What the controller says.
    pub decisions: bool,
    /// Who is reachable, or through whom.
    pub reachable: bool,
}

/// One record on its way to the disk; it replaces what has the same key.
#[derive(Clone, Debug)]
pub enum ToStore {
    /// Of any kind; this host's own facts too.
    Record(AnyRecord),
    /// The host was removed: what it said is forgotten.
    FactsGone(HostId),
    /// Only an older mesh key has signed it: forgotten.
    RosterGone(HostId),
}

#[cfg(test)]
mod tests;
