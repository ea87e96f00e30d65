//! `weft doctor`: things are broken one by one; it names each, and mends what it says that it can.

use std::time::Duration;

use serde_json::Value;
use weft_lab::{Host, Lab, Mesh};

use crate::fixture::eventually;

/// Exit code, and check -> (health, sentence); of several findings of one check the last.
fn doctor(host: &Host, fix: bool) -> (i32, Vec<(String, String, String)>) {
    let mut command = vec!["weft", "doctor", "--json"];
    command.extend(fix.then_some("--fix"));
    let out = host.exec(&command);
    let findings: Vec<Value> = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out}"));
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let all = findings.iter().map(|f| (text(f, "check"), text(f, "health"), text(f, "says"))).collect();
    (out.status, all)
}

fn assert_finds(host: &Host, fix: bool, status: i32, check: &str, health: &str, word: &str) {
    let (code, findings) = doctor(host, fix);
    let found = findings.iter().any(|(c, h, says)| c == check && h == health && says.contains(word));
    assert!(found, "no {health} of {check} with {word:?} in {findings:#?}");
    assert_eq!(code, status, "{findings:#?}");
    for (check, health, says) in findings.iter().filter(|(_, health, _)| health != "ok") {
        println!("{health} {check}: {says}");
    }
}

#[test]
fn it_names_what_is_broken_and_mends_what_it_can() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(2).up().unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    assert_finds(h1, false, 0, "mesh", "warning", "weft init");
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app"]).unwrap();
    let (code, findings) = doctor(h2, false);
    println!("{}", h2.exec(["weft", "doctor"]).stdout);
    assert_eq!(code, 0, "{findings:#?}");
    assert!(findings.iter().all(|(_, health, _)| health == "ok" || health == "warning"), "{findings:#?}");

    // Another host falls silent.
    mesh.daemons()[0].kill9();
    eventually("the link is down", Duration::from_secs(20), || doctor(h2, false).0 == 1);
    assert_finds(h2, false, 1, "links", "problem", "h1");
    mesh.restart("h1").unwrap();
    mesh.wait_ready().unwrap();

    // Docker is away.
    h2.engine_stop().unwrap();
    assert_finds(h2, false, 1, "docker", "problem", "Docker");
    h2.engine_start().unwrap();

    // The daemon is dead: its port is taken, the rules are gone, an interface is left over.
    mesh.daemons()[1].kill9();
    assert_finds(h2, false, 1, "daemon", "problem", "weft up");
    let mut thief = h2.spawn([crate::fixture::TRAFFIC, "udp-serve", "0.0.0.0", "6783"], "thief.log").unwrap();
    eventually("the port is taken", Duration::from_secs(5), || {
        doctor(h2, false).1.iter().any(|(check, _, says)| check == "port" && says.contains("6783"))
    });
    thief.kill9();
    h2.sh("iptables -F WEFT && ip link add wft-0badcafe type bridge").unwrap();
    assert_finds(h2, false, 1, "firewall", "problem", "--fix");
    assert_finds(h2, false, 1, "leftovers", "warning", "wft-0badcafe");
    let (code, findings) = doctor(h2, true);
    assert_eq!(code, 1, "the daemon cannot be started without a service: {findings:#?}");
    for check in ["firewall", "leftovers"] {
        assert!(findings.iter().any(|(c, health, _)| c == check && health == "mended"), "{findings:#?}");
    }
    assert!(h2.run(["iptables", "-S", "WEFT"]).unwrap().contains("-i wft-"), "the rule is back");
    assert!(!h2.exec(["ip", "link", "show", "wft-0badcafe"]).ok(), "the interface is gone");
    mesh.restart("h2").unwrap();
    mesh.wait_ready().unwrap();
    assert_eq!(doctor(h2, true).0, 0);
}
