//! Multicast goes to the hosts where somebody listens; floods are limited.

use std::time::{Duration, Instant};

use weft_lab::{Host, Mesh};

use crate::fixture::{Container, eventually, hosts, with_app};
use crate::separation::drops;

const PATIENCE: Duration = Duration::from_secs(20);

fn sent_bytes(host: &Host, to: &str) -> u64 {
    let links: serde_json::Value =
        serde_json::from_str(&host.run(["weft", "links", "--json"]).unwrap()).unwrap();
    let link = links.as_array().unwrap().iter().find(|link| link["host"] == to).unwrap();
    link["sent_bytes"].as_u64().unwrap()
}

/// What a hundred datagrams of a kilobyte to `group` make each host send to each other.
fn burst(from: &Container, group: &str) -> [u64; 2] {
    let before = ["h2", "h3"].map(|to| sent_bytes(from.host, to));
    for _ in 0..100 {
        from.traffic(&["udp-send", group, "7011", &"x".repeat(1000)]);
    }
    // What was sent is counted when the lane's batch is over.
    std::thread::sleep(Duration::from_millis(200));
    let after = ["h2", "h3"].map(|to| sent_bytes(from.host, to));
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn groups_reach_their_members_only() {
    let Some(lab) = hosts(3) else { return };
    let mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--ipv6"]).unwrap();
    let a = Container::run(lab.host("h1"), "alpha", "app", &[]);
    let b = Container::run(lab.host("h2"), "beta", "app", &[]);
    let _c = Container::run(lab.host("h3"), "gamma", "app", &[]);
    for container in [&a, &b] {
        container.exec(&["ip", "route", "replace", "239.0.0.0/8", "dev", &container.iface]);
        container.exec(&[
            "ip",
            "-6",
            "route",
            "replace",
            "ff05::/16",
            "dev",
            &container.iface,
            "table",
            "local",
        ]);
    }
    for group in ["239.1.2.3", "ff05::1:3"] {
        // Nobody is known to listen: everybody gets it.
        eventually("an unknown group goes to all", PATIENCE, || {
            burst(&a, group).iter().all(|n| *n > 100_000)
        });
        let mut ear = b.traffic_daemon(&["udp-listen", group, "7011", "300"]);
        assert!(ear.wait_log("listening", PATIENCE));
        let took = eventually("only where somebody listens", PATIENCE, || {
            let [member, other] = burst(&a, group);
            member > 100_000 && other < 50_000
        });
        println!("{group}: only to its member after {:.1} s", took.as_secs_f64());
        eventually("it arrives", PATIENCE, || {
            a.traffic(&["udp-send", group, "7011", "to-the-member"]);
            ear.log_text().contains("to-the-member")
        });
        ear.kill9();
        eventually("nobody listens any more", PATIENCE, || burst(&a, group).iter().all(|n| *n > 100_000));
    }
    let noted = drops(b.host).get("membership_noted").copied().unwrap_or(0);
    assert!(noted > 0, "reports stay on their host");
}

#[test]
fn who_listens_is_asked_again_after_a_restart() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = with_app(&lab);
    let b = Container::run(lab.host("h2"), "beta", "app", &[]);
    b.exec(&["ip", "route", "replace", "239.0.0.0/8", "dev", &b.iface]);
    let mut ear = b.traffic_daemon(&["udp-listen", "239.1.2.3", "7011", "300"]);
    assert!(ear.wait_log("listening", PATIENCE));
    // The kernel reports a membership when it begins, and then only when it is asked.
    // Router alert, a query of version 3, to be answered within a second.
    let mut asked = b.traffic_daemon(&["frame-wait", &b.iface, "94040000110a", "60"]);
    assert!(asked.wait_log("waiting", PATIENCE));
    mesh.daemons()[1].kill9();
    mesh.restart("h2").unwrap();
    mesh.wait_ready().unwrap();
    assert_eq!(asked.wait(PATIENCE * 4), Some(0), "{}", asked.log_text());
    // The second query at the latest: at the first h1 may still take every group, and then gets the report.
    eventually("the report is noted", PATIENCE * 4, || {
        drops(lab.host("h2")).contains_key("membership_noted")
    });
    ear.kill9();
}

#[test]
fn a_storm_is_limited_at_its_source() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = with_app(&lab);
    let a = Container::run(lab.host("h1"), "alpha", "app", &[]);
    let b = Container::run(lab.host("h2"), "beta", "app", &[]);
    eventually("ping", PATIENCE, || a.pings(&b.v4));
    let limited = || drops(lab.host("h1")).get("flood_limit").copied().unwrap_or(0);
    let start = Instant::now();
    let frame = format!("ffffffffffff{}88b5{}", a.mac.replace(':', ""), "73746f726d".repeat(10));
    let mut storm = a.traffic_daemon(&["frame-storm", &a.iface, &frame, "20"]);
    eventually("the storm is limited", PATIENCE, || limited() > 1000);
    eventually("others go on meanwhile", PATIENCE, || a.pings(&b.v4) && b.pings(&a.v4));
    println!("{} frames dropped after {:.1} s", limited(), start.elapsed().as_secs_f64());
    storm.kill9();
}
