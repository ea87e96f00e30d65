//! UDP that does not get through: the same over TCP within seconds, UDP again when it passes, and transfers that notice neither;
//! strangers at the TCP port.

use std::time::{Duration, Instant};

use weft_lab::Host;

use crate::fixture::{Container, eventually, hosts, with_app};

/// UDP is blocked, or passes again; traffic must go on, and by the other, within this.
const SWITCHED: Duration = Duration::from_secs(5);
/// What a path is measured for.
const LOAD_SECONDS: u64 = 3;

fn via(host: &Host, transport: &str) -> bool {
    let links = host.exec(["weft", "links", "--json"]).stdout;
    let links: serde_json::Value = serde_json::from_str(&links).unwrap();
    let links = links.as_array().unwrap();
    !links.is_empty() && links.iter().all(|l| l["state"] == "up" && l["transport"] == transport)
}

/// Mbit/s of one TCP stream between the containers.
fn throughput(from: &Container<'_>, to: &Container<'_>, port: &str) -> f64 {
    let mut sink = to.traffic_daemon(&["tcp-sink", &to.v4, port]);
    let said = from.traffic(&["tcp-load", &to.v4, port, &LOAD_SECONDS.to_string()]);
    assert_eq!(sink.wait(Duration::from_secs(30)), Some(0));
    let bytes: f64 = said.split_whitespace().next().unwrap().parse().unwrap();
    bytes * 8.0 / 1e6 / LOAD_SECONDS as f64
}

#[test]
fn blocked_udp_is_replaced_by_tcp_and_taken_up_again() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));
    let udp = throughput(&a, &b, "7001");

    // Half a gigabyte under way during each change, and a beating connection across both.
    let transfer = |port: &str| {
        let sink = b.traffic_daemon(&["tcp-sink", &b.v4, port]);
        (a.traffic_daemon(&["tcp-source", &b.v4, port, "500000000"]), sink)
    };
    let mut transfers = vec![transfer("7002")];
    let mut echo = b.traffic_daemon(&["tcp-serve", &b.v4, "7003"]);
    let mut beat = a.traffic_daemon(&["tcp-beat", &b.v4, "7003", "25"]);
    lab.block_udp("h1", "h2").unwrap();
    let blocked = Instant::now();
    eventually("over TCP", SWITCHED, || via(h1, "tcp") && via(h2, "tcp"));
    eventually("ping over TCP", SWITCHED, || a.pings(&b.v4));
    println!("traffic over TCP {:.1} s after UDP was blocked", blocked.elapsed().as_secs_f64());
    println!("{}", h1.exec(["weft", "links"]).stdout);
    let tcp = throughput(&a, &b, "7004");
    println!("one stream: {udp:.0} Mbit/s over UDP, {tcp:.0} Mbit/s over TCP");
    assert!(via(h1, "tcp"), "full load does not end the path");

    transfers.push(transfer("7005"));
    lab.mend("h1", "h2").unwrap();
    let mended = Instant::now();
    eventually("back on UDP", SWITCHED, || via(h1, "udp") && via(h2, "udp"));
    println!("back on UDP {:.1} s after it passes", mended.elapsed().as_secs_f64());
    assert!(a.pings(&b.v4));
    for (mut source, mut sink) in transfers {
        assert_eq!(source.wait(Duration::from_secs(120)), Some(0));
        assert_eq!(sink.wait(Duration::from_secs(30)), Some(0));
        assert_eq!(source.log_text(), sink.log_text(), "every byte, in order");
    }
    assert_eq!(beat.wait(Duration::from_secs(60)), Some(0));
    println!("TCP across both changes: {}", beat.log_text().trim());
    echo.kill9();
}

#[test]
fn a_host_joins_and_stays_where_udp_is_blocked() {
    let Some(lab) = hosts(2) else { return };
    lab.block_udp("h1", "h2").unwrap();
    let _mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("ping", SWITCHED, || a.pings(&b.v4));
    assert!(via(h1, "tcp") && via(h2, "tcp"), "{}", h1.exec(["weft", "links"]).stdout);
    assert!(h2.exec(["weft", "doctor"]).stdout.contains("UDP and TCP port"), "the doctor knows both");
}

#[test]
fn strangers_at_the_tcp_port_are_counted_and_change_nothing() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));
    lab.block_udp("h1", "h2").unwrap();
    eventually("over TCP", SWITCHED, || via(h1, "tcp") && via(h2, "tcp"));

    let stranger = env!("CARGO_BIN_EXE_stranger");
    let target = h1.addr().to_string();
    for (how, reason) in [
        ("garbage", "stream_foreign"),
        ("silent", "stream_silent"),
        ("slow", "stream_silent"),
        ("records", "stream_garbled"),
        ("many", "stream_address_limit"),
    ] {
        let out = lab.switch_exec([stranger, target.as_str(), "6783", "1000", how]);
        println!("{how}: {}{}", out.stdout.trim(), out.stderr.trim());
        assert!(out.ok(), "{how}: {out}");
        assert!(a.pings(&b.v4), "traffic goes on after {how}");
        let status = h1.exec(["weft", "status", "--json"]).stdout;
        assert!(status.contains(reason), "{how} is counted as {reason}: {status}");
    }
    assert!(via(h1, "tcp") && via(h2, "tcp"));
}
