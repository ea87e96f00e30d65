//! Hosts behind NAT boxes that drop what nobody inside asked for: they join, find the direct path, and follow the box when it
//! forgets its mappings or gets another public address.

use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::{Host, Lab, Mesh, NatKind};

use crate::fixture::{Container, deadline, eventually, with_app};

/// Two hosts behind different boxes have a direct path within this.
const PUNCHED: f64 = 10.0;
/// After a box has changed its mappings traffic goes on within this.
const FOLLOWED: f64 = 5.0;

/// What carries the link between two hosts, as the first sees it: `udp`, `tcp`, or the name of a relay.
fn transport(from: &Host, to: &Host) -> Option<String> {
    let links = from.exec(["weft", "links", "--json"]).stdout;
    let links: Vec<Value> = serde_json::from_str(&links).unwrap_or_default();
    let link = links.iter().find(|l| l["host"] == to.name() && l["state"] == "up")?;
    Some(link["transport"].as_str()?.to_owned())
}

fn direct(a: &Host, b: &Host) -> bool {
    [transport(a, b), transport(b, a)].iter().all(|by| by.as_deref() == Some("udp"))
}

/// Sends 20 MB both ways over TCP, to a port that no other transfer of the test has.
fn transfer(a: &Container<'_>, b: &Container<'_>, port: &str) {
    for (from, to) in [(a, b), (b, a)] {
        let mut sink = to.traffic_daemon(&["tcp-sink", &to.v4, port]);
        let sent = from.traffic(&["tcp-source", &to.v4, port, "20000000"]);
        assert_eq!(sink.wait(deadline(30.0)), Some(0), "{}", sink.log_text());
        assert_eq!(sent, sink.log_text(), "every byte, in order");
    }
}

fn talk(a: &Container<'_>, b: &Container<'_>) -> bool {
    a.pings(&b.v4) && b.pings(&a.v4)
}

#[test]
fn a_host_behind_a_box_joins_and_follows_it() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(3).nat(NatKind::Cone, &["h2"]).up().unwrap();
    let _mesh = with_app(&lab);
    let [h1, h2, h3] = ["h1", "h2", "h3"].map(|name| lab.host(name));
    let [a, b, c] = [(h1, "alpha"), (h2, "beta"), (h3, "gamma")]
        .map(|(host, name)| Container::run(host, name, "app", &[]));
    eventually("frames pass", Duration::from_secs(5), || talk(&a, &b) && talk(&b, &c));
    eventually("links are direct", Duration::from_secs(5), || direct(h1, h2) && direct(h2, h3));
    println!("{}", h2.exec(["weft", "links"]).stdout);
    transfer(&a, &b, "7001");
    transfer(&c, &b, "7002");

    let mut echo = b.traffic_daemon(&["tcp-serve", &b.v4, "7003"]);
    let changes: [(&str, &str, &dyn Fn()); 2] = [
        ("forgets its mappings", "6", &|| lab.nat("n1").forget().unwrap()),
        ("has another address", "7", &|| assert!(lab.nat("n1").change_address().is_ok())),
    ];
    for (what, seconds, change) in changes {
        let mut beats = [&a, &c].map(|from| from.traffic_daemon(&["tcp-beat", &b.v4, "7003", seconds]));
        std::thread::sleep(Duration::from_secs(1)); // A beat before the change; the gap is measured by it.
        change();
        let took = eventually(what, Duration::from_secs_f64(FOLLOWED), || talk(&a, &b) && talk(&b, &c));
        println!("the box {what}: pings after {:.2} s", took.as_secs_f64());
        for beat in &mut beats {
            assert_eq!(beat.wait(deadline(30.0)), Some(0), "{}", beat.log_text());
            println!("the box {what}: {}", beat.log_text().trim());
        }
        eventually("direct as before", Duration::from_secs_f64(FOLLOWED), || {
            direct(h1, h2) && direct(h2, h3)
        });
    }
    echo.kill9();
}

#[test]
fn two_hosts_behind_boxes_find_each_other() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(4).nat(NatKind::Cone, &["h2", "h4"]).nat(NatKind::Cone, &["h3"]);
    let lab = lab.up().unwrap();
    let mesh = Mesh::up(&lab, &[]).unwrap();
    let start = Instant::now();
    let [h1, h2, h3, h4] = ["h1", "h2", "h3", "h4"].map(|name| lab.host(name));
    let all = || direct(h2, h3) && direct(h4, h3) && direct(h2, h4) && direct(h1, h2) && direct(h1, h3);
    println!("{}", h2.exec(["weft", "links"]).stdout);
    eventually("direct paths", Duration::from_secs_f64(PUNCHED), all);
    println!("direct paths through two boxes {:.1} s after the last join", start.elapsed().as_secs_f64());
    println!("{}", h2.exec(["weft", "links"]).stdout);
    mesh.network(&["app"]).unwrap();
    let [b, c, d] = [(h2, "beta"), (h3, "gamma"), (h4, "delta")]
        .map(|(host, name)| Container::run(host, name, "app", &[]));
    eventually("frames pass", Duration::from_secs(5), || talk(&b, &c) && talk(&b, &d) && talk(&c, &d));
    transfer(&b, &c, "7001");

    // Neither can reach the other by what it knew: the one in public tells where the hosts behind the box are now.
    let mut echo = c.traffic_daemon(&["tcp-serve", &c.v4, "7003"]);
    let mut beat = b.traffic_daemon(&["tcp-beat", &c.v4, "7003", "10"]);
    lab.nat("n1").change_address().unwrap();
    let start = Instant::now();
    eventually("frames pass again", Duration::from_secs_f64(FOLLOWED), || talk(&b, &c) && talk(&c, &d));
    println!("pings {:.2} s after a box has another address", start.elapsed().as_secs_f64());
    eventually("direct paths again", Duration::from_secs_f64(PUNCHED), all);
    println!("direct paths {:.1} s after a box has another address", start.elapsed().as_secs_f64());
    println!("{}", h3.exec(["weft", "links"]).stdout);
    assert_eq!(beat.wait(deadline(40.0)), Some(0), "{}", beat.log_text());
    println!("TCP across it: {}", beat.log_text().trim());
    echo.kill9();
}

#[test]
fn boxes_that_cannot_be_foretold_need_a_relay() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(3).nat(NatKind::Symmetric, &["h2"]).nat(NatKind::Symmetric, &["h3"]);
    let lab = lab.up().unwrap();
    let _mesh = with_app(&lab);
    let [h1, h2, h3] = ["h1", "h2", "h3"].map(|name| lab.host(name));
    let [b, c] = [(h2, "beta"), (h3, "gamma")].map(|(host, name)| Container::run(host, name, "app", &[]));
    eventually("frames pass", Duration::from_secs(5), || talk(&b, &c));
    println!("{}", h2.exec(["weft", "links"]).stdout);
    assert!(direct(h1, h2) && direct(h1, h3));
    for (from, to) in [(h2, h3), (h3, h2)] {
        assert_eq!(transport(from, to).as_deref(), Some("h1"), "through whom both know");
    }
    transfer(&b, &c, "7001");
}
