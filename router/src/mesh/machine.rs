//! One host's part in the mesh: (now, event) -> actions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::fact::FactRecord;
use weft_api::id::{HostId, HostKey, MeshKey};
use weft_api::roster::RosterRecord;
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::Succession;

use super::bucket::Bucket;
use super::choice::{Choice, mix};
use super::delta::Delta;
use super::desk::Desk;
use super::graph::Graph;
use super::links::Sight;
use super::own::Own;
use super::record::{AnyRecord, Held, Notary, RecordKey};
use super::spread::Outlet;
use super::sums::Sums;
use super::tie::Tie;
use super::wants::Wants;
use super::{Action, Changed, Decisions, Event, Facts, Heard, Limits, Records, Roster};
use crate::drop::DropReason;

/// What a host's part in the mesh begins with.
pub struct Start {
    /// Who it is.
    pub key: SigningKey,
    /// Signed the roster when the mesh began.
    pub mesh_key: MeshKey,
    /// How often the process has started; the first half of the version of its facts.
    pub boot: u64,
    /// From the disk: who signs it now.
    pub successions: Vec<Signed<Succession>>,
    /// From the disk.
    pub roster: Vec<Signed<RosterRecord>>,
    /// From the disk.
    pub facts: Vec<FactRecord>,
    /// From the disk.
    pub decisions: Vec<Signed<Decision>>,
    /// Where some hosts can be reached, beside what facts say.
    pub hints: Vec<(HostId, SocketAddr)>,
    /// How many neighbours.
    pub limits: Limits,
    /// Random; what is left to chance comes from it.
    pub seed: u64,
    /// Checks signatures.
    pub notary: Arc<dyn Notary>,
}

/// One host's part in the mesh.
#[derive(Debug)]
pub struct Mesh {
    pub(super) me: HostId,
    pub(super) key: SigningKey,
    pub(super) notary: Arc<dyn Notary>,
    pub(super) limits: Limits,
    pub(super) random: u64,
    hints: Vec<(HostId, SocketAddr)>,
    pub(super) roster: Roster,
    /// Successions that were refused for a known one.
    pub(super) rivals: Vec<Held<Succession>>,
    pub(super) facts: Facts,
    pub(super) decisions: Decisions,
    pub(super) sums: Sums,
    pub(super) own: Own,
    pub(super) desk: Desk,
    pub(super) wants: Wants,
    pub(super) ties: BTreeMap<HostId, Tie>,
    pub(super) outlet: Outlet,
    /// Records that the tree has failed to bring.
    pub(super) missed: Bucket,
    pub(super) grafts: Bucket,
    /// What is new to this host.
    pub(super) inflow: Bucket,
    pub(super) proofs: Bucket,
    pub(super) choice: Choice,
    pub(super) kept: BTreeSet<HostId>,
    pub(super) choose_at: Option<Duration>,
    pub(super) compare_at: Option<Duration>,
    /// Where each member says that it sees this host.
    pub(super) seen: BTreeMap<HostId, Sight>,
    pub(super) claims_at: Option<Duration>,
    /// What was said of links.
    pub(super) claims: Bucket,
    /// Every reachable member and the first hop towards it.
    pub(super) ways: BTreeMap<HostId, HostId>,
    pub(super) ways_at: Option<Duration>,
    pub(super) surveyed: Duration,
    /// Of what is known now, unless links or members have changed since.
    pub(super) graph: Option<Graph>,
    /// As of the last event.
    pub(super) now: Duration,
}

