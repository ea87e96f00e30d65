//! What hosts present of themselves: whatever comes, nobody is let in whom the newest mesh key known here has not signed, nothing
//! older replaces what is known, and what is known stays refused.

use proptest::prelude::*;
use weft_api::id::{HostKey, MeshKey};
use weft_api::roster::{RosterRecord, Standing, Under};
use weft_api::sign::SigningKey;
use weft_api::succession::Succession;

use super::super::*;
use super::start;
use super::world::{id, key, member, mesh_key};

fn signer(number: u32) -> SigningKey {
    if number == 0 { mesh_key() } else { SigningKey::from_seed([100 + number as u8; 32]) }
}

fn successions(number: u32) -> Vec<Signed<Succession>> {
    let mesh = MeshKey(mesh_key().public()).id();
    let succession = |n| {
        let key = MeshKey(signer(n).public());
        signer(n - 1).sign(&Succession { mesh, number: n, key, carried: 99 })
    };
    (1..=number).map(succession).collect()
}

fn record(n: usize, number: u32, serial: u64, standing: Standing) -> RosterRecord {
    let record = member(n, serial, standing).peek().unwrap();
    RosterRecord { under: Under { key: number, carried: true }, ..record }
}

fn proof(number: u32, signed_by: &SigningKey, record: &RosterRecord) -> Proof {
    Proof { successions: successions(number), record: signed_by.sign(record) }
}

/// A host whose disk has itself, host 1 as a member and host 2 as removed.
fn begin() -> Mesh {
    let all = [(0, Standing::Member), (1, Standing::Member), (2, Standing::Removed)];
    let start = start(all.iter().map(|(n, standing)| member(*n, 5, *standing)).collect());
    Mesh::new(start).0
}

struct Said {
    refused: bool,
    stores: usize,
    counts: Vec<DropReason>,
}

/// Host `n` presents something.
fn present(mesh: &mut Mesh, now: Duration, n: usize, proof: &Proof) -> Said {
    let (mut actions, mut said) = (Vec::new(), Said { refused: false, stores: 0, counts: Vec::new() });
    mesh.handle(now, Event::Presented(HostKey(key(n).public()), proof), &mut actions);
    while !actions.is_empty() {
        for action in std::mem::take(&mut actions) {
            match action {
                Action::Refuse(host) => said.refused |= host == id(n),
                Action::Count(reason, _) => said.counts.push(reason),
                Action::Store(_) => {
                    said.stores += 1;
                    mesh.handle(now, Event::Stored(true), &mut actions);
                }
                _ => {}
            }
        }
    }
    said
}

#[test]
fn a_newcomer_that_nobody_has_told_of_is_let_in() {
    for number in 0..3 {
        let mut mesh = begin();
        let own = record(3, number, 1, Standing::Member);
        let said = present(&mut mesh, Duration::ZERO, 3, &proof(number, &signer(number), &own));
        assert!(!said.refused && said.counts.is_empty() && said.stores == 1);
        assert_eq!(mesh.roster().member(id(3)), Some(&own));
        assert_eq!(mesh.roster().chain().number(), number, "and the mesh keys are learnt");
        let again = present(&mut mesh, Duration::ZERO, 3, &proof(number, &signer(number), &own));
        assert!(!again.refused && again.stores == 0);
    }
}

