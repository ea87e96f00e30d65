//! Firewalls that let one direction through: one that may open is enough for a direct link, and what never passes goes around.

use crate::fixture::{Container, eventually, hosts, with_app};
use crate::flow::{CHANGED, Flow, reach_by};

/// h3 takes nothing of h2 that it has not asked for.
const UNSOLICITED: &str = "
table inet oneway {
    chain input {
        type filter hook input priority -10; policy accept;
        ct state established,related accept
        ip saddr 192.0.2.2 counter drop
        ip6 saddr 2001:db8::2 counter drop
    }
}
";

#[test]
fn one_open_direction_is_enough() {
    let Some(lab) = hosts(3) else { return };
    let (left, right) = (lab.host("h2"), lab.host("h3"));
    right.feed(["nft", "-f", "-"], UNSOLICITED.as_bytes()).unwrap();
    assert!(!left.exec(["ping", "-c1", "-W1", "192.0.2.3"]).ok(), "the firewall is no firewall");
    let _mesh = with_app(&lab);
    let a = Container::run(left, "alpha", "app", &[]);
    let c = Container::run(right, "gamma", "app", &[]);
    println!("direct {:.1} s later", reach_by(left, right, "udp").as_secs_f64());
    both_ways(&a, &c, "7001");

    // Only h3 can open a stream.
    lab.block_udp("h2", "h3").unwrap();
    println!("over TCP after {:.1} s", reach_by(left, right, "tcp").as_secs_f64());
    both_ways(&a, &c, "7002");
    lab.mend("h2", "h3").unwrap();
    println!("back on UDP after {:.1} s", reach_by(left, right, "udp").as_secs_f64());
}

#[test]
fn what_never_passes_goes_around() {
    let Some(lab) = hosts(3) else { return };
    let (left, right) = (lab.host("h2"), lab.host("h3"));
    lab.block_way("h2", "h3").unwrap();
    let _mesh = with_app(&lab);
    let a = Container::run(left, "alpha", "app", &[]);
    let c = Container::run(right, "gamma", "app", &[]);
    println!("through h1 {:.1} s later", reach_by(left, right, "h1").as_secs_f64());
    both_ways(&a, &c, "7001");

    let flow = Flow::start(&a, &c, &c.v4, "7003", "0123456789abcdef");
    lab.mend("h2", "h3").unwrap();
    println!("direct {:.1} s after it passes", reach_by(left, right, "udp").as_secs_f64());
    flow.goes_on("it goes on directly");
    lab.block_way("h3", "h2").unwrap();
    println!("through h1 {:.1} s after the other way is blocked", reach_by(left, right, "h1").as_secs_f64());
    flow.goes_on("it goes on through h1");
    flow.finish();
}

fn both_ways(a: &Container, c: &Container, port: &str) {
    eventually("ping", CHANGED, || a.pings(&c.v4) && c.pings(&a.v4));
    for (from, to) in [(a, c), (c, a)] {
        Flow::start(from, to, &to.v4, port, "0123456789abcdef").finish();
    }
}
