//! The tree that news travel along: who knows the same links finds the same one.

use proptest::prelude::*;
use weft_api::fact::{FactRecord, FactVersion, Item, Items};
use weft_api::id::MeshKey;
use weft_api::roster::Standing;

use super::super::graph::Graph;
use super::super::*;
use super::world::{id, key, member, mesh_key};

/// Hosts that claim these links.
fn graph(n: usize, links: &BTreeSet<(usize, usize)>) -> Graph {
    let mesh = MeshKey(mesh_key().public());
    let (mut roster, mut facts) = (Roster::new(mesh), Facts::default());
    for host in 0..n {
        let (_, held) = roster.check(&Signatures, &member(host, 1, Standing::Member)).unwrap();
        roster.put(held);
    }
    for host in 0..n {
        let others = (0..n).filter(|o| links.contains(&(host.min(*o), host.max(*o))));
        let claim = |other| Item::Neighbour { host: id(other), rtt_us: 500, loss_percent: 0 }.encode();
        let version = FactVersion { boot: 1, sequence: 1 };
        let items = Items::new(others.map(claim).collect());
        let record = FactRecord::sign(&key(host), mesh.id(), id(host), version, items);
        let whole = Delta { head: record.head, base: None, removed: Vec::new(), added: record.items };
        let Ok((_, Heard::News(said))) = facts.check(&Signatures, &roster, &whole) else { unreachable!() };
        facts.put(said);
    }
    Graph::new(&facts, &roster)
}

/// The links that hosts find to be in the tree; each must be found by both ends.
fn tree(n: usize, graph: &Graph) -> BTreeSet<(usize, usize)> {
    let ids: BTreeMap<HostId, usize> = (0..n).map(|n| (id(n), n)).collect();
    let found: BTreeSet<(usize, usize)> = (0..n)
        .flat_map(|a| graph.tree(id(a), |_| true).into_iter().map(move |b| (a, b)).collect::<Vec<_>>())
        .map(|(a, b)| (a, ids[&b]))
        .collect();
    assert!(found.iter().all(|(a, b)| found.contains(&(*b, *a))), "one end alone: {found:?}");
    found.into_iter().filter(|(a, b)| a < b).collect()
}

/// The first of the hosts that links lead to, of each.
fn parts(n: usize, links: &BTreeSet<(usize, usize)>) -> Vec<usize> {
    let mut first: Vec<usize> = (0..n).collect();
    for _ in 0..n {
        for (a, b) in links {
            let least = first[*a].min(first[*b]);
            (first[*a], first[*b]) = (least, least);
        }
    }
    first
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn it_joins_whom_links_join_and_has_no_link_too_many(
        n in 2usize..30, pairs in prop::collection::vec((0usize..30, 0usize..30), 0..90),
    ) {
        let links: BTreeSet<(usize, usize)> = pairs
            .into_iter()
            .map(|(a, b)| (a % n, b % n))
            .filter(|(a, b)| a != b)
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        let tree = tree(n, &graph(n, &links));
        prop_assert!(tree.is_subset(&links));
        let joined = parts(n, &links);
        prop_assert_eq!(&parts(n, &tree), &joined);
        prop_assert_eq!(tree.len(), n - joined.iter().collect::<BTreeSet<_>>().len());
    }
}

#[test]
fn where_all_are_linked_nobody_pushes_to_most() {
    let n = 32;
    let links = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect();
    let tree = tree(n, &graph(n, &links));
    let most = (0..n).map(|h| tree.iter().filter(|(a, b)| *a == h || *b == h).count()).max().unwrap();
    println!("of {n} hosts one pushes to {most}");
    assert!(most <= n / 2, "{most}");
}

#[test]
fn a_link_that_is_down_here_is_not_taken() {
    let links: BTreeSet<(usize, usize)> = [(0, 1), (1, 2), (0, 2)].into();
    let graph = graph(3, &links);
    for other in [1, 2] {
        assert_eq!(graph.tree(id(0), |host| host == id(other)), BTreeSet::from([id(other)]));
    }
    assert!(graph.tree(id(0), |_| false).is_empty());
}
