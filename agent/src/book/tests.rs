//! Which address is given, what the refusals say, and what is left after a crash.

use std::net::IpAddr;
use std::sync::Arc;

use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::fact::{Endpoint as Fact, FactVersion, Item, Items};
use weft_api::id::{HostKey, Mac, MeshKey, NetworkId};
use weft_api::network::{Network, Origin, Subnet};
use weft_api::roster::{Roles, RosterRecord, Standing};
use weft_router_io::node::{HostFacts, MeshView, Stored};

use super::{Book, GiveError, Listed, NoBlock};
use crate::state::Ledger;
use crate::state::ledger::{Change, Endpoint};

pub const NET: NetworkId = NetworkId(1);
pub const RANGE: &str = "10.32.0.0/24";

pub fn host(n: u8) -> HostKey {
    HostKey([n; 32])
}

/// Hosts 1 and 2; blocks of four addresses, given as (network 10.32.0.BLOCK, host).
pub fn view(blocks: &[(u8, u8)]) -> MeshView {
    let mesh = MeshKey([0; 32]).id();
    let mut view = MeshView::default();
    for n in [1, 2] {
        let record = RosterRecord {
            mesh,
            key: host(n),
            name: format!("h{n}"),
            roles: Roles::default(),
            serial: 1,
            standing: Standing::Member,
            under: weft_api::roster::Under::default(),
        };
        Arc::make_mut(&mut view.roster).insert(host(n).id(), record);
    }
    let subnet = Subnet { range: RANGE.parse().unwrap(), gateway: "10.32.0.1".parse().unwrap() };
    let network = Network {
        id: NET,
        name: "app".into(),
        subnets: vec![subnet],
        mtu: 1340,
        internal: false,
        origin: Origin::Weft,
    };
    let mut decide = |revision, key: DecisionKey, body| {
        let decision = Decision { mesh, revision, signer: host(1), key: key.clone(), body: Some(body) };
        Arc::make_mut(&mut view.decisions).insert(key, decision);
    };
    decide(1, DecisionKey::Network(NET), DecisionBody::Network(network));
    for (block, owner) in blocks {
        let range = format!("10.32.0.{block}/30").parse().unwrap();
        decide(2, DecisionKey::Block(NET, range), DecisionBody::Block { owner: host(*owner).id() });
    }
    view
}

pub struct Bench {
    temp: tempfile::TempDir,
    pub book: Arc<Book>,
}

