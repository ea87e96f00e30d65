//! Somebody on the cable between two hosts repeats, damages, delays and redirects what passes: each is counted by its name, the
//! session stays, and the containers go on talking.

use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::Host;

use crate::attacker::{Attacker, Size};
use crate::fixture::{Container, deadline, eventually, hosts, with_app};
use crate::flow::{link, reach_by, way};

const COUNT: u64 = 10;
/// A probe among them is too short for some of what is done to others.
const SPARE: u64 = 2;

/// What is done to envelopes on their way, and the name under which the victim counts it.
const DEEDS: &[(&str, &str, &str)] = &[
    ("repeated", "replay", "replayed"),
    ("repeated after 5000 others", "late 5000", "too_old"),
    ("repeated from another address", "again-elsewhere", "replayed"),
    ("kind: another", "flip 0", "notice_ignored"),
    ("kind: far from ours", "flip 7", "unknown_kind"),
    ("kind: a relayed one", "flip 1", "not_authentic"),
    ("kind: not one of ours", "flip 3", "unknown_kind"),
    ("kind: a bare QUIC packet", "flip 6", "bare_after_envelope"),
    ("lane: another", "flip 8", "not_authentic"),
    ("lane: beyond all", "flip 14", "lane_out_of_range"),
    ("zero: not zero", "flip 16", "header_not_zero"),
    ("index: another", "flip 56", "unknown_index"),
    ("counter: far ahead", "flip 104", "not_authentic"),
    ("counter: beyond the stop", "flip 88", "counter_beyond_stop"),
    ("ciphertext: first bit", "flip 128", "not_authentic"),
    ("ciphertext: further in", "flip 300", "not_authentic"),
    ("tag: last bit", "flip -1", "not_authentic"),
    ("tag: first bit", "flip -128", "not_authentic"),
    ("cut to nothing", "cut 0", "empty"),
    ("cut within the header", "cut 15", "too_short"),
    ("cut to header and tag", "cut 32", "too_short"),
    ("cut by one byte", "cut -1", "not_authentic"),
    ("cut to a chunk's head", "cut 40", "not_authentic"),
];

#[test]
fn an_attacker_on_the_cable_gets_nothing_through() {
    let Some(lab) = hosts(2) else { return };
    // The attacker reads IPv4 only.
    lab.on_all_hosts(|host| host.sh("ip -6 addr flush dev eth0 scope global").map(drop)).unwrap();
    let mut mesh = with_app(&lab);
    let (victim, peer) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(victim, "alpha", "app", &[]);
    let b = Container::run(peer, "beta", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));

    let command = lab.switch_command([env!("CARGO_BIN_EXE_onpath"), "h2", "h1", "6783"]);
    let mut attacker = Attacker::start(command);
    lab.cut("h1", "h2").unwrap();
    let start = Instant::now();
    assert!(a.pings(&b.v4), "the cable leads through the attacker");

    // Many envelopes each second, and a connection whose gaps are measured.
    let noise = ["busybox", "ping", "-q", "-i", "0.001", &a.v4];
    let mut noise = peer.spawn_in_netns_of(b.pid, noise, "noise.log").unwrap();
    let mut serve = b.traffic_daemon(&["tcp-serve", &b.v4, "7003"]);
    eventually("the echo", Duration::from_secs(5), || a.try_traffic(&["tcp-short", &b.v4, "7003", "1"]).ok());
    let mut beat = a.traffic_daemon(&["tcp-beat", &b.v4, "7003", "25"]);
    let size = Size::of(victim, mesh.daemons()[0].pid);

    for (what, deed, label) in DEEDS {
        assert_eq!(noise.ended(), None, "beta still talks: {}", noise.log_text());
        attacker.is_counted(victim, what, &format!("{deed} {}", COUNT + SPARE), label, COUNT);
    }
    // What is authentic is taken wherever it comes from; it does not lead the answers there.
    attacker.obey(&format!("elsewhere {COUNT}"));
    assert!(a.pings(&b.v4), "after envelopes that came from elsewhere");
    // A notice makes the peer ask, and it is answered: nothing ends.
    attacker.obey(&format!("notice {COUNT}"));
    assert!(a.pings(&b.v4), "after forged notices");

    noise.kill9();
    assert_eq!(beat.wait(Duration::from_secs(60)), Some(0), "{}", beat.log_text());
    println!("TCP between the containers meanwhile: {}", beat.log_text().trim());
    size.assert_same(victim);
    let age = key_age(victim);
    assert!(age >= start.elapsed().as_secs(), "the session is the one of before: {age} s old");
    assert!(gap(&beat.log_text()) < deadline(5.0), "{}", beat.log_text());
    serve.kill9();
    drop(attacker);
    lab.mend("h1", "h2").unwrap();
    assert!(a.pings(&b.v4), "without the attacker");
}

