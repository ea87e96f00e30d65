//! `weft doctor`: things are broken one by one; it names each, and mends what it says that it can.

use std::time::Duration;

use serde_json::Value;
use weft_lab::Host;

use crate::fixture::{Container, eventually, hosts, with_app};

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
    let Some(lab) = hosts(2) else { return };
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    assert_finds(h1, false, 0, "mesh", "warning", "weft init");
    let mut mesh = with_app(&lab);
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

/// The command in quotes after `nft` in a sentence, run as the sentence says.
fn obey(host: &Host, check: &str, word: &str) {
    let (_, findings) = doctor(host, false);
    let found = findings.iter().find(|(c, _, says)| c == check && says.contains(word));
    let (_, _, says) = found.unwrap_or_else(|| panic!("no {check} with {word:?} in {findings:#?}"));
    let rule = says.split('\'').nth(1).unwrap_or_else(|| panic!("no command in: {says}"));
    host.run(["nft", rule]).unwrap();
}

fn script(host: &Host, name: &str, text: &str) {
    let path = format!("/usr/local/bin/{name}");
    host.feed(
        ["sh", "-c", &format!("cat >{path} && chmod 755 {path}")],
        format!("#!/bin/sh\n{text}\n").as_bytes(),
    )
    .unwrap();
}

#[test]
fn firewalls_of_others_are_named_with_what_opens_them() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));
    assert_finds(h2, false, 0, "nftables", "ok", "no table");

    // A table that iptables does not know; the sentence is true, and so is its remedy.
    h2.sh("echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables").unwrap();
    h2.sh("nft add table inet mine && nft 'add chain inet mine ahead { type filter hook forward priority 5; policy drop; }'")
        .unwrap();
    eventually("frames are dropped", Duration::from_secs(5), || !a.pings(&b.v4));
    assert_finds(h2, false, 1, "nftables", "problem", "table inet mine drops frames");
    assert_finds(h2, true, 1, "nftables", "problem", "no rule of another table");
    obey(h2, "nftables", "drops frames");
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));
    assert_finds(h2, false, 0, "nftables", "ok", "no table");

    h2.sh("nft 'add chain inet mine inp { type filter hook input priority 0; policy drop; }' && \
           nft add rule inet mine inp ct state established,related accept && nft add rule inet mine inp iif lo accept")
        .unwrap();
    assert_finds(h2, false, 0, "nftables", "warning", "UDP and TCP port 6783");
    obey(h2, "nftables", "UDP and TCP port 6783");
    assert_finds(h2, false, 0, "nftables", "ok", "no table");

    script(h2, "firewall-cmd", "[ \"$1\" = --state ] || [ -e /run/port-is-open ]");
    assert_finds(h2, false, 0, "firewalld", "warning", "--add-port=6783/udp --add-port=6783/tcp");
    h2.run(["touch", "/run/port-is-open"]).unwrap();
    assert_finds(h2, false, 0, "firewalld", "ok", "6783");

    h2.sh("mkdir -p /etc/ufw && echo ENABLED=yes >/etc/ufw/ufw.conf").unwrap();
    script(h2, "ufw", "echo 'Status: active'; cat /run/ufw-rules 2>/dev/null");
    assert_finds(h2, false, 0, "ufw", "warning", "ufw allow 6783");
    h2.sh("echo '6783                       ALLOW       Anywhere' >/run/ufw-rules").unwrap();
    assert_finds(h2, false, 0, "ufw", "ok", "6783");
}

#[test]
fn a_machine_that_is_not_as_it_must_be() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = with_app(&lab);
    let h2 = lab.host("h2");
    assert_finds(h2, false, 0, "clock", "ok", "1 other host");
    assert_finds(h2, false, 0, "mtu", "ok", "fit");
    assert_finds(h2, false, 0, "live-restore", "ok", "");

    let out = h2.exec(["setpriv", "--reuid=65534", "--clear-groups", "weft", "doctor"]);
    assert!(out.status == 1 && out.stdout.contains("needs root"), "{out}");

    let set_live_restore = |from: &str, to: &str| {
        h2.sh(&format!("sed -i 's/\"live-restore\": *{from}/\"live-restore\": {to}/' /etc/docker/daemon.json && kill -HUP $(cat /run/docker.pid)"))
            .unwrap();
    };
    set_live_restore("true", "false");
    eventually("live-restore is off", Duration::from_secs(10), || {
        doctor(h2, false).1.iter().any(|(check, health, says)| {
            check == "live-restore" && health == "warning" && says.contains("daemon.json")
        })
    });
    set_live_restore("false", "true");

    h2.run(["rm", "/run/docker/plugins/weft.sock"]).unwrap();
    assert_finds(h2, false, 1, "plugin", "problem", "start it again");

    // A tunnel on the way.
    h2.run(["ip", "link", "set", "eth0", "mtu", "1400"]).unwrap();
    mesh.daemons()[1].kill9();
    mesh.restart("h2").unwrap();
    mesh.wait_ready().unwrap();
    eventually("a warning of the MTU", Duration::from_secs(10), || {
        // By IPv4 or by IPv6, whichever is quicker.
        doctor(h2, false).1.iter().any(|(check, health, says)| {
            check == "mtu"
                && health == "warning"
                && ["--mtu 1304", "--mtu 1284"].iter().any(|m| says.contains(m))
        })
    });

    // Everything of a mesh whose directory is lost.
    mesh.daemons()[1].kill9();
    h2.sh("ip link add wve0badcafe0 type veth peer name wvcother && rm -rf /var/lib/weft/*").unwrap();
    for word in ["bridge wft-", "wve0badcafe0", "Docker's network app"] {
        assert_finds(h2, false, 1, "leftovers", "warning", word);
    }
    assert_finds(h2, false, 1, "firewall", "problem", "has left");
    let (code, findings) = doctor(h2, true);
    println!("{findings:#?}");
    assert_eq!(code, 0, "{findings:#?}");
    let (code, findings) = doctor(h2, false);
    assert!(code == 0 && findings.iter().any(|(c, h, _)| c == "leftovers" && h == "ok"), "{findings:#?}");
    assert!(!h2.exec(["ip", "-br", "link"]).stdout.contains("wft-"));
    assert_eq!(h2.docker(["network", "ls", "-q", "--filter", "driver=weft"]).unwrap(), "");
    assert!(!h2.run(["iptables", "-S"]).unwrap().contains("WEFT"));

    h2.sh("mkdir -p /run/nothing && mount --bind /run/nothing /dev/net").unwrap();
    assert_finds(h2, false, 1, "tun", "problem", "modprobe tun");
}
