//! Two bridges of one network tied together outside weft: named, and nothing goes round.

use std::time::Duration;

use weft_lab::Host;

use crate::fixture::{Container, eventually, hosts, with_app};
use crate::separation::drops;

const PATIENCE: Duration = Duration::from_secs(30);

/// A VXLAN over the underlay into the network's bridge: a cable between the machines.
fn tie(host: &Host, other: &Host, bridge: &str) {
    let (local, remote) = (host.addr().to_string(), other.addr().to_string());
    let add = ["ip", "link", "add", "cable", "type", "vxlan", "id", "7", "dstport", "4789"];
    let ends = ["local", local.as_str(), "remote", remote.as_str()];
    for argv in [[&add[..], &ends].concat(), vec!["ip", "link", "set", "cable", "master", bridge, "up"]] {
        let said = host.exec(&argv);
        assert!(said.ok(), "{argv:?}: {said}");
    }
}

fn problems(host: &Host) -> String {
    host.exec(["weft", "status", "--json"]).stdout
}

fn datagrams_sent(host: &Host) -> u64 {
    let links: serde_json::Value =
        serde_json::from_str(&host.exec(["weft", "links", "--json"]).stdout).unwrap();
    links[0]["sent_bytes"].as_u64().unwrap()
}

#[test]
fn a_loop_outside_is_named_and_cut() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("ping", PATIENCE, || a.pings(&b.v4));
    let networks: serde_json::Value =
        serde_json::from_str(&h1.run(["weft", "network", "ls", "--json"]).unwrap()).unwrap();
    let bridge = format!("wft-{}", networks[0]["id"].as_str().unwrap());

    tie(h1, h2, &bridge);
    tie(h2, h1, &bridge);
    for (host, other) in [(h1, "of h2"), (h2, "of h1")] {
        let took = eventually("the loop is named", PATIENCE, || {
            let said = problems(host);
            said.contains("tied outside weft") && said.contains(other)
        });
        println!("{}: named after {:.1} s", host.name(), took.as_secs_f64());
        let doctor = host.exec(["weft", "doctor"]);
        assert!(doctor.stdout.contains("tied outside weft"), "{doctor}");
    }
    // A broadcast must not go round: what the hosts send each other stays what it is without one.
    let frame = format!("ffffffffffff{}88b5{}", a.mac.replace(':', ""), "726f756e64".repeat(200));
    let before = datagrams_sent(h1);
    for _ in 0..20 {
        a.traffic(&["frame-send", &a.iface, &frame]);
    }
    std::thread::sleep(Duration::from_secs(2));
    let sent = datagrams_sent(h1) - before;
    println!("{sent} bytes from h1 to h2 in 2 s; dropped at h2: {:?}", drops(h2));
    assert!(sent < 500_000, "{sent} bytes: it goes round");
    assert!(a.pings(&b.v4) && b.pings(&a.v4), "unicast goes on");

    for host in [h1, h2] {
        host.run(["ip", "link", "del", "cable"]).unwrap();
    }
    for host in [h1, h2] {
        eventually("the loop is forgotten", PATIENCE, || !problems(host).contains("tied outside weft"));
    }
}
