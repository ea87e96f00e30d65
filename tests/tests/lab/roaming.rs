//! Hosts whose address changes under a running transfer: it goes on in the same session.

use std::time::Instant;

use weft_lab::Host;

use crate::fixture::{Container, eventually, hosts, with_app};
use crate::flow::{CHANGED, Flow, key_age, link, reach_by};

#[test]
fn a_transfer_outlives_changes_of_address() {
    let Some(lab) = hosts(3) else { return };
    // With IPv6 there would be another way that stays.
    lab.on_all_hosts(|host| host.sh("ip -6 addr flush dev eth0 scope global").map(drop)).unwrap();
    let mesh = with_app(&lab);
    let (left, right) = (lab.host("h2"), lab.host("h3"));
    let a = Container::run(left, "alpha", "app", &[]);
    let c = Container::run(right, "gamma", "app", &[]);
    reach_by(left, right, "udp");
    eventually("ping", CHANGED, || a.pings(&c.v4));

    let start = Instant::now();
    let flow = Flow::start(&a, &c, &c.v4, "7001", "0123456789abcdef");
    moves(left, "192.0.2.2", "192.0.2.102");
    follows(right, left, "192.0.2.102", &flow);
    moves(right, "192.0.2.3", "192.0.2.103");
    follows(left, right, "192.0.2.103", &flow);
    // Both at once: neither can tell the other, but both tell h1.
    moves(left, "192.0.2.102", "192.0.2.2");
    moves(right, "192.0.2.103", "192.0.2.3");
    let begun = Instant::now();
    follows(right, left, "192.0.2.2", &flow);
    follows(left, right, "192.0.2.3", &flow);
    println!("both at once: direct after {:.1} s", begun.elapsed().as_secs_f64());
    flow.finish();
    let passed = start.elapsed().as_secs();
    for (host, to) in [(left, "h3"), (right, "h2"), (lab.host("h1"), "h2"), (lab.host("h1"), "h3")] {
        assert!(key_age(host, to) >= passed, "{} with {to}: no new handshake", host.name());
    }
    assert!(mesh.wait_ready().is_ok());
}

fn moves(host: &Host, from: &str, to: &str) {
    let script = format!(
        "ip addr del {from}/24 dev eth0 && ip addr add {to}/24 brd + dev eth0 && ip route replace default via 192.0.2.254"
    );
    host.sh(&script).unwrap();
}

/// `host` reaches the one that has moved at its new address, and the transfer goes on.
fn follows(host: &Host, moved: &Host, to: &str, flow: &Flow) {
    let begun = Instant::now();
    eventually(&format!("{} is found at {to}", moved.name()), CHANGED, || {
        let link = link(host, moved.name());
        let at = link["address"].as_str().is_some_and(|at| at == format!("{to}:6783"));
        at && link["state"] == "up" && link["transport"] == "udp"
    });
    let found = begun.elapsed();
    flow.goes_on("the transfer goes on");
    println!(
        "{} is followed to {to} within {:.1} s, its transfer goes on within {:.1} s",
        moved.name(),
        found.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
}
