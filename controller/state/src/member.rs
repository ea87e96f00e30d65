//! Who is a member: founding, joining, being removed, leaving (PROTOCOL 1).

use std::net::SocketAddr;

use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::id::{HostId, HostKey, NetworkId};
use weft_api::network::check_host_name;
use weft_api::request::Goodbye;
use weft_api::roster::{MeshRecord, Roles, RosterRecord, Standing, Under};
use weft_api::sign::Signed;
use weft_api::succession::Succession;
use weft_api::token::JoinWish;

use crate::event::Event;
use crate::refusal::Refusal;
use crate::rotation::appointed;
use crate::state::State;

/// A mesh has at most this many members while every member keeps a session with every other (PROTOCOL 6); a further one is refused.
pub const MAX_MEMBERS: usize = 32;

/// The roster keeps at most this many records, removed hosts included, which it must never forget; a further host is refused.
pub const MAX_ROSTER: usize = 1024;

/// So many addresses of the deciding host are kept; further ones are left out.
pub const MAX_ADDRESSES: usize = 32;

impl State {
    pub(crate) fn found(
        &self,
        mesh: MeshRecord,
        key: HostKey,
        name: String,
        addresses: Vec<SocketAddr>,
    ) -> Result<Vec<Event>, Refusal> {
        if let Some(mesh) = self.mesh() {
            return Err(Refusal::AlreadyFounded(mesh.name.clone()));
        }
        check_host_name(&name)?;
        let roles = Roles { founder: true, controller: true, signer: true };
        let record = RosterRecord {
            mesh: mesh.mesh,
            key,
            name,
            roles,
            serial: 1,
            standing: Standing::Member,
            under: Under::default(),
        };
        let mut events = vec![Event::Founded(mesh), Event::Enrolled(record)];
        events.extend(self.place(key.id(), addresses)?);
        Ok(events)
    }

    /// The first events of a signer that has not founded its mesh: its own record says what it is from now on.
    pub(crate) fn appoint(
        &self,
        mesh: MeshRecord,
        successions: Vec<Signed<Succession>>,
        roster: Vec<RosterRecord>,
        key: HostKey,
    ) -> Result<Vec<Event>, Refusal> {
        if let Some(mesh) = self.mesh() {
            return Err(Refusal::AlreadyFounded(mesh.name.clone()));
        }
        let own = roster.iter().find(|r| r.key == key && r.standing == Standing::Member);
        let own = own.ok_or(Refusal::NotAMember)?.clone();
        let own = appointed(own, u32::try_from(successions.len()).unwrap_or(u32::MAX));
        let others = roster.into_iter().filter(|r| r.key != key);
        let taken = (!successions.is_empty()).then_some(Event::KeyTaken(successions));
        let first = std::iter::once(Event::Founded(mesh)).chain(taken);
        Ok(first.chain(others.chain([own]).map(Event::Enrolled)).collect())
    }

    pub(crate) fn place(&self, host: HostId, mut addresses: Vec<SocketAddr>) -> Result<Vec<Event>, Refusal> {
        addresses.truncate(MAX_ADDRESSES);
        let body = Some(DecisionBody::Controller { host, addresses });
        if self.decided(&DecisionKey::Controller).is_some_and(|now| now.body == body) {
            return Ok(Vec::new());
        }
        Ok(self.decide_all([(DecisionKey::Controller, body)]))
    }

    /// The order of the questions matters: nothing about the mesh is told to who has not got a token, and a host that has
    /// been admitted gets the same answer even when its token has expired or been used up since, by itself.
    pub(crate) fn join(&self, now: u64, wish: &Signed<JoinWish>) -> Result<Vec<Event>, Refusal> {
        let mesh = self.mesh().ok_or(Refusal::NoMesh)?;
        let claimed = wish.peek().map_err(|_| Refusal::UnreadableWish)?;
        if claimed.mesh != mesh.mesh {
            return Err(Refusal::OtherMesh { mesh: mesh.name.clone() });
        }
        let token = self.find_token(claimed.token)?;
        let wish = wish.verify(&token.key).map_err(|_| Refusal::ForgedWish)?;
        let known = self.record(&wish.key);
        if known.is_some_and(|record| record.standing == Standing::Removed) {
            return Err(Refusal::RemovedHost);
        }
        if known.is_some() && token.used_by.contains(&wish.key) {
            return Ok(Vec::new());
        }
        if token.expires <= now {
            return Err(Refusal::ExpiredToken { ago: now - token.expires });
        }
        if token.once
            && let Some(by) = token.used_by.first()
        {
            return Err(Refusal::UsedToken { by: self.name_of(by) });
        }
        if known.is_some() {
            return Ok(Vec::new());
        }
        self.admit(mesh, wish)
    }

