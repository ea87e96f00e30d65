//! Looking at the mesh: the way of a frame step by step, and frames at a tap as pcap.

use std::time::Duration;

use serde_json::Value;
use weft_lab::Host;

use crate::fixture::{Container, eventually, hosts, with_app};

#[test]
fn a_trace_says_why_and_a_capture_shows_what_passes() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));

    println!("{}", h1.run(["weft", "trace", &b.v4]).unwrap());
    let trace = steps(h1, &b.v4, true);
    let says = |n: usize, what: &[&str]| {
        let step = format!("{} ({})", trace[n]["says"], trace[n]["because"]);
        assert!(what.iter().all(|w| step.contains(w)), "step {n} of {trace:?} should name {what:?}");
    };
    assert_eq!(trace.len(), 4);
    says(0, &[&b.v4, "app", "decision "]);
    says(1, &["beta on h2", &b.mac, "fact ", "its block"]);
    says(2, &["sealed for h2", "192.0.2.2:6783", "round trip"]);
    says(3, &["bridge wft-", "of h2"]);
    assert_eq!(steps(h1, "beta", true), trace, "a container's name stands for its address");
    assert_eq!(steps(h1, "h2", true)[0], trace[2], "a host's for itself");
    assert_eq!(steps(h1, "alpha", true).len(), 3, "it stays on its bridge");
    steps(h1, "10.32.7.7", false);
    steps(h1, "198.51.100.7", false);
    let unknown = h1.exec(["weft", "trace", "gamma"]);
    assert!(!unknown.ok() && unknown.stderr.contains("weft ps"), "{unknown}");

    captured(h1, &a, &b);

    mesh.daemons()[1].kill9();
    eventually("the trace says that h2 is away", Duration::from_secs(5), || {
        let trace = h1.exec(["weft", "trace", &b.v4]);
        !trace.ok() && trace.stdout.contains("h2 ") && trace.stdout.contains("It does not arrive.")
    });
}

fn steps(host: &Host, to: &str, arrives: bool) -> Vec<Value> {
    let said = host.exec(["weft", "trace", to, "--json"]);
    assert_eq!(said.ok(), arrives, "{to}: {said}");
    let trace: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(trace["arrives"], arrives);
    trace["steps"].as_array().unwrap().clone()
}

fn captured(host: &Host, from: &Container, to: &Container) {
    let mut capture =
        host.spawn(["weft", "capture", "app", "-w", "/run/app.pcap", "-c", "4"], "capture.log").unwrap();
    eventually("four frames", Duration::from_secs(10), || {
        from.pings(&to.v4);
        capture.ended().is_some()
    });
    assert!(capture.log_text().contains("4 frames of app"), "{}", capture.log_text());
    let read = host.exec(["tcpdump", "-n", "-r", "/run/app.pcap"]);
    assert_eq!(read.stdout.lines().count(), 4, "{read}");
    assert!(read.stdout.contains("ICMP echo request") && read.stdout.contains(&to.v4), "{read}");
    let terminal = host.exec(["weft", "capture", "nowhere"]);
    assert!(!terminal.ok() && terminal.stderr.contains("weft network ls"), "{terminal}");
}
