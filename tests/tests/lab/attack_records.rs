//! A member with a true session says what it may not: facts of others, decisions, a roster of its own, messages that are none.
//! Each is refused by its name, and what the mesh believes is what it believed.

use std::net::IpAddr;

use serde::Serialize;
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::fact::{Endpoint, FactHead, FactRecord, FactVersion, Item, Items};
use weft_api::id::{BootId, HostId, HostKey, Mac, MeshId};
use weft_api::roster::{Cipher, Roles, RosterRecord, Standing};
use weft_api::sign::{Record, Signed, SigningKey};
use weft_router::mesh::{Delta, Gossip, Records};
use weft_router::session::Hello;
use weft_router::session::message::{MAX_MESSAGE_LEN, Message};

use crate::attack_gossip;
use crate::attack_member::Stage;
use crate::forged::hex;

/// The first byte of a control stream, and of a stream of the API.
const CONTROL: u8 = 1;
const API: u8 = 2;
const COUNT: usize = 20;

#[test]
fn a_hostile_member_changes_nothing_that_is_not_its_own() {
    if weft_lab::skip() {
        return;
    }
    Stage::set(|stage| {
        let all = [facts(stage), decisions(stage), roster(stage)].concat();
        for (what, label, message) in all {
            let order = format!("control {}", hex(&message.encode().repeat(COUNT)));
            stage.attacker.is_counted(stage.host, what, &order, label, COUNT as u64);
        }
        claims(stage);
        for (what, label, bytes) in greetings(stage) {
            stage.attacker.is_counted(stage.host, what, &format!("first {}", hex(&bytes)), label, 1);
        }
        for (what, label, bytes) in endings() {
            stage.attacker.obey("fresh");
            stage.attacker.is_counted(stage.host, what, &format!("control {}", hex(&bytes)), label, 1);
        }
        stage.attacker.obey("fresh");
        let order = format!("stream {}", hex(&[77, 1, 2, 3]));
        stage.attacker.is_counted(stage.host, "a stream of no kind", &order, "stream_unknown", 1);
        for _ in 0..20 {
            stage.attacker.obey(&format!("stream {}", hex(&[&[API][..], &[0xff; 3000]].concat())));
        }
        attack_gossip::floods(stage);
        say(stage, true_facts(stage));
    });
}

type Attack = (&'static str, &'static str, Message);

fn facts(stage: &Stage<'_>) -> Vec<Attack> {
    let version = FactVersion { boot: 4000, sequence: 1 };
    let (mesh, me) = (stage.mesh.mesh, HostKey(stage.key.public()).id());
    let signed = |mesh, owner, version, items| FactRecord::sign(&stage.key, mesh, owner, version, items);
    let said = |mesh, owner, version| whole(signed(mesh, owner, version, Items::default()));
    let items = |items: &[&[u8]]| whole(signed(mesh, me, version, items.iter().copied().collect::<Items>()));
    let late = FactVersion { boot: u64::MAX, sequence: 1 };
    let many = Items::new((0..=8192u32).map(|n| n.to_be_bytes().to_vec()).collect());
    let head = |owner| FactHead { mesh, owner, version, items: Items::default().digest() };
    let forged = mixed(&stage.key, &head(me), &head(HostId([9; 8])));
    vec![
        ("facts of a third host", "record_forged", said(mesh, stage.third_key.id(), version)),
        ("facts of the victim", "record_forged", said(mesh, stage.victim_key.id(), version)),
        ("facts of nobody", "fact_of_stranger", said(mesh, HostId([9; 8]), version)),
        ("facts of another mesh", "record_of_another_mesh", said(MeshId([0; 32]), me, version)),
        ("facts from the end of time", "record_invalid", said(mesh, me, late)),
        ("facts out of order", "record_invalid", items(&[&[2], &[1]])),
        ("facts that repeat", "record_invalid", items(&[&[1], &[1]])),
        ("a fact that is too long", "record_invalid", items(&[&[0; 1025]])),
        ("too many facts", "record_invalid", whole(signed(mesh, me, version, many))),
        ("facts that are none", "record_unreadable", whole(bare(unreadable(&stage.key)))),
        ("facts with another's signature", "record_forged", whole(bare(forged))),
    ]
}

fn bare(head: Signed<FactHead>) -> FactRecord {
    FactRecord { head, items: Items::default() }
}

/// All of a host's facts as news.
fn whole(record: FactRecord) -> Message {
    let facts = vec![Delta { head: record.head, base: None, removed: Vec::new(), added: record.items }];
    Message::Mesh(Gossip::Push(Records { facts, ..Records::default() }))
}

