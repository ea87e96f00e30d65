//! Who may claim what; and that following every change leads to the table that is made of the last view alone.

use std::sync::Arc;

use proptest::prelude::*;
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::fact::{Endpoint as Fact, FactVersion};
use weft_api::id::{HostKey, MeshId};
use weft_api::network::{Origin, Subnet};
use weft_api::roster::{Roles, RosterRecord};
use weft_router_io::node::HostFacts;

use super::*;

const NET: NetworkId = NetworkId(1);

fn key(n: u8) -> HostKey {
    HostKey([n; 32])
}

fn network() -> Network {
    let subnet = Subnet { range: "10.32.0.0/16".parse().unwrap(), gateway: "10.32.0.1".parse().unwrap() };
    Network {
        id: NET,
        name: "app".into(),
        subnets: vec![subnet],
        mtu: 1340,
        internal: false,
        origin: Origin::Weft,
    }
}

fn mac(ip: &str) -> Mac {
    Mac::of_ipv4(ip.parse().unwrap())
}

fn fact(mac: Mac, ip: &str) -> Item {
    let addresses = vec![ip.parse().unwrap()];
    Item::Endpoint(Fact { network: NET, mac, addresses, container: "x".into() })
}

/// Hosts 1 to 3 hold the first three blocks of the range; host 1 is this one.
fn view(facts: &[(u8, Vec<Item>)]) -> MeshView {
    let mut view = MeshView::default();
    for n in 1..=3 {
        let record = RosterRecord {
            mesh: MeshId([0; 32]),
            key: key(n),
            name: format!("h{n}"),
            roles: Roles::default(),
            serial: 1,
            standing: Standing::Member,
            under: weft_api::roster::Under::default(),
        };
        Arc::make_mut(&mut view.roster).insert(key(n).id(), record);
        let block = DecisionKey::Block(NET, format!("10.32.0.{}/26", u32::from(n - 1) * 64).parse().unwrap());
        let decision = Decision {
            mesh: MeshId([0; 32]),
            revision: u64::from(n),
            signer: key(1),
            key: block.clone(),
            body: Some(DecisionBody::Block { owner: key(n).id() }),
        };
        Arc::make_mut(&mut view.decisions).insert(block, decision);
    }
    for (n, items) in facts {
        let items = Items::new(items.iter().map(Item::encode).collect());
        let facts = HostFacts { version: FactVersion::default(), items };
        Arc::make_mut(&mut view.facts).insert(key(*n).id(), facts);
    }
    view
}

fn made(facts: &[(u8, Vec<Item>)], own: &[Endpoint]) -> Table {
    table(key(1).id(), &network(), &view(facts), own, &Groups::new())
}

#[test]
fn only_addresses_of_ones_own_block_count() {
    let items = vec![
        Item::Network(NET),
        fact(mac("10.32.0.70"), "10.32.0.70"),
        fact(mac("10.32.0.130"), "10.32.0.130"),
        fact(Mac([2, 0, 0, 0, 0, 9]), "10.32.0.5"),
        fact(Mac::BROADCAST, "10.32.0.71"),
        fact(Mac::GATEWAY, "10.32.0.72"),
    ];
    let table = made(&[(2, items)], &[]);
    assert_eq!(table.endpoints.len(), 1, "{table:?}");
    assert_eq!(table.endpoints[&mac("10.32.0.70")], Owner::Host(key(2).id()));
    assert_eq!(table.addresses.len(), 1);
    assert!(table.hosts.contains(&key(2).id()) && !table.hosts.contains(&key(3).id()));
    assert_eq!(table.owner_of("10.32.0.3".parse().unwrap()), Some(Owner::Here));
}

#[test]
fn nobody_takes_anothers_mac() {
    let victim = fact(mac("10.32.0.140"), "10.32.0.140");
    let thief = fact(mac("10.32.0.140"), "10.32.0.70");
    let table = made(&[(2, vec![thief]), (3, vec![victim])], &[]);
    assert_eq!(table.endpoints[&mac("10.32.0.140")], Owner::Host(key(3).id()));
    assert!(!table.addresses.contains_key(&"10.32.0.70".parse().unwrap()));
}

#[test]
fn this_host_outranks_the_others() {
    let chosen = Mac([2, 1, 1, 1, 1, 1]);
    let own = Endpoint {
        id: "e".into(),
        docker_network: "n".into(),
        network: NET,
        addresses: vec!["10.32.0.2".parse().unwrap()],
        mac: chosen,
        container: String::new(),
        since: 0,
    };
    let table = made(&[(2, vec![fact(chosen, "10.32.0.70")])], &[own]);
    assert_eq!(table.endpoints[&chosen], Owner::Here);
}

#[test]
fn groups_are_where_they_are_listened_to() {
    let listens = |group: &str| Item::Group { network: NET, group: group.parse().unwrap() };
    let second = vec![Item::Network(NET), listens("239.1.1.1"), listens("224.0.0.251")];
    let third = vec![Item::Network(NET), listens("0.0.0.0")];
    let absent = vec![listens("239.1.1.1")];
    let here = Groups::from([(NET, BTreeSet::from(["239.1.1.2".parse().unwrap()]))]);
    let view = view(&[(2, second), (3, third)]);
    let table = table(key(1).id(), &network(), &view, &[], &here);
    let hosts = |group: &str| table.groups.get(&group.parse().unwrap()).map(|g| (g.hosts.len(), g.here));
    assert_eq!(hosts("239.1.1.1"), Some((2, false)), "the one that listens, and the one that takes all");
    assert_eq!(hosts("239.1.1.2"), Some((1, true)));
    assert_eq!((hosts("224.0.0.251"), table.every_group.len()), (None, 1), "that one goes to everybody");
    let table = made(&[(2, absent)], &[]);
    assert!(table.groups.is_empty(), "who has not the network listens to nothing of it");
}

