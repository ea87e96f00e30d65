//! Who asks for a container on another host is answered on its own host; who takes its address is told.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use weft_lab::Mesh;

use crate::fixture::{Container, eventually, hosts};
use crate::separation::drops;

const PATIENCE: Duration = Duration::from_secs(10);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn v4(address: &str) -> String {
    hex(&address.parse::<Ipv4Addr>().unwrap().octets())
}

/// What a request for `target`'s address begins with, as `from`'s kernel broadcasts it.
fn request(from: &Container, target: &str) -> String {
    let mac = from.mac.replace(':', "");
    format!("ffffffffffff{mac}08060001080006040001{mac}{}000000000000{}", v4(&from.v4), v4(target))
}

/// What a solicitation for `target` begins with behind its checksum.
fn solicitation(target: &str) -> String {
    let target = target.parse::<Ipv6Addr>().unwrap().octets();
    format!("ff02{}01ff{}8700", "00".repeat(9), hex(&target[13..]))
}

fn answered(host: &weft_lab::Host) -> u64 {
    drops(host).get("answered_here").copied().unwrap_or(0)
}

#[test]
fn questions_for_containers_elsewhere_do_not_cross_the_mesh() {
    let Some(lab) = hosts(2) else { return };
    let mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--ipv6"]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    // Once h1 has the fact, a question is answered by the fact.
    let forget = || a.exec(&["ip", "neigh", "flush", "dev", &a.iface]);
    eventually("h1 answers for beta", PATIENCE, || {
        let before = answered(h1);
        forget();
        a.pings(&b.v4) && a.pings(&b.v6) && answered(h1) >= before + 2
    });

    let asked = [request(&a, &b.v4), solicitation(&b.v6)];
    let mut ears = asked.map(|wanted| b.traffic_daemon(&["frame-wait", &b.iface, &wanted, "5"]));
    ears.iter_mut().for_each(|ear| assert!(ear.wait_log("waiting", PATIENCE)));
    let before = answered(h1);
    for _ in 0..5 {
        forget();
        assert!(a.pings(&b.v4) && a.pings(&b.v6));
    }
    let after = answered(h1);
    assert!(after >= before + 10, "five questions of each family: {before}, then {after}");
    for ear in &mut ears {
        assert_eq!(ear.wait(PATIENCE), Some(1), "a question crossed: {}", ear.log_text());
    }
    let neighbour = a.exec(&["ip", "neigh", "show", &b.v4]).stdout;
    assert!(neighbour.contains(&b.mac), "{neighbour}");

    // Nobody has this address, so everybody is asked.
    let [x, y, ..] = a.v4.parse::<Ipv4Addr>().unwrap().octets();
    let unknown = Ipv4Addr::new(x, y, 200, 200).to_string();
    let mut ear = b.traffic_daemon(&["frame-wait", &b.iface, &request(&a, &unknown), "20"]);
    assert!(ear.wait_log("waiting", PATIENCE));
    a.pings(&unknown);
    assert_eq!(ear.wait(PATIENCE * 3), Some(0), "{}", ear.log_text());

    taken_addresses_are_defended(&a, &b);
    assert!(b.pings(&a.v4) && a.pings(&b.v4));
}

fn taken_addresses_are_defended(a: &Container, b: &Container) {
    // RFC 4862 5.4: the kernel gives the address up.
    a.exec(&["ip", "-6", "addr", "add", &format!("{}/128", b.v6), "dev", &a.iface]);
    eventually("the duplicate is found", PATIENCE, || {
        a.exec(&["ip", "-6", "addr", "show", "dev", &a.iface]).stdout.contains("dadfailed")
    });
    a.exec(&["ip", "-6", "addr", "del", &format!("{}/128", b.v6), "dev", &a.iface]);

    // RFC 5227 2.1.1: a probe, and an announcement all the same.
    let (mine, theirs) = (a.mac.replace(':', ""), b.mac.replace(':', ""));
    let reply = format!("{theirs}08060001080006040002{theirs}{}", v4(&b.v4));
    for sender in ["00000000".to_owned(), v4(&b.v4)] {
        let mut ear = a.traffic_daemon(&["frame-wait", &a.iface, &reply, "20"]);
        assert!(ear.wait_log("waiting", PATIENCE));
        let asks = format!("ffffffffffff{mine}08060001080006040001{mine}{sender}000000000000{}", v4(&b.v4));
        a.traffic(&["frame-send", &a.iface, &asks]);
        assert_eq!(ear.wait(PATIENCE * 3), Some(0), "no answer to {asks}: {}", ear.log_text());
    }
}
