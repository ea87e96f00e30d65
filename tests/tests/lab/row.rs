//! Three hosts in a row, the ends cut apart from the start: they find each other through the middle, which carries what it cannot read.

use std::time::Duration;

use weft_lab::Lab;

use crate::fixture::{Container, eventually, hosts, with_app};
use crate::flow::{CHANGED, Flow, link, reach_by, way};
use crate::memory::{places, places_in};

/// What the containers say to each other, over and over.
const TEXT: [u8; 8] = *b"hU7#qz0K";
/// How much of it, at least.
const MUCH: u64 = 4_000_000;
/// So often the memory is searched while it passes.
const LOOKS: usize = 3;

#[test]
fn the_ends_of_a_row_talk_through_the_middle_which_cannot_read_it() {
    let Some(lab) = hosts(3) else { return };
    let (middle, [left, right]) = (lab.host("h1"), ["h2", "h3"].map(|name| lab.host(name)));
    lab.cut("h2", "h3").unwrap();
    let mut mesh = with_app(&lab);
    let a = Container::run(left, "alpha", "app", &[]);
    let b = Container::run(middle, "beta", "app", &[]);
    let c = Container::run(right, "gamma", "app", &[]);
    println!("by the middle {:.1} s later", reach_by(left, right, "h1").as_secs_f64());
    eventually("ping", CHANGED, || a.pings(&c.v4) && c.pings(&a.v4));

    let pids = [0, 2].map(|at: usize| mesh.daemons()[at].pid);
    nothing_is_read(&lab, [&a, &c], pids);
    everybody_says_so(&a, &c);
    each_hears_a_broadcast_once(&a, [&b, &c], "7010");
    each_hears_a_broadcast_once(&b, [&a, &c], "7011");
    println!("{}", left.run(["weft", "links"]).unwrap());
    over_tcp_to_the_middle(&lab, [&a, &c]);
    assert_eq!(way(left, "h3").as_deref(), Some("h1"), "still through the middle");
}

/// UDP to the middle is blocked too: who relays is reached over TCP.
fn over_tcp_to_the_middle(lab: &Lab, [a, c]: [&Container; 2]) {
    let flow = Flow::start(a, c, &c.v4, "7002", "0123456789abcdef");
    lab.block_udp("h1", "h2").unwrap();
    println!("the middle over TCP after {:.1} s", reach_by(a.host, lab.host("h1"), "tcp").as_secs_f64());
    flow.goes_on("it goes on over TCP and UDP");
    assert!(c.pings(&a.v4));
    flow.finish();
}

/// Neither the underlay nor the memory of the middle has what passes.
fn nothing_is_read(lab: &Lab, [a, c]: [&Container; 2], [middle, end]: [i32; 2]) {
    let capture = lab.underlay_capture().unwrap();
    let flow = Flow::start(a, c, &c.v4, "7001", std::str::from_utf8(&TEXT).unwrap());
    let until = flow.arrived() + MUCH;
    eventually("megabytes pass", Duration::from_secs(60), || flow.arrived() > until);
    let pcap = capture.stop().unwrap();
    let bytes = std::fs::read(&pcap.path).unwrap();
    let len = bytes.len() as u64;
    assert!(len > 2 * MUCH, "each hop is captured: {len} bytes, {pcap:?}");
    assert_eq!(places_in(&bytes, TEXT), 0, "plaintext on the cable");
    println!("{} MB captured, {} frames missed: no plaintext", len / 1_000_000, pcap.dropped);

    let (mut in_end, mut read) = (0, 0);
    for _ in 0..LOOKS {
        let (found, of) = places(middle, TEXT).unwrap();
        assert_eq!(found, 0, "plaintext in the memory of who relays");
        (in_end, read) = (in_end + places(end, TEXT).unwrap().0, read + of);
        flow.goes_on("it goes on meanwhile");
    }
    flow.finish();
    assert_eq!(places(middle, TEXT).unwrap().0, 0, "plaintext in the memory of who has relayed");
    assert!(in_end > 0, "the end opens it, so its memory has it: else the search proves nothing");
    assert!(read > 1_000_000, "{read} bytes of memory");
    println!("{LOOKS} looks into {} MB of memory: nothing, but {in_end} places at the end", read / 1_000_000);
}

/// Links, hosts and traces of both ends name the middle.
fn everybody_says_so(a: &Container, c: &Container) {
    for (from, to, name) in [(a, c, "h3"), (c, a, "h2")] {
        let link = link(from.host, name);
        assert!(link["transport"] == "h1" && link["address"].is_null(), "{link}");
        let hosts = from.host.run(["weft", "hosts"]).unwrap();
        let row = hosts.lines().find(|l| l.contains(name)).unwrap();
        assert!(row.contains("through h1"), "{hosts}");
        let trace = from.host.run(["weft", "trace", &to.v4]).unwrap();
        assert!(trace.contains(&format!("sealed for {name}, through h1")), "{trace}");
    }
}

/// Distinct datagrams to everybody arrive once each, at every other host.
fn each_hears_a_broadcast_once(from: &Container, to: [&Container; 2], port: &str) {
    const COUNT: usize = 20;
    let mut ears = to.map(|to| {
        let mut ear = to.traffic_daemon(&["udp-listen", &to.v4, port, "60"]);
        assert!(ear.wait_log("listening", CHANGED));
        ear
    });
    from.exec(&["ip", "route", "replace", "255.255.255.255", "dev", &from.iface]);
    let word = |n: usize| format!("{}-{n}-", from.name);
    for n in 0..COUNT {
        from.traffic(&["udp-send", "255.255.255.255", port, &word(n)]);
    }
    for ear in &mut ears {
        let last = word(COUNT - 1);
        eventually("the last one arrives", CHANGED, || ear.log_text().contains(&last));
        let heard = ear.log_text();
        let times = |n| heard.matches(&word(n)).count();
        assert!((0..COUNT).all(|n| times(n) == 1), "each once: {heard}");
    }
    // A second copy by another way would come later than the first.
    from.traffic(&["udp-send", "255.255.255.255", port, "the end"]);
    for ear in &mut ears {
        eventually("the end arrives", CHANGED, || ear.log_text().contains("the end"));
        assert_eq!(ear.log_text().lines().count(), COUNT + 2, "{}", ear.log_text());
        ear.kill9();
    }
}
