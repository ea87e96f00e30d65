//! What a member turned bad says as a neighbour: asks, announcements, prunes, comparisons and records without end. Each is
//! bounded by its name, and the others hear of news as ever.

use std::time::Duration;

use weft_api::fact::{FactRecord, FactVersion, Items};
use weft_api::id::{HostId, HostKey};
use weft_router::mesh::{Ask, Bond, Delta, Gossip, Id, MAX_IDS, MAX_RECORDS, RecordKey, Records};
use weft_router::session::message::Message;

use crate::attack_member::Stage;
use crate::fixture::eventually;
use crate::forged::hex;

/// Questions at once that a neighbour may ask, and records that it may send; a second brings 50 and 1000 more.
const QUESTIONS: usize = 200;
const RECORDS: usize = 16_384;
/// Records that are waited for.
const WANTED: usize = 16_384;

/// All of it, on a session of its own.
pub fn floods(stage: &mut Stage<'_>) {
    stage.attacker.obey("fresh");
    stage.attacker.obey(&order([Gossip::Neighbour(Bond::Wanted)]));
    stage.attacker.obey(&order(vec![Gossip::Prune; 1000]));
    let ids = (0..WANTED / MAX_IDS + 2).map(|part| {
        let range = part * MAX_IDS..(part + 1) * MAX_IDS;
        Gossip::Ids(range.map(|n| Id { key: nobodys(n), rank: (u64::MAX, u64::MAX), mark: 1 }).collect())
    });
    counted(stage, "more announced than is waited for", order(ids), "ids_too_many", MAX_IDS);
    let asks = (0..QUESTIONS * 2).map(|part| {
        let have = Some((FactVersion::default(), vec![7; 20]));
        let keys = (part * MAX_RECORDS..).take(MAX_RECORDS).map(nobodys);
        Gossip::Ask { graft: true, asks: keys.map(|key| Ask { key, have: have.clone() }).collect() }
    });
    counted(stage, "asks without end", order(asks), "questions_too_fast", QUESTIONS / 2);
    let leaves: Vec<u8> = (0..=255).collect();
    let compare = [
        Gossip::Root(7),
        Gossip::Branches(vec![7; 16]),
        Gossip::Leaves((0..16).map(|branch| (branch, vec![7; 16])).collect()),
        Gossip::Leaves(vec![(255, vec![7; 16]); 16]),
        Gossip::Listing { leaves: leaves.clone(), ids: Vec::new() },
        Gossip::Listing { leaves, ids: vec![Id { key: nobodys(1), rank: (1, 1), mark: 1 }; MAX_IDS] },
    ];
    for question in compare {
        let what = format!("{question:?}").chars().take(30).collect::<String>();
        counted(stage, &what, order(vec![question; QUESTIONS * 2]), "questions_too_fast", QUESTIONS / 2);
    }
    let version = FactVersion { boot: 4000, sequence: 1 };
    let me = HostKey(stage.key.public()).id();
    let FactRecord { head, items } =
        FactRecord::sign(&stage.key, stage.mesh.mesh, me, version, Items::default());
    let facts = vec![Delta { head, base: None, removed: Vec::new(), added: items }; MAX_RECORDS];
    let records = Records { facts, ..Records::default() };
    let enough = RECORDS / MAX_RECORDS * 5 / 4;
    let records = order(vec![Gossip::Push(records); enough]);
    counted(stage, "old records again and again", records, "records_too_fast", MAX_RECORDS);
    news_travel(stage);
}

fn counted(stage: &mut Stage<'_>, what: &str, order: String, label: &str, least: usize) {
    stage.attacker.is_counted(stage.host, what, &order, label, least as u64);
}

fn order(gossip: impl IntoIterator<Item = Gossip>) -> String {
    let bytes: Vec<u8> = gossip.into_iter().flat_map(|gossip| Message::Mesh(gossip).encode()).collect();
    format!("control {}", hex(&bytes))
}

fn nobodys(n: usize) -> RecordKey {
    RecordKey::Facts(HostId((0xbad0_0000_0000_0000 | n as u64).to_be_bytes()))
}

/// The third host hears what the victim decides, and that it takes it back.
fn news_travel(stage: &Stage<'_>) {
    let has = || stage.third.host.exec(["docker", "network", "inspect", "later"]).ok();
    stage.host.run(["weft", "network", "create", "later"]).unwrap();
    let took = eventually("a decision is heard", Duration::from_secs(5), has);
    println!("a decision is heard {:.1} s after the floods", took.as_secs_f64());
    stage.host.run(["weft", "network", "rm", "later"]).unwrap();
    eventually("and that it is taken back", Duration::from_secs(10), || !has());
}