    fn admit(&self, mesh: &MeshRecord, wish: JoinWish) -> Result<Vec<Event>, Refusal> {
        check_host_name(&wish.name)?;
        if self.has_member_named(&wish.name) {
            let free = self.free_name(&wish.name);
            return Err(Refusal::HostNameTaken { name: wish.name, free });
        }
        let id = wish.key.id();
        if self.roster().any(|record| record.key.id() == id) {
            return Err(Refusal::IdCollision);
        }
        if self.members().count() >= MAX_MEMBERS {
            return Err(Refusal::TooManyMembers);
        }
        if self.roster().count() >= MAX_ROSTER {
            return Err(Refusal::RosterFull);
        }
        let record = RosterRecord {
            mesh: mesh.mesh,
            key: wish.key,
            name: wish.name,
            roles: Roles::default(),
            serial: 1,
            standing: Standing::Member,
            under: Under { key: self.key_number(), carried: false },
        };
        Ok(vec![Event::Enrolled(record), Event::TokenUsed { id: wish.token, by: wish.key }])
    }

    pub(crate) fn remove_host(&self, name: &str) -> Result<Vec<Event>, Refusal> {
        let record = self
            .members()
            .find(|record| record.name.eq_ignore_ascii_case(name))
            .or_else(|| self.member(name.parse().ok()?))
            .ok_or_else(|| Refusal::UnknownHost(name.chars().take(80).collect()))?;
        self.remove(record)
    }

    /// The host's own signature decides, not who brings it: a host that leaves may have no other way than through a third one.
    pub(crate) fn goodbye(&self, goodbye: &Signed<Goodbye>) -> Result<Vec<Event>, Refusal> {
        let mesh = self.mesh().ok_or(Refusal::NoMesh)?;
        let claimed = goodbye.peek().map_err(|_| Refusal::ForgedGoodbye)?;
        let goodbye = goodbye.verify(&claimed.key.0).map_err(|_| Refusal::ForgedGoodbye)?;
        if goodbye.mesh != mesh.mesh {
            return Err(Refusal::ForgedGoodbye);
        }
        let record = self.record(&goodbye.key).ok_or(Refusal::NotAMember)?;
        match record.standing {
            Standing::Removed => Ok(Vec::new()),
            Standing::Member => self.remove(record),
        }
    }

    fn remove(&self, record: &RosterRecord) -> Result<Vec<Event>, Refusal> {
        if record.roles.founder || record.roles.controller {
            return Err(Refusal::Founder(record.name.clone()));
        }
        let removed =
            RosterRecord { serial: record.serial + 1, standing: Standing::Removed, ..record.clone() };
        let mut events = vec![Event::Enrolled(removed)];
        events.extend(self.decide_all(self.addresses_back(&[record.key.id()])));
        Ok(events)
    }

    /// The blocks and leases of hosts that are members no more.
    fn addresses_back(&self, gone: &[HostId]) -> Vec<(DecisionKey, Option<DecisionBody>)> {
        let of_one = |network: NetworkId| {
            let blocks = self
                .blocks(network)
                .filter(|(_, owner)| gone.contains(owner))
                .map(move |(block, _)| (DecisionKey::Block(network, block), None));
            let leases = self
                .leases(network)
                .filter(|(_, owner)| gone.contains(owner))
                .map(move |(address, _)| (DecisionKey::Lease(network, address), None));
            blocks.chain(leases)
        };
        self.networks().flat_map(|network| of_one(network.id)).collect()
    }

    /// What the mesh knows better than a store that was restored from a backup: newer records by the roster's own rule
    /// ([`State::merged`]), decisions by their revision. Whom another signer has removed gives its
    /// blocks and leases back.
    pub(crate) fn hear(&self, roster: Vec<RosterRecord>, decisions: Vec<Decision>) -> Vec<Event> {
        let Some(mesh) = self.mesh() else { return Vec::new() };
        let records: Vec<RosterRecord> = roster
            .into_iter()
            .filter(|heard| heard.mesh == mesh.mesh)
            .filter_map(|heard| self.merged(heard))
            .collect();
        let decisions: Vec<Event> = decisions
            .into_iter()
            .filter(|heard| heard.mesh == mesh.mesh)
            .filter(|heard| self.decided(&heard.key).is_none_or(|ours| ours.revision < heard.revision))
            // What is gone and unknown here was forgotten on purpose, unless it is newer than all that is known.
            .filter(|heard| {
                heard.body.is_some() || self.decided(&heard.key).is_some() || heard.revision > self.revision()
            })
            .map(|heard| Event::Decided { revision: heard.revision, key: heard.key, body: heard.body })
            .collect();
        // Decisions of ours that were forgotten come first: what is decided then is newer.
        let gone: Vec<HostId> =
            records.iter().filter(|r| r.standing == Standing::Removed).map(|r| r.key.id()).collect();
        let back = if decisions.is_empty() { self.addresses_back(&gone) } else { Vec::new() };
        let back = self.decide_all(back);
        records.into_iter().map(Event::Enrolled).chain(decisions).chain(back).collect()
    }

    fn has_member_named(&self, name: &str) -> bool {
        self.members().any(|record| record.name.eq_ignore_ascii_case(name))
    }

    fn free_name(&self, name: &str) -> String {
        let stem: String = name.chars().take(59).collect();
        (2..=MAX_MEMBERS + 2)
            .map(|n| format!("{stem}-{n}"))
            .find(|candidate| !self.has_member_named(candidate))
            .unwrap_or(stem)
    }
}