#[test]
fn removed_hosts_say_nothing() {
    let mut view = view(&[(2, vec![Item::Network(NET), fact(mac("10.32.0.70"), "10.32.0.70")])]);
    Arc::make_mut(&mut view.roster).get_mut(&key(2).id()).unwrap().standing = Standing::Removed;
    let table = table(key(1).id(), &network(), &view, &[], &Groups::new());
    assert!(table.hosts.is_empty() && table.endpoints.is_empty());
}

fn group(n: u8) -> IpAddr {
    [239, 1, 1, n].into()
}

/// Few MACs and addresses, in the blocks of all three hosts, so that hosts claim the same.
fn some_items() -> impl Strategy<Value = Vec<Item>> {
    let address = || (0u8..3, 2u8..5).prop_map(|(block, n)| format!("10.32.0.{}", block * 64 + n));
    let stable = address().prop_map(|ip| fact(mac(&ip), &ip));
    let chosen = (0u8..3, address()).prop_map(|(n, ip)| fact(Mac([2, 1, 1, 1, 1, n]), &ip));
    let group = (0u8..3).prop_map(|n| Item::Group {
        network: NET,
        group: if n == 0 { [0, 0, 0, 0].into() } else { group(n) },
    });
    let item = prop_oneof![4 => stable, 2 => chosen, 1 => group, 1 => Just(Item::Network(NET))];
    prop::collection::vec(item, 0..6)
}

fn some_own() -> impl Strategy<Value = Vec<Endpoint>> {
    let endpoint = |n: u8| Endpoint {
        id: n.to_string(),
        docker_network: "n".into(),
        network: NET,
        addresses: vec![[10, 32, 0, n].into()],
        mac: if n.is_multiple_of(2) {
            Mac([2, 1, 1, 1, 1, n - 2])
        } else {
            Mac::of_ipv4([10, 32, 0, n].into())
        },
        container: String::new(),
        since: 0,
    };
    prop::collection::btree_set(2u8..5, 0..3).prop_map(move |all| all.into_iter().map(endpoint).collect())
}

/// What changes from one view to the next.
#[derive(Clone, Debug)]
enum Change {
    Says(u8, Vec<Item>),
    Own(Vec<Endpoint>),
    Heard(u8),
    Standing(u8, Standing),
    Leased(u8, u8),
}

fn some_change() -> impl Strategy<Value = Change> {
    let standing = prop_oneof![Just(Standing::Member), Just(Standing::Removed)];
    prop_oneof![
        8 => (2u8..4, some_items()).prop_map(|(n, items)| Change::Says(n, items)),
        2 => some_own().prop_map(Change::Own),
        1 => (0u8..3).prop_map(Change::Heard),
        1 => (2u8..4, standing).prop_map(|(n, standing)| Change::Standing(n, standing)),
        1 => (2u8..5, 1u8..4).prop_map(|(n, owner)| Change::Leased(n, owner)),
    ]
}

proptest! {
    #[test]
    fn following_each_change_leads_to_the_same_table(changes in prop::collection::vec(some_change(), 1..30)) {
        let (me, network) = (key(1).id(), network());
        let (mut tables, mut view) = (Tables::default(), view(&[]));
        let (mut own, mut heard) = (Vec::new(), Groups::new());
        for change in changes {
            let before = tables.all();
            match change {
                Change::Says(n, items) => {
                    let items = Items::new(items.iter().map(Item::encode).collect());
                    let facts = HostFacts { version: FactVersion::default(), items };
                    Arc::make_mut(&mut view.facts).insert(key(n).id(), facts);
                }
                Change::Own(endpoints) => own = endpoints,
                Change::Heard(n) => heard = Groups::from([(NET, (1..=n).map(group).collect())]),
                Change::Standing(n, standing) => {
                    let record = Arc::make_mut(&mut view.roster).get_mut(&key(n).id());
                    record.unwrap().standing = standing;
                }
                Change::Leased(n, owner) => {
                    let lease = DecisionKey::Lease(NET, [10, 32, 0, n].into());
                    let body = Some(DecisionBody::Lease { owner: key(owner).id() });
                    let mut decision = view.decisions.values().next().unwrap().clone();
                    (decision.key, decision.body) = (lease.clone(), body);
                    Arc::make_mut(&mut view.decisions).insert(lease, decision);
                }
            }
            let changed = tables.learn(me, &[&network], Arc::new(view.clone()), &own, &heard);
            let all = tables.all();
            prop_assert_eq!(&*all[0], &table(me, &network, &view, &own, &heard));
            prop_assert!(changed || before == all);
        }
        prop_assert!(tables.learn(me, &[], Arc::new(view), &own, &heard) && tables.all().is_empty());
    }
}
