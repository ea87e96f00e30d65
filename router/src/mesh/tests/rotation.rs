//! Rotation of the mesh key: whatever comes first and whatever the disk refuses, everybody ends with the same roster, and no
//! member vanishes in between.

use std::sync::Arc;

use proptest::prelude::*;
use weft_api::id::MeshKey;
use weft_api::roster::{RosterRecord, Standing, Under};
use weft_api::sign::SigningKey;

use super::super::*;
use super::start;
use super::world::{World, id, key, member, mesh_key};

const SEC: Duration = Duration::from_secs(1);

/// The mesh key of a number.
fn signer(number: u32) -> SigningKey {
    if number == 0 { mesh_key() } else { SigningKey::from_seed([100 + number as u8; 32]) }
}

fn succession(number: u32, to: &SigningKey, carried: u32) -> Signed<Succession> {
    let mesh = MeshKey(mesh_key().public()).id();
    signer(number - 1).sign(&Succession { mesh, number, key: MeshKey(to.public()), carried })
}

fn under(n: usize, number: u32, carried: bool, standing: Standing) -> Signed<RosterRecord> {
    let record = member(n, 1 + u64::from(number), standing).peek().unwrap();
    signer(number).sign(&RosterRecord { under: Under { key: number, carried }, ..record })
}

fn one(record: impl FnOnce(&mut Records)) -> Records {
    let mut records = Records::default();
    record(&mut records);
    records
}

/// Hosts 0 to 4 and 6 are carried over twice, 3 is removed under the first key and 4 under the last; 5 was admitted by somebody with
/// the first key whom nobody has heard, 7 by the last key.
fn everything() -> Vec<Records> {
    let mut all = vec![
        one(|r| r.successions.push(succession(1, &signer(1), 6))),
        one(|r| r.successions.push(succession(2, &signer(2), 6))),
        one(|r| r.roster.push(under(5, 0, false, Standing::Member))),
        one(|r| r.roster.push(under(3, 0, false, Standing::Removed))),
        one(|r| r.roster.push(under(7, 2, false, Standing::Member))),
    ];
    for n in [0, 1, 2, 3, 4, 6] {
        let standing = |gone| if gone { Standing::Removed } else { Standing::Member };
        all.push(one(|r| r.roster.push(under(n, 1, true, standing(n == 3)))));
        all.push(one(|r| r.roster.push(under(n, 2, true, standing(n == 3 || n == 4)))));
    }
    all
}

struct Desk {
    mesh: Mesh,
    disk: BTreeMap<RecordKey, AnyRecord>,
    counts: BTreeMap<DropReason, u64>,
    asked: BTreeSet<RecordKey>,
    now: Duration,
    refuses: u64,
}

impl Desk {
    fn new() -> Self {
        let mut disk = BTreeMap::new();
        let mut desk = Self {
            mesh: begin(&disk, (0..5).chain([6])),
            disk: BTreeMap::new(),
            counts: BTreeMap::new(),
            asked: BTreeSet::new(),
            now: Duration::ZERO,
            refuses: 0,
        };
        for (host, held) in desk.mesh.roster().records() {
            disk.insert(RecordKey::Roster(host), AnyRecord::Roster(Arc::clone(held)));
        }
        desk.disk = disk;
        desk.meet();
        desk
    }

    fn meet(&mut self) {
        self.event(Event::Connected(id(1)));
        self.event(Event::LinkUp(id(1)));
        self.event(Event::Heard(id(1), &Gossip::Neighbour(Bond::Wanted)));
    }

    fn restart(&mut self) {
        self.mesh = begin(&self.disk, []);
        self.meet();
    }

    fn hear(&mut self, records: &Records) {
        self.event(Event::Heard(id(1), &Gossip::Answer(records.clone())));
    }

    fn wait(&mut self, pause: Duration) {
        self.now += pause;
        self.event(Event::Tick);
    }