impl Mesh {
    /// From what the disk has kept. Records that do not hold (any more) are left out: the second part counts them.
    #[must_use]
    pub fn new(start: Start) -> (Self, Vec<DropReason>) {
        let me = HostKey(start.key.public()).id();
        let mut roster = Roster::new(start.mesh_key);
        let (mut facts, mut decisions, mut sums) = (Facts::default(), Decisions::default(), Sums::default());
        let mut refused = Vec::new();
        let notary = &*start.notary;
        for signed in start.successions {
            match roster.check_succession(notary, &signed) {
                Ok((_, held)) => roster.put_succession(held),
                Err(reason) => refused.push(reason),
            }
        }
        for signed in start.roster {
            match roster.check_stored(notary, &signed) {
                Ok((_, held)) => drop(roster.put(held)),
                Err(reason) => refused.push(reason),
            }
        }
        let gone = roster.leftovers();
        gone.iter().for_each(|host| roster.forget(*host));
        for FactRecord { head, items } in start.facts {
            if head.peek().is_ok_and(|head| gone.contains(&head.owner)) {
                continue;
            }
            let whole = Delta { head, base: None, removed: Vec::new(), added: items };
            match facts.check(notary, &roster, &whole) {
                Ok((_, Heard::News(said))) => drop(facts.put(said)),
                Ok(_) => {}
                Err(reason) => refused.push(reason),
            }
        }
        for signed in start.decisions {
            match decisions.check_stored(notary, &roster, &signed) {
                Ok((_, held)) => drop(decisions.put(held)),
                Err(reason) => refused.push(reason),
            }
        }
        let own = Own::new(roster.mesh(), me, start.boot, facts.get(me).map(|s| s.head.version));
        let mut choice = Choice::new(me);
        choice.set_members(&roster.members());
        let all = roster.successions().iter().map(|h| AnyRecord::Succession(Arc::clone(h)));
        let all = all.chain(roster.records().map(|(_, h)| AnyRecord::Roster(Arc::clone(h))));
        let all = all.chain(facts.records().map(|(_, s)| AnyRecord::Facts(Arc::clone(s))));
        for record in all.chain(decisions.records().map(|h| AnyRecord::Decision(Arc::clone(h)))) {
            sums.add(&record.id().key, record.mark());
        }
        let mesh = Self {
            me,
            key: start.key,
            notary: start.notary,
            limits: start.limits,
            random: start.seed,
            hints: start.hints,
            desk: Desk::new(roster.chain().number()),
            roster,
            rivals: Vec::new(),
            facts,
            decisions,
            sums,
            own,
            wants: Wants::default(),
            ties: BTreeMap::new(),
            outlet: Outlet::default(),
            missed: Bucket::default(),
            grafts: Bucket::default(),
            inflow: Bucket::default(),
            proofs: Bucket::default(),
            choice,
            kept: BTreeSet::new(),
            choose_at: Some(Duration::ZERO),
            compare_at: None,
            seen: BTreeMap::new(),
            claims_at: None,
            claims: Bucket::default(),
            ways: BTreeMap::new(),
            ways_at: None,
            surveyed: Duration::ZERO,
            graph: None,
            now: Duration::ZERO,
        };
        (mesh, refused)
    }

