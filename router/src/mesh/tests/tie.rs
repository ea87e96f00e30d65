//! What waits for one neighbour: what it turns out to have is not sent to it, and long replies wait for room.

use weft_api::id::MeshKey;
use weft_api::roster::Standing;

use super::super::tie::{News, Tie};
use super::super::*;
use super::world::{MS, member, mesh_key};

/// Something new of a host.
fn record(n: usize) -> AnyRecord {
    let roster = Roster::new(MeshKey(mesh_key().public()));
    let (_, held) = roster.check(&Signatures, &member(n, 1, Standing::Member)).unwrap();
    AnyRecord::Roster(held)
}

/// A neighbour that three records wait to be pushed to.
fn pushed_to() -> (Tie, Vec<Id>) {
    let mut tie = Tie::default();
    (tie.connected, tie.wanted, tie.grafted) = (true, true, true);
    let records: Vec<AnyRecord> = (0..3).map(record).collect();
    records.iter().for_each(|r| tie.tell(r.id(), News::Record(r.clone()), MS));
    (tie, records.iter().map(AnyRecord::id).collect())
}

#[test]
fn what_waits_for_who_prunes_is_announced() {
    let (mut tie, mut ids) = pushed_to();
    tie.pruned(50 * MS);
    assert_eq!(tie.next_push(), None);
    assert_eq!(tie.next_ids(49 * MS), None);
    let Some(Gossip::Ids(mut announced)) = tie.next_ids(50 * MS) else { panic!("nothing") };
    announced.sort_by(|a, b| a.key.cmp(&b.key));
    ids.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(announced, ids);
}

#[test]
fn in_the_tree_nothing_is_pruned() {
    let (mut tie, ids) = pushed_to();
    tie.tree = true;
    tie.pruned(50 * MS);
    let Some(Gossip::Push(records)) = tie.next_push() else { panic!("nothing") };
    assert_eq!(records.roster.len(), ids.len());
}

#[test]
fn what_it_has_by_another_way_is_not_pushed() {
    let (mut tie, ids) = pushed_to();
    tie.has(&ids[1]);
    let Some(Gossip::Push(records)) = tie.next_push() else { panic!("nothing") };
    assert_eq!(records.roster, [0, 2].map(|n| member(n, 1, Standing::Member)));
}

#[test]
fn only_short_words_pass_without_room() {
    let mut tie = Tie::default();
    tie.say(Gossip::Root(1));
    tie.say(Gossip::Listing { leaves: vec![1], ids: vec![record(1).id(); 100] });
    tie.say(Gossip::Root(2));
    assert_eq!(tie.next_control(false), Some(Gossip::Root(1)));
    assert_eq!(tie.next_control(false), None, "in order");
    assert!(matches!(tie.next_control(true), Some(Gossip::Listing { .. })));
    assert_eq!(tie.next_control(false), Some(Gossip::Root(2)));
}
