//! Signed records as they come from a member or from a disk.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::fact::{Endpoint, FactHead, FactRecord, FactVersion, Item, Items};
use weft_api::id::{HostKey, Mac, NetworkId};
use weft_api::request::Goodbye;
use weft_api::roster::{Cipher, MeshRecord, RosterRecord};
use weft_api::sign::{Record, Signed};
use weft_api::succession::Succession;
use weft_api::token::{JoinWish, Token};
use weft_router::switch::ties;

use crate::cast::{host, key, mesh, mesh_key, roster, succession};

/// The kind of the record, then its bytes.
pub(crate) fn records(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 10 {
        0 => signed::<RosterRecord>(bytes),
        1 => signed::<MeshRecord>(bytes),
        2 => signed::<Decision>(bytes),
        3 => signed::<FactHead>(bytes),
        4 => signed::<JoinWish>(bytes),
        5 => signed::<Goodbye>(bytes),
        6 => signed::<ties::Probe>(bytes),
        7 => facts(bytes),
        8 => token(bytes),
        _ => signed::<Succession>(bytes),
    }
}

/// Nobody has the key of this host: whatever holds was taken for another's.
fn signed<T: Record + Debug + PartialEq>(bytes: &[u8]) {
    let Ok(record) = postcard::from_bytes::<Signed<T>>(bytes) else { return };
    assert!(record.verify(&key(9).public()).is_err());
    assert_eq!(again(&record), record);
    if let Ok(said) = record.peek() {
        assert_eq!(again(&said), said);
    }
}

fn again<T: Serialize + DeserializeOwned>(value: &T) -> T {
    postcard::from_bytes(&postcard::to_allocvec(value).expect("it was read"))
        .expect("what is written can be read")
}

fn facts(bytes: &[u8]) {
    let Ok(record) = postcard::from_bytes::<FactRecord>(bytes) else { return };
    assert_eq!(again(&record), record);
    let items = &record.items;
    if items.hold() {
        assert_eq!(Items::new(items.iter().map(<[u8]>::to_vec).collect()), *items, "what holds has one form");
        assert_eq!(items.iter().collect::<Items>(), *items);
    }
    for item in items.decoded() {
        assert_eq!(Item::decode(&item.encode()), Some(item));
    }
}

fn token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Token::parse(&text) {
        Ok(token) => assert_eq!(Token::parse(&token.reveal()), Ok(token)),
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

pub(crate) fn items() -> Vec<Item> {
    let address = "192.0.2.1:6783".parse().expect("an address");
    let network = NetworkId(3);
    vec![
        Item::Address(address),
        Item::Route("10.1.0.0/16".parse().expect("a range")),
        Item::Network(network),
        Item::Endpoint(Endpoint {
            network,
            mac: Mac([2, 0x42, 10, 32, 0, 2]),
            addresses: vec!["10.32.0.2".parse().expect("an address"), "fd00::2".parse().expect("an address")],
            container: "web".into(),
        }),
        Item::Version("0.1.0".into()),
        Item::Group { network, group: [239, 1, 2, 3].into() },
        Item::Neighbour { host: host(2), rtt_us: 700, loss_percent: 1 },
        Item::Seen(address),
    ]
}

pub(crate) fn fact(n: usize, version: FactVersion, items: &[Item]) -> FactRecord {
    FactRecord::sign(&key(n), mesh(), host(n), version, Items::new(items.iter().map(Item::encode).collect()))
}

pub(crate) fn decisions() -> Vec<Signed<Decision>> {
    let network = NetworkId(3);
    let range = "10.32.0.64/26".parse().expect("a range");
    let address = "192.0.2.1:6783".parse().expect("an address");
    let bodies = [
        (DecisionKey::Block(network, range), Some(DecisionBody::Block { owner: host(2) })),
        (DecisionKey::Network(network), None),
        (DecisionKey::Controller, Some(DecisionBody::Controller { host: host(1), addresses: vec![address] })),
    ];
    let decide = |(revision, (place, body))| {
        let signer = HostKey(key(1).public());
        key(1).sign(&Decision { mesh: mesh(), revision, signer, key: place, body })
    };
    (1..).zip(bodies).map(decide).collect()
}

pub(crate) fn samples() -> Vec<Vec<u8>> {
    fn encoded<T: Serialize>(kind: u8, value: &T) -> Vec<u8> {
        [vec![kind], postcard::to_allocvec(value).expect("a record")].concat()
    }
    let own = HostKey(key(2).public());
    let token = Token { id: weft_api::id::TokenId([4; 16]), seed: [3; 32], mesh: mesh() };
    let wish = JoinWish { mesh: mesh(), token: token.id, key: own, name: "h2".into() };
    let probe = ties::Probe { mesh: mesh(), host: host(2), network: NetworkId(3), sequence: (1, 1) };
    let record = MeshRecord { mesh: mesh(), name: "m".into(), cipher: Cipher::Aegis128L };
    let facts = fact(2, FactVersion { boot: 1, sequence: 1 }, &items());
    let mut seeds = vec![
        encoded(0, &roster()[2]),
        encoded(1, &mesh_key().sign(&record)),
        encoded(3, &facts.head),
        encoded(4, &token.key().sign(&wish)),
        encoded(5, &key(2).sign(&Goodbye { key: own, mesh: mesh() })),
        encoded(6, &key(2).sign(&probe)),
        encoded(7, &facts),
        [b"\x08", token.reveal().as_bytes()].concat(),
        encoded(9, &succession(1)),
    ];
    seeds.extend(decisions().iter().map(|d| encoded(2, d)));
    seeds
}