/// What is done to relayed envelopes before they reach the relay, and who counts it: it, or the host that they are for.
const ON_THE_WAY: &[(&str, &str, &str, &str)] = &[
    ("repeated", "replay", "replayed", "h1"),
    ("kind: an envelope", "flip 1", "not_authentic", "h1"),
    ("lane: another", "flip 8", "not_authentic", "h1"),
    ("counter: far ahead", "flip 104", "not_authentic", "h1"),
    ("head: hop limit", "flip 128", "not_authentic", "h1"),
    ("head: target", "flip 200", "not_authentic", "h1"),
    ("head: carried header", "flip 320", "not_authentic", "h1"),
    ("head: last bit of the tag", "flip 519", "not_authentic", "h1"),
    ("cut to the head", "cut 65", "too_short", "h1"),
    ("cut to the head and a tag", "cut 81", "too_short", "h1"),
    ("body: first bit", "flip 520", "not_authentic", "h3"),
    ("body: further in", "flip 700", "not_authentic", "h3"),
    ("body: last bit of the tag", "flip -1", "not_authentic", "h3"),
    ("body: cut by one byte", "cut -1", "not_authentic", "h3"),
    ("body: cut to one byte", "cut 82", "not_authentic", "h3"),
    ("body: longer", "grow 8", "not_authentic", "h3"),
];

#[test]
fn an_attacker_before_a_relay_gets_nothing_through() {
    let Some(lab) = hosts(3) else { return };
    lab.on_all_hosts(|host| host.sh("ip -6 addr flush dev eth0 scope global").map(drop)).unwrap();
    lab.cut("h2", "h3").unwrap();
    let mut mesh = with_app(&lab);
    let (source, target) = (lab.host("h2"), lab.host("h3"));
    let a = Container::run(target, "alpha", "app", &[]);
    let b = Container::run(source, "beta", "app", &[]);
    reach_by(source, target, "h1");
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));

    let command = lab.switch_command([env!("CARGO_BIN_EXE_onpath"), "h2", "h1", "6783", "relayed"]);
    let mut attacker = Attacker::start(command);
    lab.cut("h1", "h2").unwrap();
    eventually("the cable leads through the attacker", Duration::from_secs(5), || a.pings(&b.v4));

    let noise = ["busybox", "ping", "-q", "-i", "0.001", &a.v4];
    let mut noise = source.spawn_in_netns_of(b.pid, noise, "noise.log").unwrap();
    let mut serve = b.traffic_daemon(&["tcp-serve", &b.v4, "7003"]);
    eventually("the echo", Duration::from_secs(5), || a.try_traffic(&["tcp-short", &b.v4, "7003", "1"]).ok());
    let mut beat = a.traffic_daemon(&["tcp-beat", &b.v4, "7003", "25"]);
    let sizes = [0, 2].map(|n: usize| Size::of(lab.host(["h1", "h2", "h3"][n]), mesh.daemons()[n].pid));
    let age = |host: &Host| link(host, "h2")["key_age"].as_u64().expect("a link that is up");
    let ages = (Instant::now(), age(target));

    for (what, deed, label, who) in ON_THE_WAY {
        assert_eq!(noise.ended(), None, "beta still talks: {}", noise.log_text());
        let order = format!("{deed} {}", COUNT + SPARE);
        attacker.is_counted(lab.host(who), what, &order, label, COUNT);
    }

    noise.kill9();
    assert_eq!(beat.wait(Duration::from_secs(60)), Some(0), "{}", beat.log_text());
    println!("TCP between the containers meanwhile: {}", beat.log_text().trim());
    sizes[0].assert_same(lab.host("h1"));
    sizes[1].assert_same(target);
    assert!(age(target) >= ages.1 + ages.0.elapsed().as_secs() - 1, "the session is the one of before");
    assert_eq!(way(target, "h2").as_deref(), Some("h1"), "still through the relay");
    assert!(gap(&beat.log_text()) < deadline(5.0), "{}", beat.log_text());
    serve.kill9();
    drop(attacker);
    lab.mend("h1", "h2").unwrap();
    assert!(a.pings(&b.v4), "without the attacker");
}

/// Seconds since the keys of the only link were made.
fn key_age(host: &Host) -> u64 {
    let links: Value = serde_json::from_str(&host.exec(["weft", "links", "--json"]).stdout).unwrap();
    links[0]["key_age"].as_u64().expect("a link that is up")
}

fn gap(said: &str) -> Duration {
    let ms = said.split_whitespace().rev().nth(1).and_then(|ms| ms.parse().ok());
    Duration::from_millis(ms.unwrap_or(u64::MAX))
}