#[test]
fn what_proves_nothing_is_named() {
    let newer = record(1, 0, 9, Standing::Member);
    let cases = [
        ("another host's", 3, proof(0, &signer(0), &newer), DropReason::ProofOfAnother),
        (
            "its own signature",
            3,
            proof(0, &key(3), &record(3, 0, 1, Standing::Member)),
            DropReason::RecordForged,
        ),
        (
            "no chain",
            3,
            Proof { successions: Vec::new(), ..proof(1, &signer(1), &record(3, 1, 1, Standing::Member)) },
            DropReason::RecordOfLaterKey,
        ),
        (
            "another mesh",
            3,
            proof(
                0,
                &signer(0),
                &RosterRecord { mesh: MeshKey([7; 32]).id(), ..record(3, 0, 1, Standing::Member) },
            ),
            DropReason::RecordOfAnotherMesh,
        ),
    ];
    for (what, n, proof, reason) in cases {
        let said = present(&mut begin(), Duration::ZERO, n, &proof);
        assert_eq!((said.refused, said.stores, said.counts), (true, 0, vec![reason]), "{what}");
    }
    let mut mesh = begin();
    let said =
        present(&mut mesh, Duration::ZERO, 2, &proof(0, &signer(0), &record(2, 0, 9, Standing::Member)));
    assert!(said.refused && said.stores == 0, "removed is final");
    let old = proof(0, &signer(0), &record(1, 0, 4, Standing::Member));
    let said = present(&mut mesh, Duration::ZERO, 1, &old);
    assert!(!said.refused && said.stores == 0, "a member that is behind stays one");
    assert_eq!(mesh.roster().get(id(1)).unwrap().serial, 5);
    present(&mut mesh, Duration::ZERO, 3, &proof(1, &signer(1), &record(3, 1, 1, Standing::Member)));
    let said =
        present(&mut mesh, Duration::ZERO, 4, &proof(0, &signer(0), &record(4, 0, 1, Standing::Member)));
    assert_eq!((said.refused, said.counts), (true, vec![DropReason::RecordOfOldKey]));
}

#[test]
fn presenting_again_and_again_costs_little() {
    let (mut mesh, mut judged) = (begin(), 0);
    let forged = proof(0, &key(3), &record(3, 0, 1, Standing::Member));
    for n in 0..10_000 {
        let said = present(&mut mesh, Duration::from_micros(100) * n, 3, &forged);
        assert!(said.refused);
        judged += usize::from(said.counts == [DropReason::RecordForged]);
    }
    assert!((64..=84).contains(&judged), "{judged} judged in a second");
    let known = proof(0, &mesh_key(), &member(1, 5, Standing::Member).peek().unwrap());
    assert!(
        present(&mut mesh, Duration::from_secs(1), 1, &known).counts.is_empty(),
        "who is known need not wait"
    );
}

proptest! {
    #[test]
    fn only_the_newest_known_key_lets_anybody_in(
        steps in prop::collection::vec((1usize..5, 0u32..4, 0u32..4, 1u64..9, any::<bool>(), 0u8..4), 0..40),
    ) {
        let (mut mesh, mut now) = (begin(), Duration::ZERO);
        for (n, chain, number, serial, removed, kind) in steps {
            now += Duration::from_millis(100);
            let standing = if removed { Standing::Removed } else { Standing::Member };
            let own = record(n, number, serial, standing);
            let by = if kind == 0 { key(n) } else { signer(number) };
            let (before, keys) = (mesh.roster().get(id(n)).cloned(), mesh.roster().chain().number());
            let others: Vec<_> = mesh.roster().records().filter(|(h, _)| *h != id(n)).map(|(_, r)| r.mark).collect();
            let said = present(&mut mesh, now, n, &proof(chain, &by, &own));
            let after = mesh.roster().get(id(n)).cloned();
            let newest = mesh.roster().chain().number();
            prop_assert_eq!(newest, keys.max(chain));
            if after != before {
                prop_assert_eq!(after.as_ref(), Some(&own));
                prop_assert!(kind != 0 && number == newest);
                prop_assert!(before.as_ref().is_none_or(|b| b.rank() <= own.rank()));
            }
            let is_member = after.is_some_and(|r| r.standing == Standing::Member);
            prop_assert_eq!(said.refused, !is_member);
            let left: Vec<_> = mesh.roster().records().filter(|(h, _)| *h != id(n)).map(|(_, r)| r.mark).collect();
            prop_assert_eq!(others, left, "nobody else is touched");
        }
    }
}
