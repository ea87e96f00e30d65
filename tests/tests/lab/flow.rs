//! A TCP transfer between two containers that runs while a test does something to the links, and by which way hosts reach each other.

use std::time::Duration;

use serde_json::Value;
use weft_lab::{Daemon, Host};

use crate::fixture::{Container, eventually};

/// What the issue allows for a change of the way (seconds).
pub const CHANGED: Duration = Duration::from_secs(5);
/// A flow goes on if so much arrives.
const ENOUGH: u64 = 100_000;
/// A flow ends, with all its bytes, within this.
const ENDS: Duration = Duration::from_secs(60);

/// Both its ends die with the lab.
pub struct Flow<'a> {
    source: Daemon,
    sink: Daemon,
    from: &'a Container<'a>,
    to: &'a Container<'a>,
    /// The file that ends it.
    end: String,
}

impl<'a> Flow<'a> {
    /// `text` over and over to an address of `to`, as fast as it goes.
    pub fn start(
        from: &'a Container<'a>,
        to: &'a Container<'a>,
        address: &str,
        port: &str,
        text: &str,
    ) -> Self {
        let end = format!("/run/flow-{}-{port}", from.name);
        let sink = to.traffic_daemon(&["tcp-drain", address, port]);
        let source = from.traffic_daemon(&["tcp-flow", address, port, &end, text]);
        let flow = Self { source, sink, from, to, end };
        flow.goes_on("a transfer begins");
        flow
    }

    /// Bytes that have arrived at the container's interface.
    pub fn arrived(&self) -> u64 {
        let table = std::fs::read_to_string(format!("/proc/{}/net/dev", self.to.pid)).unwrap();
        let mut rows = table.lines().filter_map(|line| line.trim().split_once(':'));
        let row = rows.find(|(iface, _)| *iface == self.to.iface).unwrap().1;
        row.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits until more arrives.
    pub fn goes_on(&self, what: &str) -> Duration {
        let before = self.arrived();
        eventually(what, CHANGED, || self.arrived() > before + ENOUGH)
    }

    /// Ends it; every byte has arrived in order. Says how long it paused meanwhile.
    pub fn finish(mut self) {
        self.from.host.run(["touch", &self.end]).unwrap();
        for daemon in [&mut self.source, &mut self.sink] {
            assert_eq!(daemon.wait(ENDS), Some(0), "{}", daemon.log_text());
        }
        let told = self.sink.log_text();
        let (pauses, sum): (Vec<&str>, Vec<&str>) = told.lines().partition(|l| l.starts_with("paused"));
        println!("{} to {}: {}; pauses: {}", self.from.name, self.to.name, sum.join(" "), pauses.join(", "));
        assert_eq!(sum, self.source.log_text().lines().collect::<Vec<_>>(), "every byte, in order");
    }
}

/// The link of `host` to `to`.
pub fn link(host: &Host, to: &str) -> Value {
    let said = host.exec(["weft", "links", "--json"]).stdout;
    let links: Vec<Value> = serde_json::from_str(&said).unwrap_or_default();
    links.into_iter().find(|link| link["host"] == to).unwrap_or_default()
}

/// What carries it, `udp`, `tcp` or a host's name, while it is up.
pub fn way(host: &Host, to: &str) -> Option<String> {
    let link = link(host, to);
    (link["state"] == "up").then(|| link["transport"].as_str().map(str::to_owned))?
}

/// Waits until the two reach each other by `wanted`, as both say.
pub fn reach_by(a: &Host, b: &Host, wanted: &str) -> Duration {
    let by = |from: &Host, to: &Host| way(from, to.name()).is_some_and(|way| way == wanted);
    let what = format!("{} and {} by {wanted}", a.name(), b.name());
    eventually(&what, CHANGED, || by(a, b) && by(b, a))
}

/// Seconds since the keys of the link were made: a new handshake makes new ones.
pub fn key_age(host: &Host, to: &str) -> u64 {
    link(host, to)["key_age"].as_u64().unwrap()
}