    /// Takes an event; appends what must be done.
    pub fn handle(&mut self, now: Duration, event: Event<'_>, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::Connected(host) => self.connected(now, host),
            Event::Disconnected(host) => self.disconnected(now, host, actions),
            Event::LinkUp(host) => self.link(now, host, true, actions),
            Event::LinkDown(host) => self.link(now, host, false, actions),
            Event::Measured(host, rtt, loss) => self.measured(now, host, rtt, loss),
            Event::Seen(host, address) => self.seen_at(now, host, address),
            Event::Heard(from, gossip) => self.heard(now, from, gossip, actions),
            Event::Presented(key, proof) => self.presented(now, key, proof, actions),
            Event::Say(items) => {
                let left_out = self.own.give(items);
                if left_out > 0 {
                    actions.push(Action::Count(DropReason::RecordTooLong, left_out as u64));
                }
            }
            Event::MadeSuccessions(successions) => {
                self.made(now, Records { successions, ..Records::default() }, actions);
            }
            Event::MadeRoster(roster) => self.made(now, Records { roster, ..Records::default() }, actions),
            Event::MadeDecisions(decisions) => {
                self.made(now, Records { decisions, ..Records::default() }, actions);
            }
            Event::Stored(true) => self.stored(now, actions),
            Event::Stored(false) => self.not_stored(now, actions),
        }
        self.settle(now, actions);
    }

    /// Whatever is due, and what follows from the event.
    fn settle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.now = now;
        self.choose_if_due(now, actions);
        self.claim_if_due(now);
        self.say_own(now, actions);
        self.fetch(now, actions);
        self.compare_if_due(now);
        self.survey_if_due(now, actions);
        self.desk.store(&self.roster, actions);
        let room = self.outlet.has_room(now);
        let ready = |t: &Tie| t.connected && (t.is_asked() || (room && t.ready(now)));
        actions.extend(self.ties.iter().filter(|(_, t)| ready(t)).map(|(host, _)| Action::Send(*host)));
    }

    /// When [`Event::Tick`] is due if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        // What is due already waits for the stream, not for time.
        let later = |at: &Duration| *at > self.now;
        let ties = self.ties.values().filter_map(Tie::next).filter(later);
        let rest = [
            self.choose_at,
            self.claims_at,
            self.own_due(),
            self.wants.next(),
            self.compare_at,
            self.ways_at,
            self.waits().then(|| self.outlet.ready()).filter(later),
            self.desk.next(),
        ];
        ties.chain(rest.into_iter().flatten()).min()
    }

    /// Who is a member.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// What hosts say of themselves.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the controller says.
    #[must_use]
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// The members that can be reached, each with the first hop towards it: itself if there is a link.
    #[must_use]
    pub fn ways(&self) -> &BTreeMap<HostId, HostId> {
        &self.ways
    }

    /// The hosts that this one gossips with.
    pub fn neighbours(&self) -> impl Iterator<Item = HostId> {
        self.ties.iter().filter(|(_, t)| t.bound()).map(|(host, _)| *host)
    }

    /// Where a host may be reached: as given here, as it says itself, as the controller says.
    #[must_use]
    pub fn addresses(&self, host: HostId) -> Vec<SocketAddr> {
        self.places(host).collect()
    }

    pub(super) fn places(&self, host: HostId) -> impl Iterator<Item = SocketAddr> {
        let given = self.hints.iter().filter(move |(h, _)| *h == host).map(|(_, a)| *a);
        let said = self.facts.get(host).into_iter().flat_map(|s| s.addresses.iter().copied());
        let decided = match self.decisions.get(&DecisionKey::Controller).and_then(|d| d.body.as_ref()) {
            Some(DecisionBody::Controller { host: h, addresses }) if *h == host => &addresses[..],
            _ => &[],
        };
        let usable = |a: &SocketAddr| a.port() != 0 && !a.ip().is_unspecified() && !a.ip().is_multicast();
        given.chain(said).chain(decided.iter().copied()).filter(usable)
    }

    /// A sum of all that is known: hosts that know the same have the same.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.sums.root()
    }

    /// A record of any kind.
    pub(super) fn record(&self, key: &RecordKey) -> Option<AnyRecord> {
        match key {
            RecordKey::Succession(number) => {
                self.roster.succession(*number).cloned().map(AnyRecord::Succession)
            }
            RecordKey::Roster(host) => self.roster.held(*host).cloned().map(AnyRecord::Roster),
            RecordKey::Decision(key) => self.decisions.held(key).cloned().map(AnyRecord::Decision),
            RecordKey::Facts(host) => self.facts.get(*host).cloned().map(AnyRecord::Facts),
        }
    }

    /// Every record.
    pub(super) fn records(&self) -> impl Iterator<Item = AnyRecord> {
        let keys = self.roster.successions().iter().map(|h| AnyRecord::Succession(Arc::clone(h)));
        let members = self.roster.records().map(|(_, h)| AnyRecord::Roster(Arc::clone(h)));
        let said = self.facts.records().map(|(_, s)| AnyRecord::Facts(Arc::clone(s)));
        let decided = self.decisions.records().map(|h| AnyRecord::Decision(Arc::clone(h)));
        keys.chain(members).chain(said).chain(decided)
    }

    /// A number that nobody can foretell.
    pub(super) fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random)
    }

    /// `at`, a quarter up or down.
    pub(super) fn around(&mut self, now: Duration, pause: Duration) -> Duration {
        let part = u32::from(self.draw().to_be_bytes()[0]);
        now + pause * 3 / 4 + pause * part / 510
    }

    /// What has changed in what is known.
    pub(super) fn changed(&mut self, now: Duration, changed: Changed, actions: &mut Vec<Action>) {
        if changed.roster {
            self.choice.set_members(&self.roster.members());
            self.choose_at = Some(now);
        }
        if changed != Changed::default() {
            actions.push(Action::Changed(changed));
        }
    }
}
