//! How long datagrams may be: found out on underlays small and large, followed when the underlay shrinks under traffic; what does
//! not fit is cut, or its sender is told.

use std::time::Duration;

use weft_lab::{Host, Lab, Mesh};

use crate::fixture::{Container, eventually, hosts, with_app};

/// A path's size is found within this of the link's start, or of the underlay's change.
const FOUND: Duration = Duration::from_secs(10);
/// IP and UDP headers, by IPv4 and by IPv6: hosts have both, and take the quicker.
const HEADERS: [u64; 2] = [28, 48];
/// A relay's share of a datagram.
const RELAY: u64 = 49;

/// The size of the path to a host, as `weft links` shows it.
fn size(from: &Host, to: &str) -> u64 {
    let links = from.exec(["weft", "links", "--json"]).stdout;
    let links: serde_json::Value = serde_json::from_str(&links).unwrap();
    let row = links.as_array().unwrap().iter().find(|l| l["host"] == to);
    row.and_then(|l| l["mtu"].as_u64()).unwrap_or_default()
}

fn sent(from: &Host) -> u64 {
    let links = from.exec(["weft", "links", "--json"]).stdout;
    let links: serde_json::Value = serde_json::from_str(&links).unwrap();
    links[0]["sent_bytes"].as_u64().unwrap_or_default()
}

/// Whether the path takes all that an underlay passes.
fn takes(from: &Host, to: &str, underlay: u32) -> bool {
    HEADERS.map(|headers| u64::from(underlay) - headers).contains(&size(from, to))
}

fn all_pass(from: &Container<'_>, to: &Container<'_>, port: &str) {
    let mut sink = to.traffic_daemon(&["tcp-sink", &to.v4, port]);
    let sent = from.traffic(&["tcp-source", &to.v4, port, "20000000"]);
    assert_eq!(sink.wait(Duration::from_secs(60)), Some(0));
    assert_eq!(sink.log_text(), sent, "every byte, in order");
    // The first that is too big for the path may be the one whose sender is told.
    for bytes in ["1200", "1312", "4000"] {
        let big = |ip: &str| from.exec(&["ping", "-c1", "-W2", "-s", bytes, ip]).ok();
        eventually(&format!("a ping of {bytes}"), Duration::from_secs(5), || big(&to.v4));
        eventually(&format!("a ping of {bytes} by IPv6"), Duration::from_secs(5), || big(&to.v6));
    }
}

fn drops(host: &Host) -> String {
    host.exec(["weft", "status", "--json"]).stdout
}

#[test]
fn the_size_of_the_underlay_is_found() {
    if weft_lab::skip() {
        return;
    }
    for underlay in [1500u32, 9000] {
        let lab = Lab::builder().hosts(2).mtu(underlay).up().unwrap();
        let mesh = Mesh::up(&lab, &[]).unwrap();
        mesh.network(&["app", "--ipv6"]).unwrap();
        let (h1, h2) = (lab.host("h1"), lab.host("h2"));
        let a = Container::run(h1, "alpha", "app", &[]);
        let b = Container::run(h2, "beta", "app", &[]);
        let took = eventually("the size", FOUND, || takes(h1, "h2", underlay) && takes(h2, "h1", underlay));
        println!("underlay of {underlay}: found {:.1} s after the start", took.as_secs_f64());
        all_pass(&a, &b, "7001");
        println!("{}", h1.exec(["weft", "links"]).stdout);
        assert!(!drops(h1).contains("too_big"), "{}", drops(h1));
    }
}

#[test]
fn the_least_underlay_carries_everything_even_by_a_relay() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(3).mtu(1280).up().unwrap();
    lab.cut("h2", "h3").unwrap();
    let mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--ipv6"]).unwrap();
    let hosts = ["h1", "h2", "h3"].map(|name| lab.host(name));
    let [a, b, c] =
        [("alpha", 0), ("beta", 1), ("gamma", 2)].map(|(name, n)| Container::run(hosts[n], name, "app", &[]));
    eventually("ping", FOUND, || a.pings(&b.v4) && b.pings(&c.v4));
    assert!(takes(hosts[0], "h2", 1280));
    assert!(size(hosts[1], "h3") <= 1280 - HEADERS[0] - RELAY, "{}", hosts[1].exec(["weft", "links"]).stdout);
    all_pass(&a, &b, "7001");
    all_pass(&b, &c, "7002");

    // Who may not be cut was told what fits: a datagram less envelope, chunk and Ethernet.
    let told = a.exec(&["ip", "route", "get", &b.v4]).stdout;
    let fits = HEADERS.map(|headers| format!("mtu {}", 1280 - headers - 32 - 7 - 14));
    assert!(fits.iter().any(|mtu| told.contains(mtu)), "{told}");
    println!("{}", hosts[1].exec(["weft", "links"]).stdout);
    println!("{}", hosts[1].exec(["weft", "doctor"]).stdout);
}

#[test]
fn a_transfer_survives_an_underlay_that_shrinks() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("the size", FOUND, || takes(h1, "h2", 1500) && takes(h2, "h1", 1500));
    for host in [h1, h2] {
        // Trains would pass the switch's ports whole, whatever their MTU.
        host.run(["ip", "link", "set", "eth0", "gso_max_segs", "1"]).unwrap();
    }
    let mut gauge = b.traffic_daemon(&["tcp-gauge", &b.v4, "7001"]);
    let mut load = a.traffic_daemon(&["tcp-load", &b.v4, "7001", "12"]);
    eventually("megabytes", Duration::from_secs(10), || sent(h1) > 20_000_000);
    for port in ["h1", "h2"] {
        let set = lab.switch_exec(["ip", "link", "set", port, "mtu", "1400"]);
        assert!(set.ok(), "{set}");
    }
    let took = eventually("the smaller size", FOUND, || {
        let found = size(h1, "h2");
        found > 1280 - HEADERS[0] && found <= 1404 - HEADERS[0]
    });
    println!("the smaller size {:.1} s after the underlay shrank", took.as_secs_f64());
    assert_eq!(load.wait(Duration::from_secs(60)), Some(0), "{}", load.log_text());
    assert_eq!(gauge.wait(Duration::from_secs(60)), Some(0), "{}", gauge.log_text());
    println!("a transfer over the change: {}", gauge.log_text().trim());
    println!("{}", h1.exec(["weft", "links"]).stdout);
    all_pass_v4(&a, &b);
}

fn all_pass_v4(from: &Container<'_>, to: &Container<'_>) {
    eventually("a ping of 1312", Duration::from_secs(5), || {
        from.exec(&["ping", "-c1", "-W2", "-s", "1312", &to.v4]).ok()
    });
}
