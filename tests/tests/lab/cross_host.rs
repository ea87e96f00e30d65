//! Every kind of traffic between containers on different hosts.

use std::time::{Duration, Instant};

use weft_lab::Mesh;

use crate::fixture::{Container, eventually, hosts};

const GIGABYTE: &str = "1000000000";
/// The default MTU of a network.
const MTU: &str = "1340";

#[test]
fn every_kind_of_traffic_crosses() {
    let Some(lab) = hosts(2) else { return };
    let mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--ipv6"]).unwrap();
    let a = Container::run(lab.host("h1"), "alpha", "app", &[]);
    let b = Container::run(lab.host("h2"), "beta", "app", &[]);

    eventually("ping over IPv4", Duration::from_secs(5), || a.pings(&b.v4) && b.pings(&a.v4));
    eventually("ping over IPv6", Duration::from_secs(5), || a.pings(&b.v6) && b.pings(&a.v6));

    transfer(&a, &b, &b.v4);
    transfer(&b, &a, &a.v6);
    datagrams(&a, &b, &b.v4);
    datagrams(&a, &b, &b.v6);
    short_connections(&a, &b);
    broadcast_and_multicast(&a, &b);
    strange_frames(&a, &b);
}

fn transfer(from: &Container, to: &Container, address: &str) {
    let mut sink = to.traffic_daemon(&["tcp-sink", address, "7001"]);
    let start = Instant::now();
    let sent = from.traffic(&["tcp-source", address, "7001", GIGABYTE]);
    assert_eq!(sink.wait(Duration::from_secs(30)), Some(0), "{}", sink.log_text());
    println!("1 GB to {address} with equal SHA-256 in {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(sent, sink.log_text(), "what was sent and what came");
    assert!(sent.starts_with(GIGABYTE));
}

fn datagrams(from: &Container, to: &Container, address: &str) {
    let mut echo = to.traffic_daemon(&["udp-serve", address, "7002"]);
    println!("UDP to {address}: {}", from.traffic(&["udp-sizes", address, "7002", MTU]).trim());
    echo.kill9();
}

fn short_connections(from: &Container, to: &Container) {
    let mut echo = to.traffic_daemon(&["tcp-serve", &to.v4, "7003"]);
    eventually("the echo", Duration::from_secs(5), || {
        from.try_traffic(&["tcp-short", &to.v4, "7003", "1"]).ok()
    });
    println!("{}", from.traffic(&["tcp-short", &to.v4, "7003", "10000"]).trim());
    echo.kill9();
}

fn broadcast_and_multicast(from: &Container, to: &Container) {
    for (listen, send, port) in [
        (to.v4.as_str(), "255.255.255.255", "7010"),
        ("239.1.2.3", "239.1.2.3", "7011"),
        ("ff05::1:3", "ff05::1:3", "7012"),
    ] {
        let mut ear = to.traffic_daemon(&["udp-listen", listen, port, "20"]);
        assert!(ear.wait_log("listening", Duration::from_secs(5)));
        from.exec(&["ip", "route", "replace", send, "dev", &from.iface]);
        from.exec(&["ip", "-6", "route", "replace", "ff05::/16", "dev", &from.iface, "table", "local"]);
        to.exec(&["ip", "-6", "route", "replace", "ff05::/16", "dev", &to.iface, "table", "local"]);
        to.exec(&["ip", "route", "replace", "239.0.0.0/8", "dev", &to.iface]);
        eventually(&format!("a datagram to {send}"), Duration::from_secs(10), || {
            from.try_traffic(&["udp-send", send, port, "to-everybody"]);
            ear.log_text().contains("to-everybody")
        });
        ear.kill9();
    }
}

fn strange_frames(from: &Container, to: &Container) {
    let header = format!("{}{}", to.mac.replace(':', ""), from.mac.replace(':', ""));
    // VLAN 42 around an ethertype for local experiments (IEEE 802 9.2.4), and that ethertype alone.
    for (body, wanted) in [
        (format!("{header}8100002a88b5{}", "77656674".repeat(16)), "8100002a88b577656674".to_owned()),
        (format!("{header}88b6{}", "66726565".repeat(16)), "88b666726565".to_owned()),
    ] {
        let mut ear = to.traffic_daemon(&["frame-wait", &to.iface, &wanted, "20"]);
        assert!(ear.wait_log("waiting", Duration::from_secs(5)));
        eventually("the frame", Duration::from_secs(10), || {
            from.traffic(&["frame-send", &from.iface, &body]);
            ear.log_text().contains("seen")
        });
        assert_eq!(ear.wait(Duration::from_secs(5)), Some(0));
    }
}