fn decided(decision: Signed<Decision>) -> Message {
    Message::Mesh(Gossip::Push(Records { decisions: vec![decision], ..Records::default() }))
}

fn enrolled(record: Signed<RosterRecord>) -> Message {
    Message::Mesh(Gossip::Push(Records { roster: vec![record], ..Records::default() }))
}

fn decisions(stage: &Stage<'_>) -> Vec<Attack> {
    let block: ipnet::IpNet = "10.32.0.0/16".parse().unwrap();
    let me = HostKey(stage.key.public());
    let mine = |signer: HostKey, revision: u64| Decision {
        mesh: stage.mesh.mesh,
        revision,
        signer,
        key: DecisionKey::Block(stage.network, block),
        body: Some(DecisionBody::Block { owner: me.id() }),
    };
    let gone = |signer: HostKey| Decision {
        key: DecisionKey::Network(stage.network),
        body: None,
        ..mine(signer, u64::MAX)
    };
    let moved = Decision {
        key: DecisionKey::Controller,
        body: Some(DecisionBody::Controller { host: me.id(), addresses: Vec::new() }),
        ..mine(me, u64::MAX)
    };
    let said = |decision: &Decision| decided(stage.key.sign(decision));
    let long =
        DecisionBody::Controller { host: me.id(), addresses: vec!["192.0.2.1:1".parse().unwrap(); 1000] };
    let long = Decision { body: Some(long), ..moved.clone() };
    vec![
        ("a block for itself", "decision_not_controllers", said(&mine(me, 1 << 40))),
        ("the same in the controller's name", "record_forged", said(&mine(stage.victim_key, 1 << 40))),
        ("a network taken away", "decision_not_controllers", said(&gone(me))),
        ("the same in the controller's name", "record_forged", said(&gone(stage.victim_key))),
        ("itself made controller", "decision_not_controllers", said(&moved)),
        ("a decision of nobody", "decision_not_controllers", said(&mine(HostKey([7; 32]), 1 << 40))),
        ("a decision that is too long", "record_too_long", said(&long)),
        ("a decision that is none", "record_unreadable", decided(unreadable(&stage.key))),
    ]
}

fn roster(stage: &Stage<'_>) -> Vec<Attack> {
    let of = |key: HostKey, standing: Standing| RosterRecord {
        mesh: stage.mesh.mesh,
        key,
        name: "mallory".into(),
        roles: Roles { founder: true, controller: true, signer: true },
        serial: u64::MAX,
        standing,
        under: weft_api::roster::Under::default(),
    };
    let said = |record: &RosterRecord| enrolled(stage.key.sign(record));
    let me = HostKey(stage.key.public());
    vec![
        ("itself with all roles", "record_forged", said(&of(me, Standing::Member))),
        ("a stranger let in", "record_forged", said(&of(HostKey([7; 32]), Standing::Member))),
        ("a third host removed", "record_forged", said(&of(stage.third_key, Standing::Removed))),
        ("the victim removed", "record_forged", said(&of(stage.victim_key, Standing::Removed))),
        ("a roster record that is none", "record_unreadable", enrolled(unreadable(&stage.key))),
    ]
}

/// Facts that hold as a record and claim what is not the attacker's: they count for nothing.
fn claims(stage: &mut Stage<'_>) {
    let network = stage.network;
    let endpoint = |mac: &str, ip: &str| {
        Item::Endpoint(Endpoint {
            network,
            mac: mac.parse().unwrap(),
            addresses: vec![ip.parse().unwrap()],
            container: "thief".into(),
        })
    };
    let own = &stage.own;
    let mut items = true_facts(stage);
    items.extend([
        endpoint(&own.mac, &stage.third.v4),
        endpoint(&stage.third.mac, &stage.third.v4),
        endpoint(&stage.third.mac, &own.v4),
        endpoint(&stage.victim.mac, &stage.victim.v4),
        endpoint("ff:ff:ff:ff:ff:ff", &own.v4),
        endpoint(&Mac::GATEWAY.to_string(), &own.v4),
    ]);
    say(stage, items);
    std::thread::sleep(std::time::Duration::from_millis(500));
    for _ in 0..3 {
        assert!(stage.victim.pings(&stage.third.v4) && stage.third.pings(&stage.victim.v4));
    }
    // The network given up: nobody takes its frames any more.
    let away = true_facts(stage).into_iter().filter(|i| !matches!(i, Item::Network(_))).collect();
    say(stage, away);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mac = |mac: &str| mac.parse::<Mac>().unwrap();
    let frame = crate::forged::ethernet(
        mac(&stage.victim.mac),
        mac(&stage.own.mac),
        crate::forged::STRANGE,
        &[0; 50],
    );
    let order = format!("seal {COUNT} {}", hex(&crate::forged::on(network, crate::forged::FRAME, &frame)));
    stage.attacker.is_counted(
        stage.host,
        "a frame of a network given up",
        &order,
        "network_not_theirs",
        COUNT as u64,
    );
    let facts = true_facts(stage);
    say(stage, facts);
}