impl Bench {
    pub fn new(blocks: &[(u8, u8)]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::create(temp.path(), MeshKey([0; 32]).id()).unwrap());
        let book = Book::open(host(1).id(), ledger, &Stored::default()).unwrap();
        book.learn(Arc::new(view(blocks)));
        Self { temp, book: Arc::new(book) }
    }

    /// As after `kill -9` and a new start, which knows the decisions from its disk.
    pub fn crash(self, blocks: &[(u8, u8)]) -> Self {
        let Self { temp, book } = self;
        drop(book);
        let ledger = Arc::new(Ledger::open(temp.path(), MeshKey([0; 32]).id()).unwrap());
        let book = Book::open(host(1).id(), ledger, &Stored::default()).unwrap();
        book.learn(Arc::new(view(blocks)));
        Self { temp, book: Arc::new(book) }
    }

    fn give(&self, wanted: Option<&str>) -> Result<String, GiveError> {
        let given = self.book.give(NET, RANGE.parse().unwrap(), wanted.map(ip));
        given.map(|address| address.to_string())
    }

    fn endpoint(&self, id: &str, address: &str, since: u64) {
        self.book.add_endpoint(endpoint(id, address, since)).unwrap();
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn endpoint(id: &str, address: &str, since: u64) -> Endpoint {
    let IpAddr::V4(v4) = ip(address) else { panic!("IPv4") };
    Endpoint {
        id: id.repeat(64),
        docker_network: "n".repeat(64),
        network: NET,
        addresses: vec![ip(address)],
        mac: Mac::of_ipv4(v4),
        container: String::new(),
        since,
    }
}

#[test]
fn the_lowest_free_address_is_given_and_survives_a_crash() {
    let blocks = [(0, 1), (8, 1), (4, 2)];
    let bench = Bench::new(&blocks);
    assert_eq!(bench.give(None).unwrap(), "10.32.0.2");
    assert_eq!(bench.give(None).unwrap(), "10.32.0.3");
    let bench = bench.crash(&blocks);
    assert_eq!(bench.give(None).unwrap(), "10.32.0.8", "not the block of another host");
    assert!(bench.book.free(NET, ip("10.32.0.3")).unwrap());
    assert!(!bench.book.free(NET, ip("10.32.0.3")).unwrap());
    let bench = bench.crash(&blocks);
    assert_eq!(bench.give(None).unwrap(), "10.32.0.3");
}

#[test]
fn a_wanted_address_is_claimed_or_refused_by_a_sentence() {
    let bench = Bench::new(&[(0, 1), (4, 2)]);
    assert_eq!(bench.give(Some("10.32.0.3")).unwrap(), "10.32.0.3");
    let said = |wanted: &str| bench.give(Some(wanted)).unwrap_err().to_string();
    assert!(said("10.32.0.3").contains("in use by a container that is being started"));
    bench.endpoint("a", "10.32.0.3", 1);
    assert!(said("10.32.0.3").contains("in use by the endpoint aaaaaaaaaaaa"));
    let listed = Listed { endpoint: "a".repeat(64), name: "alpha".into(), addresses: vec![] };
    assert!(bench.book.compare(NET, &[listed]).unwrap().is_empty());
    assert!(said("10.32.0.3").contains("in use by container alpha on this host"));
    let there = said("10.32.0.5");
    assert!(there.contains("host h2") && there.contains("10.32.0.0/30"), "{there}");
    assert!(said("10.32.0.9").contains("no host holds"));
    assert!(said("10.33.0.9").contains("outside"));
    assert!(said("10.32.0.1").contains("gateway"));
    assert!(said("10.32.0.255").contains("broadcast"));
}

#[test]
fn the_holder_on_another_host_is_named() {
    let bench = Bench::new(&[(0, 1), (4, 2)]);
    let mut view = view(&[(0, 1), (4, 2)]);
    let fact = Item::Endpoint(Fact {
        network: NET,
        mac: Mac([2; 6]),
        addresses: vec![ip("10.32.0.5")],
        container: "beta".into(),
    });
    let facts = HostFacts { version: FactVersion::default(), items: Items::new(vec![fact.encode()]) };
    Arc::make_mut(&mut view.facts).insert(host(2).id(), facts);
    bench.book.learn(Arc::new(view));
    let said = bench.give(Some("10.32.0.5")).unwrap_err().to_string();
    assert!(said.contains("container beta on h2"), "{said}");
}

#[test]
fn a_full_host_says_why_it_has_no_further_block() {
    let bench = Bench::new(&[(0, 1)]);
    assert_eq!(bench.book.wants(), [], "nothing is in use");
    bench.give(None).unwrap();
    let wants = bench.book.wants();
    assert_eq!(wants.len(), 1, "half full");
    assert_eq!(wants[0].have.len(), 1);
    bench.give(None).unwrap();
    assert!(matches!(bench.give(None), Err(GiveError::Full { decided: false, .. })));
    let refusal = NoBlock { why: "all of it is given out".into(), decided: true };
    assert!(bench.book.no_block(NET, RANGE.parse().unwrap(), Some(refusal)));
    let said = bench.give(None).unwrap_err().to_string();
    assert_eq!(said, "network app is full on this host: all of it is given out");
    bench.book.learn(Arc::new(view(&[(0, 1), (4, 1)])));
    assert_eq!(bench.give(None).unwrap(), "10.32.0.4");
}

#[test]
fn an_address_in_an_unheld_block_is_asked_for_while_somebody_waits() {
    let bench = Bench::new(&[(0, 1), (4, 2)]);
    let range = RANGE.parse().unwrap();
    let wish = bench.book.wish(NET, range, ip("10.32.0.9")).unwrap();
    let held_by_another = bench.book.wish(NET, range, ip("10.32.0.5")).unwrap();
    let asked: Vec<_> = bench.book.wants().into_iter().map(|want| want.address).collect();
    assert_eq!(asked, [Some(ip("10.32.0.9"))]);
    bench.book.learn(Arc::new(view(&[(0, 1), (4, 2), (8, 1)])));
    assert_eq!(bench.book.wants(), []);
    assert_eq!(bench.give(Some("10.32.0.9")).unwrap(), "10.32.0.9");
    bench.book.learn(Arc::new(view(&[(0, 1)])));
    drop((wish, held_by_another));
    assert!(bench.book.wants().iter().all(|want| want.address.is_none()), "nobody waits any more");
}

#[test]
fn the_first_block_is_wanted_before_the_first_container() {
    let bench = Bench::new(&[(4, 2)]);
    let wants = bench.book.wants();
    assert_eq!((wants.len(), wants[0].have.len()), (1, 0));
    let Err(GiveError::Full { decided, .. }) = bench.give(None) else { panic!("no block, no address") };
    assert!(!decided);
}

#[test]
fn endpoints_need_given_addresses_and_macs_of_their_own() {
    let bench = Bench::new(&[(0, 1)]);
    let stray = bench.book.add_endpoint(endpoint("a", "10.32.0.2", 1));
    assert!(matches!(stray, Err(GiveError::NotGiven { .. })));
    bench.give(None).unwrap();
    bench.give(None).unwrap();
    bench.endpoint("a", "10.32.0.2", 1);
    bench.endpoint("a", "10.32.0.2", 1);
    let twin = Endpoint { mac: Mac([2, 0x42, 10, 32, 0, 2]), ..endpoint("b", "10.32.0.3", 1) };
    assert!(matches!(bench.book.add_endpoint(twin), Err(GiveError::MacInUse { .. })));
    for mac in [Mac::BROADCAST, Mac::GATEWAY] {
        let bad = Endpoint { mac, ..endpoint("b", "10.32.0.3", 1) };
        assert!(matches!(bench.book.add_endpoint(bad), Err(GiveError::BadMac { .. })));
    }
    let bench = bench.crash(&[(0, 1)]);
    assert_eq!(bench.book.endpoints().len(), 1);
    assert!(bench.book.remove_endpoint(&"a".repeat(64)).unwrap().is_some());
    assert!(bench.book.remove_endpoint(&"a".repeat(64)).unwrap().is_none());
}

#[test]
fn what_leaked_is_freed_after_a_while_and_what_is_new_is_not() {
    let bench = Bench::new(&[(0, 1), (8, 1)]);
    for _ in 0..4 {
        bench.give(None).unwrap();
    }
    // An hour ago, all but the last.
    let old = super::now() - 3600;
    let aged = ["10.32.0.2", "10.32.0.3", "10.32.0.8"].map(|a| Change::Give(NET, ip(a), old));
    bench.book.ledger.change(&aged).unwrap();
    let bench = bench.crash(&[(0, 1), (8, 1)]);
    bench.endpoint("a", "10.32.0.2", old);
    bench.endpoint("b", "10.32.0.3", old);
    let running = Listed { endpoint: "a".repeat(64), name: "alpha".into(), addresses: vec![ip("10.32.0.2")] };
    let gone = bench.book.compare(NET, &[running]).unwrap();
    assert_eq!(gone.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["b".repeat(64)]);
    assert_eq!(bench.book.endpoint(&"a".repeat(64)).unwrap().container, "alpha");
    assert_eq!(bench.give(None).unwrap(), "10.32.0.3", "the lost endpoint's");
    assert_eq!(bench.give(None).unwrap(), "10.32.0.8", "never became an endpoint");
    assert_eq!(bench.give(None).unwrap(), "10.32.0.10", "10.32.0.9 is on its way");
}

#[test]
fn after_a_reboot_only_what_has_a_veth_is_kept() {
    let blocks = [(0, 1), (8, 1)];
    let bench = Bench::new(&blocks);
    for _ in 0..4 {
        bench.give(None).unwrap();
    }
    let old = super::now() - 3600;
    let aged = ["10.32.0.2", "10.32.0.3", "10.32.0.8"].map(|a| Change::Give(NET, ip(a), old));
    bench.book.ledger.change(&aged).unwrap();
    let bench = bench.crash(&blocks);
    bench.endpoint("a", "10.32.0.2", old);
    bench.endpoint("b", "10.32.0.3", old);
    bench.endpoint("c", "10.32.0.9", super::now());
    let alive = std::collections::BTreeSet::from(["wveaaaaaaaaaaaa".to_owned()]);
    let bridges = std::collections::BTreeSet::from([NET]);
    assert_eq!(
        bench.book.bury(&alive, &bridges).unwrap(),
        3,
        "b, its address, and one that became no endpoint"
    );
    let left: Vec<_> = bench.book.endpoints().into_iter().map(|e| e.addresses[0].to_string()).collect();
    assert_eq!(left, ["10.32.0.2", "10.32.0.9"]);
    assert_eq!(bench.give(None).unwrap(), "10.32.0.3");
    assert_eq!(bench.book.bury(&alive, &bridges).unwrap(), 0);

    // Without its bridge the machine has booted this minute: even what is new is dead.
    let nothing = std::collections::BTreeSet::new();
    bench.book.bury(&nothing, &std::collections::BTreeSet::new()).unwrap();
    assert!(bench.book.endpoints().is_empty());
    assert_eq!(bench.give(Some("10.32.0.9")).unwrap(), "10.32.0.9");
}

#[test]
fn a_released_address_takes_an_endpoint_along_that_docker_never_heard_of() {
    let bench = Bench::new(&[(0, 1)]);
    bench.give(None).unwrap();
    bench.endpoint("a", "10.32.0.2", super::now());
    assert!(bench.book.free(NET, ip("10.32.0.2")).unwrap());
    assert!(bench.book.endpoints().is_empty());
    assert_eq!(bench.give(None).unwrap(), "10.32.0.2");
    bench.endpoint("b", "10.32.0.2", super::now());
}

#[test]
fn a_wanted_address_that_an_earlier_life_gave_in_vain_is_given_again() {
    let blocks = [(0, 1), (8, 1)];
    let bench = Bench::new(&blocks);
    bench.give(Some("10.32.0.2")).unwrap();
    bench.give(Some("10.32.0.3")).unwrap();
    bench.endpoint("a", "10.32.0.3", super::now());
    let refused = bench.give(Some("10.32.0.2")).unwrap_err().to_string();
    assert!(refused.contains("being started"), "{refused}");
    let bench = bench.crash(&blocks);
    assert_eq!(bench.give(Some("10.32.0.2")).unwrap(), "10.32.0.2", "Docker never heard of it");
    bench.give(Some("10.32.0.2")).unwrap_err();
    bench.give(Some("10.32.0.3")).unwrap_err();
    assert_eq!(bench.give(None).unwrap(), "10.32.0.8");
    bench.book.add_endpoint(endpoint("b", "10.32.0.3", super::now())).unwrap_err();
}

#[test]
fn docker_networks_are_bound_durably() {
    let bench = Bench::new(&[]);
    bench.book.bind("d1", NET).unwrap();
    let bench = bench.crash(&[]);
    assert_eq!(bench.book.bound("d1"), Some(NET));
    assert_eq!(bench.book.docker_ids(NET), ["d1"]);
    bench.book.unbind("d1").unwrap();
    bench.book.unbind("d1").unwrap();
    assert_eq!(bench.book.bound("d1"), None);
}
