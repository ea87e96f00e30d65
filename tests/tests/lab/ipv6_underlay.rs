//! Hosts that have nothing but IPv6 between them: joining, UDP, TCP, and a host between.

use weft_lab::Mesh;

use crate::fixture::{Container, eventually, hosts};
use crate::flow::{CHANGED, Flow, link, reach_by};

#[test]
fn a_mesh_needs_no_ipv4_between_its_hosts() {
    let Some(lab) = hosts(3) else { return };
    lab.on_all_hosts(|host| host.sh("ip -4 addr flush dev eth0").map(drop)).unwrap();
    let mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--ipv6"]).unwrap();
    let (left, right) = (lab.host("h2"), lab.host("h3"));
    let a = Container::run(left, "alpha", "app", &[]);
    let c = Container::run(right, "gamma", "app", &[]);
    reach_by(left, right, "udp");
    assert_eq!(link(left, "h3")["address"], format!("[{}]:6783", right.addr6()));
    eventually("ping", CHANGED, || a.pings(&c.v4) && c.pings(&a.v6));
    let flow = Flow::start(&a, &c, &c.v4, "7001", "0123456789abcdef");
    let other = Flow::start(&c, &a, &a.v6, "7002", "0123456789abcdef");

    lab.block_udp("h2", "h3").unwrap();
    println!("TCP over IPv6 after {:.1} s", reach_by(left, right, "tcp").as_secs_f64());
    flow.goes_on("it goes on over TCP");
    let at = link(left, "h3")["address"].as_str().unwrap_or_default().to_owned();
    assert!(at.starts_with(&format!("[{}]:", right.addr6())), "{at}");
    lab.cut("h2", "h3").unwrap();
    println!("through h1 {:.1} s after a cut", reach_by(left, right, "h1").as_secs_f64());
    flow.goes_on("it goes on through h1");
    lab.mend("h2", "h3").unwrap();
    println!("direct {:.1} s after it was mended", reach_by(left, right, "udp").as_secs_f64());
    flow.goes_on("it goes on directly");
    flow.finish();
    other.finish();
    let doctor = left.exec(["weft", "doctor"]);
    assert!(doctor.ok(), "{doctor}");
}
