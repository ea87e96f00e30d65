//! What members say about records, to a host that believes every signature: what is behind the signatures is tested here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use weft_api::fact::{FactRecord, FactVersion, Item, Items};
use weft_api::id::{HostId, MeshKey};
use weft_api::sign::Signed;
use weft_router::mesh::{
    Action, AnyRecord, Ask, Bond, Delta, Event, Gossip, Limits, Mesh, Notary, RecordKey, Records, Start,
    ToStore,
};
use weft_router::session::message::{LENGTH_LEN, MAX_MESSAGE_LEN, Message};

use crate::cast::{HOSTS, carried_over, host, key, mesh_key, roster, succession};
use crate::input::{Input, with_length};
use crate::records::{decisions, fact, items};

/// No event may make so much work.
const MOST_ACTIONS: usize = 4096;

#[derive(Debug)]
struct Credulous;

impl Notary for Credulous {
    fn verify(&self, _key: &[u8; 32], _bytes: &[u8], _signature: &[u8]) -> bool {
        true
    }
}

struct Tested {
    mesh: Mesh,
    now: Duration,
    /// Written, and not yet answered.
    pending: VecDeque<Vec<ToStore>>,
    disk: BTreeMap<RecordKey, AnyRecord>,
}

fn start(disk: &BTreeMap<RecordKey, AnyRecord>) -> (Mesh, usize) {
    let (mut members, mut facts, mut decisions) = (roster().to_vec(), Vec::new(), Vec::new());
    let mut successions = Vec::new();
    for record in disk.values() {
        match record {
            AnyRecord::Succession(held) => successions.push(held.signed.clone()),
            AnyRecord::Roster(held) => {
                members.retain(|m| m.peek().is_ok_and(|m| m.key != held.record.key));
                members.push(held.signed.clone());
            }
            AnyRecord::Facts(said) => facts.push(said.record.clone()),
            AnyRecord::Decision(held) => decisions.push(held.signed.clone()),
        }
    }
    let start = Start {
        key: key(0),
        mesh_key: MeshKey(mesh_key().public()),
        boot: 1,
        successions,
        roster: members,
        facts,
        decisions,
        hints: vec![(host(2), "192.0.2.2:6783".parse().expect("an address"))],
        limits: Limits { everybody: 4, choices: 2, neighbours: 4 },
        seed: 11,
        notary: Arc::new(Credulous),
    };
    let (mesh, refused) = Mesh::new(start);
    (mesh, refused.len())
}

impl Tested {
    fn tell(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.mesh.handle(self.now, event, &mut actions);
        assert!(actions.len() < MOST_ACTIONS, "one event made {} actions", actions.len());
        let mut sends = Vec::new();
        for action in actions {
            match action {
                Action::Store(records) => self.pending.push_back(records),
                Action::Send(to) => sends.push(to),
                _ => {}
            }
        }
        sends.into_iter().for_each(|to| self.pull(to));
        assert!(self.mesh.next_wake().is_none_or(|at| at < Duration::from_secs(1 << 40)));
    }

    /// Everything that waits for a host: within bounds, readable, and it ends.
    fn pull(&mut self, to: HostId) {
        let mut messages = 0;
        while let Some(gossip) = self.mesh.next_message(self.now, to) {
            messages += 1;
            assert!(messages < 10_000, "messages to one host do not end");
            let message = Message::Mesh(gossip);
            let bytes = message.encode();
            assert!(bytes.len() - LENGTH_LEN <= MAX_MESSAGE_LEN, "a message of {} bytes", bytes.len());
            assert_eq!(
                Message::decode(&bytes[LENGTH_LEN..]).as_ref(),
                Ok(&message),
                "what we say can be read"
            );
        }
    }

    fn stored(&mut self, well: bool) {
        let Some(records) = self.pending.pop_front() else { return };
        for record in records.into_iter().filter(|_| well) {
            match record {
                ToStore::Record(record) => drop(self.disk.insert(record.id().key, record)),
                ToStore::FactsGone(host) => drop(self.disk.remove(&RecordKey::Facts(host))),
                ToStore::RosterGone(host) => drop(self.disk.remove(&RecordKey::Roster(host))),
            }
        }
        self.tell(Event::Stored(well));
    }
}

