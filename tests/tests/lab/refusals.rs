//! Who is kept out: wrong, expired and used tokens, removed hosts, strangers on the port, eyes on the underlay.

use std::time::Duration;

use weft_lab::Lab;

use crate::fixture::{Container, eventually, hosts, with_app};
use crate::separation::drops;

const SECRET: &str = "PLAINTEXT-THAT-MUST-NOT-BE-SEEN";

#[test]
fn the_underlay_holds_no_plaintext() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = with_app(&lab);
    let a = Container::run(lab.host("h1"), "alpha", "app", &[]);
    let b = Container::run(lab.host("h2"), "beta", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));

    let capture = lab.underlay_capture().unwrap();
    let mut echo = b.traffic_daemon(&["udp-serve", &b.v4, "7002"]);
    println!("{}", a.traffic(&["udp-pattern", &b.v4, "7002", SECRET, "500"]).trim());
    // The control: the same text in the clear, so that a search which finds nothing means something.
    let mut open =
        lab.host("h2").spawn([crate::fixture::TRAFFIC, "udp-serve", "0.0.0.0", "9999"], "open.log").unwrap();
    let h2 = lab.host("h2").addr().to_string();
    let control = lab.host("h1").exec([
        crate::fixture::TRAFFIC,
        "udp-pattern",
        &h2,
        "9999",
        "THIS-IS-IN-THE-CLEAR",
        "3",
    ]);
    assert!(control.ok(), "{control}");
    let pcap = std::fs::read(&capture.stop().unwrap().path).unwrap();
    let seen = |text: &str| pcap.windows(text.len()).any(|w| w == text.as_bytes());
    println!("capture of {} bytes", pcap.len());
    assert!(pcap.len() > 500 * 1200, "the capture holds the traffic");
    assert!(seen("THIS-IS-IN-THE-CLEAR"), "the control was not captured");
    assert!(!seen(SECRET), "plaintext on the underlay");
    open.kill9();
    echo.kill9();
}

#[test]
fn tokens_that_are_wrong_expired_or_used_admit_nobody() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(3).engines(false).up().unwrap();
    let (h1, h2, h3) = (lab.host("h1"), lab.host("h2"), lab.host("h3"));
    h1.run(["weft", "init"]).unwrap();
    let mut up = h1.spawn(["weft", "up"], "weft.log").unwrap();
    let founder = h1.addr().to_string();
    eventually("the daemon", Duration::from_secs(10), || h1.exec(["weft", "hosts"]).ok());
    let made = |args: &[&str]| {
        let said = h1.run(["weft", "token", "new"].iter().chain(args)).unwrap();
        said.split_whitespace().find(|w| w.starts_with("weft1-")).expect("a token").to_owned()
    };
    let join = |host: &weft_lab::Host, token: &str| host.exec(["weft", "join", &founder, "--token", token]);
    let refused = |what: &str, out: weft_lab::Output, words: &[&str]| {
        println!("{what}: {}", out.stderr.trim());
        assert_eq!(out.status, 1, "{what}: {out}");
        assert_eq!(out.stderr.trim().lines().count(), 1, "{what}: one sentence: {out}");
        for word in words {
            assert!(out.stderr.contains(word), "{what} should say {word:?}: {}", out.stderr);
        }
    };

    refused("garbage", join(h2, "weft1-nonsense"), &["token"]);
    let good = made(&[]);
    let mut garbled = good.clone().into_bytes();
    garbled[20] = if garbled[20] == b'a' { b'b' } else { b'a' };
    refused("garbled", join(h2, &String::from_utf8(garbled).unwrap()), &["garbled"]);

    let short = made(&["--expires", "1s"]);
    std::thread::sleep(Duration::from_secs(2));
    refused("expired", join(h2, &short), &["expired", "weft token new"]);

    let once = made(&["--once"]);
    let out = join(h2, &once);
    assert!(out.ok(), "{out}");
    refused("used", join(h3, &once), &["used", "weft token new"]);

    let removed = made(&[]);
    let listed = h1.run(["weft", "token", "ls", "--json"]).unwrap();
    let ids: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    for id in &ids {
        h1.run(["weft", "token", "rm", id["id"].as_str().unwrap()]).unwrap();
    }
    refused("removed", join(h3, &removed), &["token"]);

    // Another mesh: its token does not fit this one's key.
    h3.run(["weft", "init"]).unwrap();
    let theirs = h3.run(["weft", "init"]).unwrap_or_default();
    println!("init again: {}", theirs.trim());
    let out = join(h3, &made(&[]));
    refused("a host of another mesh", out, &["weft leave"]);
    up.kill9();
}

#[test]
fn a_removed_host_is_out_at_once() {
    let Some(lab) = hosts(3) else { return };
    let _mesh = with_app(&lab);
    let a = Container::run(lab.host("h1"), "alpha", "app", &[]);
    let b = Container::run(lab.host("h2"), "beta", "app", &[]);
    let c = Container::run(lab.host("h3"), "gamma", "app", &[]);
    eventually("ping", Duration::from_secs(5), || c.pings(&a.v4) && c.pings(&b.v4));
    lab.host("h1").run(["weft", "host", "rm", "h3"]).unwrap();
    eventually("the removed host's frames end", Duration::from_secs(5), || {
        !c.pings(&a.v4) && !c.pings(&b.v4)
    });
    assert!(a.pings(&b.v4), "the others still talk");
    let hosts = lab.host("h2").run(["weft", "hosts"]).unwrap();
    assert!(!hosts.contains("h3"), "{hosts}");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!c.pings(&a.v4), "it does not come back");
    let out = lab.host("h1").exec(["weft", "status"]);
    assert!(out.stdout.contains("2 hosts, 2 reachable"), "{out}");
}

#[test]
fn random_bytes_on_the_port_are_counted_and_change_nothing() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(2).engines(false).up().unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    h1.run(["weft", "init"]).unwrap();
    let mut up = h1.spawn(["weft", "up"], "weft.log").unwrap();
    eventually("the daemon", Duration::from_secs(10), || h1.exec(["weft", "hosts"]).ok());
    let memory = || {
        let text = std::fs::read_to_string(format!("/proc/{}/status", up.pid)).unwrap();
        let line = text.lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = (drops(h1).values().sum::<u64>(), memory());
    let target = h1.addr().to_string();
    let out = h2.exec([env!("CARGO_BIN_EXE_stranger"), &target, "6783", "20000"]);
    assert!(out.ok(), "{out}");
    std::thread::sleep(Duration::from_secs(1));
    let (after, grown) = (drops(h1), memory());
    let sum = after.values().sum::<u64>();
    println!("{}; drops {after:?}; memory {} KiB -> {grown} KiB", out.stdout.trim(), before.1);
    assert!(sum - before.0 >= 10_000, "junk is counted: {after:?}");
    assert!(grown < before.1 + 32 * 1024, "no state grown: {} KiB -> {grown} KiB", before.1);
    assert_eq!(h1.exec(["weft", "hosts"]).stdout.matches("h1").count(), 1);
    up.kill9();
}