    fn event(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.mesh.handle(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Store(records) => {
                    self.refuses >>= 1;
                    let well = self.refuses & 1 == 0;
                    for record in records.into_iter().filter(|_| well) {
                        match record {
                            ToStore::Record(record) => drop(self.disk.insert(record.id().key, record)),
                            ToStore::FactsGone(host) => drop(self.disk.remove(&RecordKey::Facts(host))),
                            ToStore::RosterGone(host) => drop(self.disk.remove(&RecordKey::Roster(host))),
                        }
                    }
                    self.event(Event::Stored(well));
                }
                Action::Count(reason, n) => *self.counts.entry(reason).or_default() += n,
                Action::Send(host) => {
                    while let Some(gossip) = self.mesh.next_message(self.now, host) {
                        if let Gossip::Ask { asks, .. } = gossip {
                            self.asked.extend(asks.into_iter().map(|ask| ask.key));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn counted(&mut self, records: &Records, reason: DropReason) {
        let before = self.counts.get(&reason).copied().unwrap_or_default();
        let roster = roster_of(&self.mesh);
        self.hear(records);
        assert_eq!(self.counts.get(&reason).copied(), Some(before + 1), "{reason:?}: {:?}", self.counts);
        assert_eq!(roster_of(&self.mesh), roster);
    }
}

fn begin(disk: &BTreeMap<RecordKey, AnyRecord>, members: impl IntoIterator<Item = usize>) -> Mesh {
    let mut roster: Vec<_> = members.into_iter().map(|n| member(n, 1, Standing::Member)).collect();
    let mut successions = Vec::new();
    for record in disk.values() {
        match record {
            AnyRecord::Succession(held) => successions.push(held.signed.clone()),
            AnyRecord::Roster(held) => roster.push(held.signed.clone()),
            _ => {}
        }
    }
    let start = Start { successions, ..start(roster) };
    let (mesh, refused) = Mesh::new(start);
    assert_eq!(refused, [], "what was stored is believed again");
    mesh
}

fn roster_of(mesh: &Mesh) -> Vec<RosterRecord> {
    mesh.roster().records().map(|(_, held)| held.record.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_order_ends_in_the_same_roster(
        order in Just(everything()).prop_shuffle(),
        restarts: u32,
        refuses: u32,
    ) {
        let mut desk = Desk::new();
        desk.refuses = refuses.into();
        // What came too early is asked for again: here it simply comes again.
        for pass in 0..4 {
            for (n, records) in order.iter().enumerate() {
                desk.hear(records);
                for kept in [0, 1, 2, 6] {
                    prop_assert!(desk.mesh.roster().member(id(kept)).is_some(), "host {} was thrown out", kept);
                }
                if pass < 2 && restarts >> ((n + pass) % 32) & 1 == 1 {
                    desk.restart();
                }
            }
            desk.refuses = 0;
            desk.wait(2 * SEC);
        }
        let mut expected = Vec::new();
        for n in [0, 1, 2, 3, 4, 6, 7] {
            let standing = if n == 3 || n == 4 { Standing::Removed } else { Standing::Member };
            expected.push(under(n, 2, n != 7, standing).peek().unwrap());
        }
        expected.sort_by_key(|record| record.key.id());
        prop_assert_eq!(roster_of(&desk.mesh), expected.clone(), "host 5 is nobody, whatever came first");
        prop_assert_eq!(desk.mesh.roster().chain().number(), 2);
        let root = desk.mesh.sums.root();
        desk.restart();
        prop_assert_eq!(roster_of(&desk.mesh), expected, "and the disk has the same");
        prop_assert_eq!(desk.mesh.sums.root(), root);
    }
}

#[test]
fn who_has_an_old_key_deceives_nobody_who_knows_the_successor() {
    let mut desk = Desk::new();
    let early = one(|r| r.roster.push(under(1, 1, true, Standing::Member)));
    desk.counted(&early, DropReason::RecordOfLaterKey);
    desk.wait(SEC / 100);
    assert!(desk.asked.contains(&RecordKey::Succession(1)), "what is missing is asked for: {:?}", desk.asked);
    desk.wait(SEC);
    assert!(desk.asked.contains(&RecordKey::Roster(id(1))), "and then what came too early");
    let forged = Succession { number: 1, ..succession(1, &signer(1), 6).peek().unwrap() };
    desk.counted(&one(|r| r.successions.push(key(1).sign(&forged))), DropReason::RecordForged);
    let odd = [0, 300].map(|number| mesh_key().sign(&Succession { number, ..forged.clone() }));
    for signed in odd {
        desk.counted(&one(|r| r.successions.push(signed)), DropReason::RecordInvalid);
    }
    desk.counted(&one(|r| r.successions.push(succession(2, &signer(2), 6))), DropReason::RecordOfLaterKey);
    desk.hear(&one(|r| r.successions.push(succession(1, &signer(1), 6))));
    assert_eq!(desk.mesh.roster().chain().current(), MeshKey(signer(1).public()));
    assert_eq!(desk.mesh.roster().members().len(), 6, "nobody is thrown out");
    for standing in [Standing::Member, Standing::Removed] {
        let record = RosterRecord { serial: 999, ..under(2, 0, false, standing).peek().unwrap() };
        desk.counted(&one(|r| r.roster.push(mesh_key().sign(&record))), DropReason::RecordOfOldKey);
        desk.counted(&one(|r| r.roster.push(key(1).sign(&record))), DropReason::RecordForged);
        let claims = RosterRecord { under: Under { key: 1, carried: true }, ..record };
        desk.counted(&one(|r| r.roster.push(mesh_key().sign(&claims))), DropReason::RecordForged);
    }
    let rival = one(|r| r.successions.push(succession(1, &signer(9), 6)));
    desk.counted(&rival, DropReason::SuccessionRival);
    desk.counted(&rival, DropReason::SuccessionRival);
    let rivals: Vec<_> = desk.mesh.rivals().map(|rival| rival.key).collect();
    assert_eq!(rivals, [MeshKey(signer(9).public())], "remembered once");
    let back = signer(1).sign(&Succession { number: 2, key: MeshKey(mesh_key().public()), ..forged });
    desk.counted(&one(|r| r.successions.push(back)), DropReason::RecordInvalid);
}

#[test]
fn hosts_that_were_away_learn_the_new_key_and_lose_nobody() {
    let (n, away) = (12, 5);
    let limits = Limits { everybody: 8, choices: 4, neighbours: 16 };
    let mut world = World::new(n, limits, 1, |me| (0..n).filter(|o| *o != me).collect());
    world.loss = 5;
    world.until("all agree", 30 * SEC, |w| w.agree() && w.all_reachable());
    world.kill(away);
    for number in [1, 2] {
        let carried = n as u32;
        world.event(0, Event::MadeSuccessions(vec![succession(number, &signer(number), carried)]));
        let standing = |host| if host == n - 1 && number == 2 { Standing::Removed } else { Standing::Member };
        let again = (0..n).map(|host| under(host, number, true, standing(host))).collect();
        world.event(0, Event::MadeRoster(again));
    }
    let up_to_date = |w: &World, host: usize| {
        let roster = w.hosts[host].mesh.roster();
        roster.records().all(|(_, held)| held.record.under.key == 2) && roster.members().len() == n - 1
    };
    let took =
        world.until("all have the new key", 5 * SEC, |w| (0..n).all(|h| h == away || up_to_date(w, h)));
    println!("{n} hosts, 5 % loss, two rotations: {took:?}");
    world.restart(away, true);
    assert_eq!(world.hosts[away].mesh.roster().chain().number(), 0);
    let took = world.until("the one that was away too", 30 * SEC, |w| up_to_date(w, away) && w.agree());
    println!("a host that was away: {took:?}");
    world.restart(away, true);
    assert!(up_to_date(&world, away), "its disk has it");
    world.until("all agree", 30 * SEC, World::agree);
}
