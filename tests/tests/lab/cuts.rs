//! Links that are cut and mended under a running transfer, and a relay that dies: it goes on through another host, and directly again
//! within seconds.

use std::time::Instant;

use crate::fixture::{Container, eventually, hosts, with_app};
use crate::flow::{CHANGED, Flow, key_age, reach_by, way};

#[test]
fn a_transfer_outlives_cuts_and_is_direct_again() {
    let Some(lab) = hosts(3) else { return };
    let _mesh = with_app(&lab);
    let (left, right) = (lab.host("h2"), lab.host("h3"));
    let a = Container::run(left, "alpha", "app", &[]);
    let c = Container::run(right, "gamma", "app", &[]);
    reach_by(left, right, "udp");
    eventually("ping", CHANGED, || a.pings(&c.v4));

    let start = Instant::now();
    let flow = Flow::start(&a, &c, &c.v4, "7001", "0123456789abcdef");
    for round in 1..=2 {
        lab.cut("h2", "h3").unwrap();
        let around = reach_by(left, right, "h1");
        let goes = flow.goes_on("it goes on through the middle");
        lab.mend("h2", "h3").unwrap();
        let direct = reach_by(left, right, "udp");
        flow.goes_on("it goes on directly");
        println!(
            "cut {round}: through h1 after {:.1} s, {:.1} s more until it flows; mended: direct after {:.1} s",
            around.as_secs_f64(),
            goes.as_secs_f64(),
            direct.as_secs_f64()
        );
    }
    flow.finish();
    let passed = start.elapsed().as_secs();
    assert!(key_age(left, "h3") >= passed, "no new handshake in {passed} s");
}

#[test]
fn a_transfer_outlives_the_host_that_carries_it() {
    let Some(lab) = hosts(4) else { return };
    let mut mesh = with_app(&lab);
    let (left, right) = (lab.host("h2"), lab.host("h3"));
    lab.cut("h2", "h3").unwrap();
    let a = Container::run(left, "alpha", "app", &[]);
    let c = Container::run(right, "gamma", "app", &[]);
    let relay = || way(left, "h3").filter(|way| way == "h1" || way == "h4");
    eventually("a relay carries", CHANGED, || relay().is_some() && a.pings(&c.v4));
    let flow = Flow::start(&a, &c, &c.v4, "7001", "0123456789abcdef");
    let start = Instant::now();
    let first = relay().unwrap();
    let (at, other) = if first == "h1" { (0, "h4") } else { (3, "h1") };
    mesh.daemons()[at].kill9();
    let around = reach_by(left, right, other);
    flow.goes_on("it goes on through the other");
    println!("{first} is killed: through {other} after {:.1} s", around.as_secs_f64());
    mesh.restart(&first).unwrap();
    mesh.wait_ready().unwrap();
    flow.finish();
    let passed = start.elapsed().as_secs();
    assert!(key_age(left, "h3") >= passed, "no new handshake in {passed} s");
}
