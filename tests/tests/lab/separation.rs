//! Who may be whom: containers that lie about their addresses, on other networks and on other hosts.

use std::time::Duration;

use serde_json::Value;
use weft_lab::Host;

use crate::fixture::{Container, eventually, hosts, with_app};

#[test]
fn a_container_with_an_address_of_another_network_reaches_nobody_there() {
    let Some(lab) = hosts(2) else { return };
    let mesh = with_app(&lab);
    mesh.network(&["db"]).unwrap();
    let victim = Container::run(lab.host("h2"), "victim", "db", &[]);
    let friend = Container::run(lab.host("h1"), "friend", "db", &[]);
    let liar = Container::run(lab.host("h1"), "liar", "app", &[]);
    eventually("ping within the network", Duration::from_secs(5), || friend.pings(&victim.v4));

    become_somebody(&liar, &friend.mac, &format!("{}/16", friend.v4));
    for _ in 0..3 {
        assert!(!liar.pings(&victim.v4), "an address of `db` worked on `app`");
    }
    assert!(friend.pings(&victim.v4), "the true owner still talks");
}

#[test]
fn nothing_of_a_container_with_a_remote_ones_address_crosses_the_mesh() {
    let Some(lab) = hosts(3) else { return };
    let _mesh = with_app(&lab);
    let owner = Container::run(lab.host("h2"), "owner", "app", &[]);
    let third = Container::run(lab.host("h3"), "third", "app", &[]);
    let liar = Container::run(lab.host("h1"), "liar", "app", &[]);
    eventually("ping before the lie", Duration::from_secs(5), || {
        liar.pings(&third.v4) && third.pings(&owner.v4)
    });

    let mut ear = third.traffic_daemon(&["frame-wait", &third.iface, "6c696172", "8"]);
    assert!(ear.wait_log("waiting", Duration::from_secs(5)));
    let before = drops(lab.host("h1"));
    become_somebody(&liar, &owner.mac, &format!("{}/16", owner.v4));
    let header = format!("{}{}", third.mac.replace(':', ""), owner.mac.replace(':', ""));
    for _ in 0..20 {
        liar.traffic(&["frame-send", &liar.iface, &format!("{header}88b5{}", "6c696172".repeat(16))]);
        liar.pings(&third.v4);
    }
    assert_eq!(
        ear.wait(Duration::from_secs(15)),
        Some(1),
        "a frame under a stolen MAC arrived: {}",
        ear.log_text()
    );
    let after = drops(lab.host("h1"));
    println!("drops before {before:?}, after {after:?}");
    let grew = |name: &str| after.get(name).unwrap_or(&0) > before.get(name).unwrap_or(&0);
    assert!(grew("source_not_theirs"), "not counted by its name");

    become_somebody(&liar, &liar.mac, &format!("{}/16", owner.v4));
    liar.pings(&third.v4);
    eventually("the IP under another MAC counted", Duration::from_secs(5), || {
        liar.pings(&third.v4);
        drops(lab.host("h1")).get("address_not_theirs").is_some_and(|n| *n > 0)
    });
    assert!(third.pings(&owner.v4), "the true owner still talks");
}

fn become_somebody(liar: &Container, mac: &str, address: &str) {
    let iface = liar.iface.as_str();
    for argv in [
        vec!["ip", "link", "set", iface, "down"],
        vec!["ip", "link", "set", iface, "address", mac],
        vec!["ip", "addr", "flush", "dev", iface],
        vec!["ip", "addr", "add", address, "dev", iface],
        vec!["ip", "link", "set", iface, "up"],
    ] {
        let out = liar.exec(&argv);
        assert!(out.ok(), "{argv:?}: {out}");
    }
}

/// What this host has dropped, by reason.
pub fn drops(host: &Host) -> std::collections::BTreeMap<String, u64> {
    let status: Value =
        serde_json::from_str(&host.exec(["weft", "status", "--json"]).stdout).expect("status --json is JSON");
    status["drops"]
        .as_object()
        .expect("drops")
        .iter()
        .map(|(k, v)| (k.clone(), v.as_u64().unwrap_or(0)))
        .collect()
}