/// Steps: what happens, to which host, what it says. At the end the host starts anew with what its disk has.
pub(crate) fn gossip(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mesh, refused) = start(&BTreeMap::new());
    assert_eq!(refused, 0);
    let mut tested = Tested { mesh, now: Duration::ZERO, pending: VecDeque::new(), disk: BTreeMap::new() };
    tested.tell(Event::Tick);
    let mut steps = 0;
    while !input.is_empty() && steps < 1000 {
        steps += 1;
        step(&mut tested, &mut input);
    }
    while !tested.pending.is_empty() {
        tested.stored(true);
    }
    let (again, refused) = start(&tested.disk);
    let members = |mesh: &Mesh| mesh.roster().members().len();
    assert_eq!(members(&again), members(&tested.mesh), "what was stored is believed again");
    assert_eq!(refused, 0, "what was stored is believed again");
    assert_eq!(again.facts().records().count(), tested.mesh.facts().records().count());
}

fn step(tested: &mut Tested, input: &mut Input<'_>) {
    let (what, from) = (input.u8() % 12, host(1 + usize::from(input.u8()) % (HOSTS - 1)));
    match what {
        0 => {
            tested.now += Duration::from_millis(input.u16().into());
            tested.tell(Event::Tick);
        }
        1 => {
            tested.tell(Event::Connected(from));
            tested.tell(Event::LinkUp(from));
        }
        2 => tested.tell(Event::Disconnected(from)),
        3 => tested.tell(Event::LinkDown(from)),
        4 => {
            let bytes = input.bytes();
            if let Ok(Message::Mesh(gossip)) = Message::decode(&[&[1], bytes].concat()) {
                tested.tell(Event::Heard(from, &gossip));
            }
            if let Ok(Message::Proof(proof)) = Message::decode(&[&[4], bytes].concat())
                && let Ok(record) = proof.record.peek()
            {
                tested.tell(Event::Presented(record.key, &proof));
            }
        }
        5 | 6 => {
            let owner = usize::from(input.u8());
            let delta = honest_hash(&tested.mesh, owner, input);
            let records = Records { facts: vec![delta], ..Records::default() };
            let gossip = if what == 5 { Gossip::Push(records) } else { Gossip::Answer(records) };
            tested.tell(Event::Heard(from, &gossip));
        }
        7 => tested.stored(!input.u8().is_multiple_of(8)),
        8 => {
            let rtt = Duration::from_micros(u64::from(input.u32()));
            let loss = f32::from(input.u8()) / 255.0;
            tested.tell(Event::Measured(from, Some(rtt), loss));
        }
        9 => tested.tell(Event::Seen(from, ([10, 0, input.u8(), input.u8()], input.u16()).into())),
        10 => tested.tell(Event::Say(&[Item::Version(format!("{}", input.u8()))])),
        _ => tested.stored(true),
    }
}

/// Facts whose hash fits what they make of those that are known: nobody finds one by chance.
fn honest_hash(mesh: &Mesh, owner: usize, input: &mut Input<'_>) -> Delta {
    let version = FactVersion { boot: u64::from(input.u8()) << (input.u8() % 64), sequence: input.u64() };
    let is_delta = input.u8() % 2 == 1;
    let mut added = Vec::new();
    for _ in 0..input.u8() % 16 {
        added.push(match input.u8() % 3 {
            0 => input.bytes().to_vec(),
            1 => Item::Neighbour {
                host: host(input.u8().into()),
                rtt_us: input.u32(),
                loss_percent: input.u8(),
            }
            .encode(),
            _ => Item::Address(([10, 0, 0, input.u8()], input.u16()).into()).encode(),
        });
    }
    let known = mesh.facts().get(host(owner)).filter(|_| is_delta);
    let Some(known) = known else {
        let FactRecord { head, items } = FactRecord::sign(
            &key(owner % HOSTS),
            crate::cast::mesh(),
            host(owner),
            version,
            Items::new(added),
        );
        return Delta { head, base: None, removed: Vec::new(), added: items };
    };
    let mut removed = Vec::new();
    let mut kept = Vec::new();
    for (place, item) in (0u16..).zip(known.record.items.iter()) {
        if input.u8() % 4 == 1 { removed.push(place) } else { kept.push(item.to_vec()) }
    }
    added.retain(|a| !kept.contains(a));
    let all = Items::new([&kept[..], &added].concat());
    let FactRecord { head, .. } =
        FactRecord::sign(&key(owner % HOSTS), crate::cast::mesh(), host(owner), version, all);
    Delta { head, base: Some(known.head.version), removed, added: Items::new(added) }
}

