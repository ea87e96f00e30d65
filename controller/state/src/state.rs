//! What is decided, and how events change it. A plain value: it can be stored whole, and compared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::{HostId, HostKey, NetworkId, TokenId};
use weft_api::network::Network;
use weft_api::report;
use weft_api::roster::{MeshRecord, RosterRecord, Standing, Under};
use weft_api::sign::Signed;
use weft_api::succession::Succession;

use crate::event::Event;
use crate::token::Token;

/// So many things that are gone are remembered as gone; then the oldest is forgotten, and a host that was away since before it
/// went could bring it back.
pub const MAX_TOMBSTONES: usize = 8192;

/// So many removed tokens are remembered as removed; older ones become unknown, which refuses them as well.
pub const MAX_REMOVED_TOKENS: usize = 256;

/// Everything that is decided in a mesh.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct State {
    mesh: Option<MeshRecord>,
    revision: u64,
    #[serde(default)]
    successions: Vec<Signed<Succession>>,
    roster: BTreeMap<HostKey, RosterRecord>,
    pub(crate) tokens: BTreeMap<TokenId, Token>,
    pub(crate) removed_tokens: VecDeque<TokenId>,
    #[serde(with = "pairs")]
    decisions: BTreeMap<DecisionKey, Decided>,
}

/// What was decided last about a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decided {
    /// Under which revision.
    pub revision: u64,
    /// What holds; `None`: it is gone.
    pub body: Option<DecisionBody>,
}

impl State {
    /// The state after the event. Never fails: what an event says has been decided and stored.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Founded(mesh) => self.mesh = Some(mesh.clone()),
            Event::Rotated { succession, by } => {
                self.successions.push(succession.clone());
                let under = Under { key: self.key_number(), carried: true };
                for record in self.roster.values_mut() {
                    (record.under, record.serial) = (under, record.serial.saturating_add(1));
                    record.roles.signer = record.key == *by;
                }
            }
            Event::KeyTaken(successions) => self.successions.clone_from(successions),
            Event::Enrolled(record) => {
                self.roster.insert(record.key, record.clone());
            }
            Event::TokenMade { id, key, expires, once } => {
                let token = Token { key: *key, expires: *expires, once: *once, used_by: BTreeSet::new() };
                self.tokens.insert(*id, token);
            }
            Event::TokenRemoved(id) => {
                self.tokens.remove(id);
                self.removed_tokens.push_back(*id);
                if self.removed_tokens.len() > MAX_REMOVED_TOKENS {
                    self.removed_tokens.pop_front();
                }
            }
            Event::TokenUsed { id, by } => {
                if let Some(token) = self.tokens.get_mut(id) {
                    token.used_by.insert(*by);
                }
            }
            Event::Decided { revision, key, body } => {
                self.revision = self.revision.max(*revision);
                self.decisions.insert(key.clone(), Decided { revision: *revision, body: body.clone() });
                if body.is_none() {
                    self.forget_oldest_tombstone();
                }
            }
        }
    }

    /// What every member agrees on; `None` before the mesh is founded.
    #[must_use]
    pub fn mesh(&self) -> Option<&MeshRecord> {
        self.mesh.as_ref()
    }

    /// The successors of the mesh key, up to the one that this signer has.
    #[must_use]
    pub fn successions(&self) -> &[Signed<Succession>] {
        &self.successions
    }

    /// The revision of the last decision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Every host that is or was a member.
    pub fn roster(&self) -> impl Iterator<Item = &RosterRecord> {
        self.roster.values()
    }

    /// The hosts that are members.
    pub fn members(&self) -> impl Iterator<Item = &RosterRecord> {
        self.roster().filter(|record| record.standing == Standing::Member)
    }

    /// The record of a key, member or removed.
    #[must_use]
    pub fn record(&self, key: &HostKey) -> Option<&RosterRecord> {
        self.roster.get(key)
    }

    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: HostId) -> Option<&RosterRecord> {
        self.members().find(|record| record.key.id() == id)
    }

    /// Every decision, what is gone included.
    pub fn decisions(&self) -> impl Iterator<Item = (&DecisionKey, &Decided)> {
        self.decisions.iter()
    }

    /// The last decision about a key.
    #[must_use]
    pub fn decided(&self, key: &DecisionKey) -> Option<&Decided> {
        self.decisions.get(key)
    }

    /// The networks that exist.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        let first = DecisionKey::Network(NetworkId(0));
        let last = DecisionKey::Network(NetworkId(u32::MAX));
        self.decisions.range(first..=last).filter_map(|(_, decided)| match &decided.body {
            Some(DecisionBody::Network(network)) => Some(network),
            _ => None,
        })
    }

    /// The network with this id.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        match self.decisions.get(&DecisionKey::Network(id))?.body.as_ref()? {
            DecisionBody::Network(network) => Some(network),
            _ => None,
        }
    }

    /// The blocks of a network that hosts hold, ascending.
    pub fn blocks(&self, network: NetworkId) -> impl Iterator<Item = (IpNet, HostId)> {
        self.decisions
            .range(DecisionKey::Block(network, LOWEST)..)
            .map_while(move |(key, decided)| match key {
                DecisionKey::Block(of, block) if *of == network => Some((*block, decided)),
                _ => None,
            })
            .filter_map(|(block, decided)| match decided.body {
                Some(DecisionBody::Block { owner }) => Some((block, owner)),
                _ => None,
            })
    }

    /// The blocks of one range of a network that one host holds, ascending.
    pub fn blocks_of(&self, network: NetworkId, range: IpNet, host: HostId) -> impl Iterator<Item = IpNet> {
        self.blocks(network)
            .filter(move |(block, owner)| *owner == host && range.contains(block))
            .map(|(block, _)| block)
    }

    /// The addresses of a network that are leased, ascending, and to whom.
    pub fn leases(&self, network: NetworkId) -> impl Iterator<Item = (IpAddr, HostId)> {
        self.decisions
            .range(DecisionKey::Lease(network, IpAddr::V4(Ipv4Addr::UNSPECIFIED))..)
            .map_while(move |(key, decided)| match key {
                DecisionKey::Lease(of, address) if *of == network => Some((*address, decided)),
                _ => None,
            })
            .filter_map(|(address, decided)| match decided.body {
                Some(DecisionBody::Lease { owner }) => Some((address, owner)),
                _ => None,
            })
    }

    /// The tokens, with the names of the hosts that joined by them.
    pub fn tokens(&self) -> impl Iterator<Item = report::Token> {
        self.tokens.iter().map(|(id, token)| report::Token {
            id: *id,
            expires: token.expires,
            once: token.once,
            used_by: token.used_by.iter().map(|key| self.name_of(key)).collect(),
        })
    }

    /// A host's name, or its id if it is no member.
    pub(crate) fn name(&self, id: HostId) -> String {
        self.member(id).map_or_else(|| id.to_string(), |record| record.name.clone())
    }

    pub(crate) fn name_of(&self, key: &HostKey) -> String {
        self.record(key).map_or_else(|| key.id().to_string(), |record| record.name.clone())
    }

    /// Decisions under the revisions that follow the last one.
    pub(crate) fn decide_all(
        &self,
        decisions: impl IntoIterator<Item = (DecisionKey, Option<DecisionBody>)>,
    ) -> Vec<Event> {
        (self.revision + 1..)
            .zip(decisions)
            .map(|(revision, (key, body))| Event::Decided { revision, key, body })
            .collect()
    }

    fn forget_oldest_tombstone(&mut self) {
        let graves = || self.decisions.iter().filter(|(_, decided)| decided.body.is_none());
        if graves().count() > MAX_TOMBSTONES
            && let Some(oldest) =
                graves().min_by_key(|(_, decided)| decided.revision).map(|(key, _)| key.clone())
        {
            self.decisions.remove(&oldest);
        }
    }
}

