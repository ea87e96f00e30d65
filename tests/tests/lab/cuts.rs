//! Links that are cut and mended under a running transfer: it goes on through another host, and directly again within seconds.

use std::time::Instant;

use weft_lab::{Lab, Mesh};

use crate::fixture::{Container, eventually};
use crate::flow::{CHANGED, Flow, key_age, reach_by};

#[test]
fn a_transfer_outlives_cuts_and_is_direct_again() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(3).up().unwrap();
    let mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app"]).unwrap();
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
