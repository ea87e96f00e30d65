//! Fresh keys every second under full load: nothing is lost by it, and TCP does not notice.

use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::{Host, Lab};

use crate::fixture::{Container, eventually, with_app};

/// How long it goes on; the longer, the more keys.
const SECONDS: &str = "WEFT_REKEY_SECONDS";
const DEFAULT_SECONDS: u64 = 20;
/// Load without fresh keys, to compare with.
const BEFORE: u64 = 5;
/// What an envelope under a wrong, unknown or erased key, or one twice, is counted as; and every rekey that is not as it should be.
const NEVER: [&str; 9] = [
    "unknown_index",
    "key_expired",
    "not_authentic",
    "replayed",
    "too_old",
    "rekey_out_of_turn",
    "rekey_ignored",
    "rekey_too_soon",
    "rekey_unanswered",
];
/// A storm is more than this share of segments sent again, unless it was as bad without fresh keys.
const STORM: f64 = 0.02;

#[test]
fn keys_are_fresh_every_second_under_full_load() {
    if weft_lab::skip() {
        return;
    }
    let seconds = std::env::var(SECONDS).ok().and_then(|s| s.parse().ok()).unwrap_or(DEFAULT_SECONDS);
    let lab = Lab::builder().hosts(2).up().unwrap();
    let _mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4) && b.pings(&a.v4));

    let whole = (BEFORE + seconds + 5).to_string();
    let mut loads = Vec::new();
    for (from, to, port) in [(&a, &b, "7001"), (&b, &a, "7002")] {
        loads.push(to.traffic_daemon(&["tcp-sink", &to.v4, port]));
        loads.push(from.traffic_daemon(&["tcp-load", &to.v4, port, &whole]));
    }
    let idle = segments(&a, &b);
    std::thread::sleep(Duration::from_secs(BEFORE));
    let before = segments(&a, &b);
    let start = Instant::now();
    for round in 0..seconds {
        let begun = Instant::now();
        // Either host may want them: one has dialled, the other asks.
        [h1, h2][round as usize % 2].run(["weft", "mesh", "rekey"]).unwrap();
        eventually("fresh keys on both hosts", Duration::from_secs(5), || {
            [h1, h2].into_iter().all(|host| key_age(host).is_some_and(|age| age <= begun.elapsed().as_secs()))
        });
        std::thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
    }
    let (after, took) = (segments(&a, &b), start.elapsed());
    for load in &mut loads {
        assert_eq!(load.wait(Duration::from_secs(60)), Some(0), "{}", load.log_text());
    }
    println!("{seconds} fresh keys in {:.0} s; loads: {}", took.as_secs_f64(), sent(&loads));
    let (without, with) = (again(idle, before), again(before, after));
    println!("segments sent again: {:.3} % without fresh keys, {:.3} % with", without * 1e2, with * 1e2);
    assert!(with <= (3.0 * without).max(STORM), "a storm of retransmits");
    for host in [h1, h2] {
        let drops = &json(host, "status")["drops"];
        println!("{} dropped {drops}", host.name());
        for reason in NEVER {
            assert!(drops.get(reason).is_none(), "{}: {reason} in {drops}", host.name());
        }
    }
    host_wide(h1);
}

/// `--all` reaches every host.
fn host_wide(host: &Host) {
    let said = host.run(["weft", "mesh", "rekey", "--all"]).unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), ["h1: 1 session", "h2: 1 session"]);
}

fn key_age(host: &Host) -> Option<u64> {
    json(host, "links")[0]["key_age"].as_u64()
}

fn json(host: &Host, what: &str) -> Value {
    serde_json::from_str(&host.run(["weft", what, "--json"]).unwrap()).unwrap()
}

/// TCP segments sent in both containers, and those sent again (RFC 4022 `tcpOutSegs`, `tcpRetransSegs`).
fn segments(a: &Container, b: &Container) -> (f64, f64) {
    let of = |container: &Container| {
        let snmp = container.exec(&["cat", "/proc/net/snmp"]).stdout;
        let mut rows = snmp.lines().filter(|l| l.starts_with("Tcp:")).map(|l| l.split_whitespace());
        let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
        let count = |wanted: &str| {
            let mut pairs = names.clone().zip(values.clone());
            pairs.find(|(name, _)| *name == wanted).and_then(|(_, n)| n.parse::<f64>().ok()).unwrap()
        };
        (count("OutSegs"), count("RetransSegs"))
    };
    let (a, b) = (of(a), of(b));
    (a.0 + b.0, a.1 + b.1)
}

/// The share of segments that were sent again between two looks.
fn again(from: (f64, f64), to: (f64, f64)) -> f64 {
    (to.1 - from.1) / (to.0 - from.0).max(1.0)
}

fn sent(loads: &[weft_lab::Daemon]) -> String {
    let said = loads.iter().skip(1).step_by(2).map(|l| l.log_text().trim().to_owned());
    said.collect::<Vec<_>>().join(", ")
}