/// Sorts before every other range.
const LOWEST: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

/// JSON has no maps whose keys are not text.
mod pairs {
    use super::{BTreeMap, Decided, DecisionKey, Deserialize, Serialize};

    pub fn serialize<S: serde::Serializer>(
        map: &BTreeMap<DecisionKey, Decided>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(s)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<DecisionKey, Decided>, D::Error> {
        Ok(Vec::<(DecisionKey, Decided)>::deserialize(d)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tombstone_is_forgotten_first() {
        let mut state = State::default();
        let key = |n: u64| DecisionKey::Network(NetworkId(u32::MAX - u32::try_from(n).unwrap()));
        let all = MAX_TOMBSTONES as u64 + 5;
        for n in 1..=all {
            state.apply(&Event::Decided { revision: n, key: key(n), body: None });
        }
        assert_eq!(state.decisions().count(), MAX_TOMBSTONES);
        assert_eq!(state.revision(), all);
        assert!((1..=5).all(|n| state.decided(&key(n)).is_none()));
        assert!(state.decided(&key(6)).is_some());
    }

    #[test]
    fn removed_tokens_are_remembered_for_a_while() {
        let mut state = State::default();
        for n in 0..=MAX_REMOVED_TOKENS {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            state.apply(&Event::TokenRemoved(TokenId(id)));
        }
        assert_eq!(state.removed_tokens.len(), MAX_REMOVED_TOKENS);
        assert!(!state.removed_tokens.contains(&TokenId([0; 16])));
    }
}
