//! A neighbour whose key is good and whose words are not: each is refused by its name, and the mesh goes on.

use weft_api::decision::{Decision, DecisionKey};
use weft_api::fact::{FactRecord, FactVersion, Item, Items};
use weft_api::id::{HostKey, MeshKey, NetworkId};
use weft_api::roster::Standing;

use super::super::*;
use super::start;
use super::world::{MS, id, key, member, mesh_key};

/// The victim is host 0, the attacker host 1; host 2 is a third member.
struct Stage {
    mesh: Mesh,
    now: Duration,
    counts: BTreeMap<DropReason, u64>,
    sent: Vec<(HostId, Gossip)>,
}

impl Stage {
    fn new() -> Self {
        let start = start((0..3).map(|n| member(n, 1, Standing::Member)).collect());
        let mesh = Mesh::new(start).0;
        let mut stage = Self { mesh, now: Duration::ZERO, counts: BTreeMap::new(), sent: Vec::new() };
        for n in [1, 2] {
            stage.event(Event::Connected(id(n)));
            stage.event(Event::LinkUp(id(n)));
        }
        stage.event(Event::Say(&[Item::Version("victim".into())]));
        stage.hear(Gossip::Neighbour(Bond::Wanted));
        stage.counts.clear();
        stage
    }

    fn event(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.mesh.handle(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Store(_) => self.event(Event::Stored(true)),
                Action::Count(reason, n) => *self.counts.entry(reason).or_default() += n,
                Action::Send(host) => {
                    while let Some(gossip) = self.mesh.next_message(self.now, host) {
                        self.sent.push((host, gossip));
                    }
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, gossip: Gossip) {
        self.event(Event::Heard(id(1), &gossip));
    }

    fn counted(&mut self, gossip: Gossip, reason: DropReason) {
        let before = (self.mesh.sums.root(), self.counts.get(&reason).copied().unwrap_or_default());
        self.hear(gossip);
        assert_eq!(self.counts.get(&reason).copied(), Some(before.1 + 1), "{reason:?}: {:?}", self.counts);
        assert_eq!(self.mesh.sums.root(), before.0, "{reason:?} changed something");
    }
}

fn facts(signer: usize, owner: usize, boot: u64, items: Items) -> Gossip {
    let mesh = MeshKey(mesh_key().public()).id();
    let version = FactVersion { boot, sequence: 1 };
    let record = FactRecord::sign(&key(signer), mesh, id(owner), version, items);
    let facts = vec![Delta { head: record.head, base: None, removed: Vec::new(), added: record.items }];
    Gossip::Push(Records { facts, ..Records::default() })
}

fn version(n: u32) -> Items {
    Items::new(vec![Item::Version(n.to_string()).encode()])
}

#[test]
fn what_is_not_its_own_is_refused() {
    let mut stage = Stage::new();
    stage.counted(facts(1, 2, 9, version(1)), DropReason::RecordForged);
    stage.counted(facts(1, 0, 9, version(1)), DropReason::RecordForged);
    stage.counted(facts(9, 9, 9, version(1)), DropReason::FactOfStranger);
    stage.counted(facts(1, 1, u64::MAX, version(1)), DropReason::RecordInvalid);
    let decision = Decision {
        mesh: stage.mesh.roster().mesh(),
        revision: u64::MAX,
        signer: HostKey(key(1).public()),
        key: DecisionKey::Network(NetworkId(1)),
        body: None,
    };
    let decisions = vec![key(1).sign(&decision)];
    let push = Gossip::Push(Records { decisions, ..Records::default() });
    stage.counted(push, DropReason::DecisionNotControllers);
    let decisions = vec![key(1).sign(&Decision { signer: HostKey(key(0).public()), ..decision })];
    stage.counted(Gossip::Push(Records { decisions, ..Records::default() }), DropReason::RecordForged);
    let record = member(1, 9, Standing::Member).peek().unwrap();
    let roster = vec![key(1).sign(&record)];
    stage.counted(Gossip::Answer(Records { roster, ..Records::default() }), DropReason::RecordForged);
    stage.hear(Gossip::Push(Records { roster: vec![member(2, 0, Standing::Member)], ..Records::default() }));
    assert_eq!(stage.mesh.roster().get(id(2)).unwrap().serial, 1, "an old record changes nothing");
    assert_eq!(stage.mesh.ways().len(), 2);
}

#[test]
fn claimed_links_count_only_if_the_other_end_claims_them_too() {
    let mut stage = Stage::new();
    stage.event(Event::LinkDown(id(2)));
    stage.now += 1000 * MS;
    let far = |host| Item::Neighbour { host, rtt_us: 1, loss_percent: 0 }.encode();
    stage.hear(facts(1, 1, 1, Items::new(vec![far(id(2)), far(id(7)), far(id(0))])));
    stage.now += 1000 * MS;
    stage.event(Event::Tick);
    assert_eq!(stage.mesh.ways().keys().copied().collect::<Vec<_>>(), [id(1)]);
}

#[test]
fn floods_are_bounded_and_end_nothing() {
    let mut stage = Stage::new();
    for n in 0..200 {
        stage.hear(facts(1, 1, u64::from(n) + 1, version(n)));
    }
    assert_eq!(stage.mesh.facts().get(id(1)).unwrap().head.version.boot, 64, "a burst");
    assert_eq!(stage.counts[&DropReason::FactsTooFast], 136);
    let root = Gossip::Root(7);
    (0..1000).for_each(|_| stage.hear(root.clone()));
    assert!(stage.counts[&DropReason::QuestionsTooFast] >= 800, "{:?}", stage.counts);
    stage.now += 10_000 * MS;
    let ids = |n: u32| {
        let [a, b, ..] = n.to_le_bytes();
        let key = RecordKey::Facts(HostId([a, b, 9, 9, 9, 9, 9, 9]));
        Id { key, rank: (u64::MAX, u64::MAX), mark: 1 }
    };
    for some in 0..30 {
        stage.hear(Gossip::Ids((0..1000).map(|n| ids(some * 1000 + n)).collect()));
    }
    assert!(stage.counts[&DropReason::IdsTooMany] > 10_000, "{:?}", stage.counts);
    for _ in 0..3000 {
        stage.now += 20 * MS;
        stage.event(Event::Tick);
    }
    assert!(stage.counts[&DropReason::AskUnanswered] > 100, "{:?}", stage.counts);
    let asks = |n: u32| Ask { key: ids(n).key, have: Some((FactVersion::default(), vec![n; 100])) };
    let many = |from: u32| Gossip::Ask { graft: true, asks: (from..from + 64).map(asks).collect() };
    stage.event(Event::Disconnected(id(1)));
    stage.hear(Gossip::Neighbour(Bond::Wanted));
    (0..100).for_each(|n| stage.hear(many(n * 64)));
    assert!(stage.counts[&DropReason::AsksTooMany] > 5000, "{:?}", stage.counts);
    // The third member is heard as ever.
    let Gossip::Push(records) = facts(2, 2, 1, version(1)) else { unreachable!() };
    stage.event(Event::Heard(id(2), &Gossip::Push(records)));
    assert!(stage.mesh.facts().get(id(2)).is_some());
}

#[test]
fn what_is_asked_for_again_and_again_is_sent_no_faster_than_the_bound() {
    let mut stage = Stage::new();
    let long: Vec<Item> = (0..200).map(|n| Item::Version(format!("{n:0>1000}"))).collect();
    stage.event(Event::Say(&long));
    stage.now += 1000 * MS;
    stage.event(Event::Tick);
    stage.sent.clear();
    let ask = Ask { key: RecordKey::Facts(id(0)), have: None };
    let mut sent = Vec::new();
    for n in 0..500 {
        stage.now += 10 * MS;
        if n % 3 == 0 {
            stage.hear(Gossip::Ask { graft: false, asks: vec![ask.clone()] });
        }
        stage.event(Event::Tick);
        sent.push(stage.sent.drain(..).map(|(_, gossip)| gossip.size()).sum::<usize>());
    }
    let most = sent.windows(100).map(|second| second.iter().sum::<usize>()).max().unwrap();
    println!("{most} bytes in a second");
    assert!((400_000..1_000_000).contains(&most), "{most}");
}

#[test]
fn records_beyond_the_rate_are_not_looked_at() {
    let mut stage = Stage::new();
    let Gossip::Push(first) = facts(1, 1, 1, version(1)) else { unreachable!() };
    let again =
        Gossip::Answer(Records { facts: vec![first.facts[0].clone(); MAX_RECORDS], ..Records::default() });
    while !stage.counts.contains_key(&DropReason::RecordsTooFast) {
        stage.hear(again.clone());
    }
    assert_eq!(stage.counts[&DropReason::RecordsTooFast], MAX_RECORDS as u64, "a message goes whole");
    let next = facts(1, 1, 2, version(2));
    stage.counted(next.clone(), DropReason::RecordsTooFast);
    stage.event(Event::Heard(id(2), &facts(2, 2, 1, version(1))));
    assert!(stage.mesh.facts().get(id(2)).is_some(), "the third member is heard as ever");
    stage.now += 10 * MS;
    stage.hear(next);
    assert_eq!(stage.mesh.facts().get(id(1)).unwrap().head.version.boot, 2, "a second has 1000 of them");
}

#[test]
fn prunes_and_listings_change_nothing_that_is_believed() {
    let mut stage = Stage::new();
    stage.hear(facts(1, 1, 1, version(1)));
    let root = stage.mesh.sums.root();
    let own = Id { key: RecordKey::Facts(id(0)), rank: (u64::MAX, u64::MAX), mark: 1 };
    let every: Vec<u8> = (0..=255).collect();
    for _ in 0..100 {
        stage.hear(Gossip::Prune);
        stage.hear(Gossip::Branches(vec![1; 16]));
        stage.hear(Gossip::Leaves((0..16).map(|n| (n * 17, vec![n.into(); 16])).collect()));
        stage.hear(Gossip::Listing { leaves: every.clone(), ids: Vec::new() });
        stage.hear(Gossip::Listing { leaves: vec![3, 3], ids: vec![own.clone(); 100] });
    }
    assert_eq!(stage.mesh.sums.root(), root);
    assert!(stage.counts.contains_key(&DropReason::QuestionsTooFast), "{:?}", stage.counts);
    let whole = |g: &Gossip| matches!(g, Gossip::Answer(r) | Gossip::Push(r) if !r.is_empty());
    let sent = stage.sent.iter().filter(|(to, g)| *to == id(1) && whole(g)).count();
    assert!(sent < 250, "{sent} messages of records for 500 questions");
    stage.sent.clear();
    stage.event(Event::Say(&[Item::Version("new".into())]));
    stage.now += 2000 * MS;
    stage.event(Event::Tick);
    assert!(stage.sent.iter().any(|(to, _)| *to == id(2)), "the others hear of news: {:?}", stage.sent);
}

#[test]
fn a_delta_that_does_not_hash_is_asked_for_whole() {
    let mut stage = Stage::new();
    stage.hear(facts(1, 1, 1, version(1)));
    let Gossip::Push(mut records) = facts(1, 1, 2, version(2)) else { unreachable!() };
    records.facts[0].base = Some(FactVersion { boot: 1, sequence: 1 });
    stage.sent.clear();
    stage.counted(Gossip::Push(records), DropReason::DeltaMismatch);
    let whole = Ask { key: RecordKey::Facts(id(1)), have: None };
    let asked = stage
        .sent
        .iter()
        .any(|(to, g)| *to == id(1) && matches!(g, Gossip::Ask { asks, .. } if *asks == [whole.clone()]));
    assert!(asked, "{:?}", stage.sent);
}