/// What the host said before its `weft up` ended, as far as others see it.
fn true_facts(stage: &Stage<'_>) -> Vec<Item> {
    let addresses: Vec<IpAddr> = [&stage.own.v4, &stage.own.v6].map(|ip| ip.parse().unwrap()).into();
    let reached = stage.addresses.iter().copied().map(Item::Address);
    let rest = [
        Item::Version(env!("CARGO_PKG_VERSION").to_owned()),
        Item::Network(stage.network),
        Item::Endpoint(Endpoint {
            network: stage.network,
            mac: stage.own.mac.parse().unwrap(),
            addresses,
            container: "mallory".into(),
        }),
    ];
    reached.chain(rest).collect()
}

/// Publishes these facts under a version that the owner would reach in 4000 years of a start a day, or so.
fn say(stage: &mut Stage<'_>, items: Vec<Item>) {
    static SAID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(u64::MAX - 100);
    let sequence = SAID.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let items = Items::new(items.iter().map(Item::encode).collect());
    let (owner, version) = (HostKey(stage.key.public()).id(), FactVersion { boot: 1_500_000, sequence });
    let message = whole(FactRecord::sign(&stage.key, stage.mesh.mesh, owner, version, items));
    stage.attacker.obey(&format!("control {}", hex(&message.encode())));
}

/// First bytes of a control stream after which the victim closes the connection.
fn greetings(stage: &Stage<'_>) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let hello =
        Hello { boot: BootId([7; 16]), index: 7, cipher: stage.mesh.cipher, replaces: false, seen: None };
    let other = Cipher::ALL.into_iter().find(|c| *c != hello.cipher).unwrap_or(hello.cipher);
    let first = |bytes: &[u8]| [&[CONTROL], bytes].concat();
    let good = Message::Hello(hello).encode();
    vec![
        (
            "another cipher",
            "cipher_differs",
            first(&Message::Hello(Hello { cipher: other, ..hello }).encode()),
        ),
        ("two greetings", "message_garbled", first(&good.repeat(2))),
        ("no greeting", "message_garbled", first(&Message::Mesh(Gossip::Prune).encode())),
        ("a greeting of 4 GB", "message_garbled", first(&[0xff; 64])),
        ("a greeting of no bytes", "message_garbled", first(&[0; 4])),
        ("a control stream of no kind", "stream_unknown", vec![9, 0, 0, 0, 1]),
    ]
}

/// Bytes on the control stream of a session after which the victim closes it.
fn endings() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let length = |n: usize| u32::try_from(n).unwrap().to_be_bytes().to_vec();
    vec![
        ("a message that is too long", "message_garbled", length(MAX_MESSAGE_LEN + 1)),
        ("a message that is none", "message_garbled", [length(3), vec![0xff; 3]].concat()),
        (
            "more records than a message may have",
            "message_garbled",
            [length(135), vec![1, 1, 65], vec![0; 132]].concat(),
        ),
    ]
}

/// What a [`Signed`] looks like on the wire.
#[derive(Serialize)]
struct Loose<'a> {
    bytes: &'a [u8],
    signature: &'a [u8],
}

/// Well signed, and no record.
fn unreadable<T: Record>(key: &SigningKey) -> Signed<T> {
    let bytes = [0xff; 40];
    let signature = key.sign_bytes(&[T::DOMAIN.as_bytes(), &[0], &bytes].concat());
    loose(&bytes, &signature)
}

/// The bytes of the one record under the signature of the other.
fn mixed<T: Record>(key: &SigningKey, bytes: &T, signed: &T) -> Signed<T> {
    let signed = key.sign(signed);
    let signature = key.sign_bytes(&[T::DOMAIN.as_bytes(), &[0], signed.bytes()].concat());
    loose(key.sign(bytes).bytes(), &signature)
}

fn loose<T: Record>(bytes: &[u8], signature: &[u8]) -> Signed<T> {
    postcard::from_bytes(&postcard::to_allocvec(&Loose { bytes, signature }).unwrap()).unwrap()
}