fn heard(from: u8, gossip: Gossip) -> Vec<u8> {
    let bytes = Message::Mesh(gossip).encode();
    [&[4, from][..], &with_length(&bytes[LENGTH_LEN + 1..])].concat()
}

pub(crate) fn talks() -> Vec<Vec<u8>> {
    let up: Vec<u8> = (0..4).flat_map(|n| [1, n]).collect();
    let bound = heard(0, Gossip::Neighbour(Bond::Wanted));
    let tick = |ms: u16| [&[0, 0][..], &ms.to_be_bytes()].concat();
    let whole = |FactRecord { head, items }| Delta { head, base: None, removed: Vec::new(), added: items };
    let version = |sequence| FactVersion { boot: 1, sequence };
    let facts = |n, sequence| whole(fact(n, version(sequence), &items()));
    let records = Records {
        successions: vec![succession(1)],
        roster: vec![mesh_key().sign(&crate::cast::roster_record(5)) as Signed<_>],
        decisions: decisions(),
        facts: vec![facts(1, 1), facts(2, 1)],
    };
    let ask = Ask { key: RecordKey::Facts(host(2)), have: Some((version(1), vec![1, 2])) };
    let ids =
        records.facts.iter().map(|_| weft_router::mesh::Id { key: ask.key.clone(), rank: (2, 1), mark: 9 });
    let ids: Vec<_> = ids.collect();
    let rotated = Records {
        successions: vec![succession(1), succession(2)],
        roster: (0..HOSTS).map(carried_over).collect(),
        ..Records::default()
    };
    let stored = [11, 0, 11, 0];
    let begin = [&up[..], &bound, &tick(10)].concat();
    let with = |rest: Vec<Vec<u8>>| [begin.clone(), rest.concat(), stored.to_vec(), tick(6000)].concat();
    vec![
        with(vec![heard(0, Gossip::Push(records.clone())), heard(1, Gossip::Push(records.clone()))]),
        with(vec![heard(0, Gossip::Answer(records)), stored.to_vec(), heard(2, Gossip::Prune)]),
        with(vec![heard(0, Gossip::Ask { graft: true, asks: vec![ask] })]),
        with(vec![heard(0, Gossip::Answer(rotated)), stored.to_vec(), heard(1, Gossip::Root(3))]),
        with(vec![heard(0, Gossip::Ids(ids.clone())), tick(300), heard(0, Gossip::Root(5))]),
        with(vec![heard(0, Gossip::Root(1)), heard(0, Gossip::Branches(vec![0; 16]))]),
        with(vec![
            heard(0, Gossip::Leaves(vec![(3, vec![0; 16])])),
            heard(0, Gossip::Listing { leaves: vec![3], ids }),
        ]),
        with(vec![
            vec![5, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 1, 2, 0, 0, 0, 9, 1, 2, 5, 26, 127],
            vec![7, 0, 0],
        ]),
        with(vec![
            vec![8, 0, 0, 0, 9, 9, 3],
            vec![9, 1, 5, 5, 26, 127],
            vec![10, 0, 1],
            vec![2, 0],
            vec![3, 1],
        ]),
    ]
}
