//! The machine's packet filter and the kernel's settings: frames between containers pass, whatever both are set to, and soon
//! again after somebody has emptied the rules.

use std::time::Duration;

use weft_lab::Host;

use crate::fixture::{Container, eventually, hosts, with_app};

/// The rules are back within this.
const KEPT: f64 = 5.0;

fn rules(host: &Host) -> String {
    host.run(["iptables", "-S"]).unwrap()
}

/// Our chain accepts something, and is reached.
fn in_place(host: &Host) -> bool {
    let rules = rules(host);
    rules.contains("-A WEFT -i wft-") && rules.contains(" -j WEFT\n")
}

#[test]
fn accept_rules_are_kept_and_go_with_the_mesh() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    let near = Container::run(h2, "gamma", "app", &[]);
    let talk = || a.pings(&b.v4) && near.pings(&b.v4);
    eventually("ping", Duration::from_secs(5), talk);
    assert!(in_place(h2), "{}", rules(h2));
    h2.sh("echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables").unwrap();

    let flushed = "iptables -P FORWARD DROP && iptables -F";
    let reload = "iptables-save >/run/rules && iptables -F && iptables -X && grep -v WEFT /run/rules | iptables-restore";
    let unhooked = "iptables -D DOCKER-USER -j WEFT || iptables -D FORWARD -j WEFT";
    for (what, script) in [("iptables -F", flushed), ("a reload", reload), ("a lost jump", unhooked)] {
        h2.sh(script).unwrap();
        let took = eventually(what, Duration::from_secs_f64(KEPT), || in_place(h2));
        println!("{what}: the rules are back after {:.1} s", took.as_secs_f64());
        eventually("ping", Duration::from_secs(2), talk);
    }
    h2.engine_stop().unwrap();
    h2.sh(flushed).unwrap();
    h2.engine_start().unwrap();
    let took = eventually("a restart of Docker", Duration::from_secs_f64(KEPT), || in_place(h2));
    println!("a restart of Docker: the rules are back after {:.1} s", took.as_secs_f64());
    eventually("ping", Duration::from_secs(2), talk);

    h2.docker(["rm", "-f", "beta", "gamma"]).unwrap();
    h2.run(["weft", "leave"]).unwrap();
    for program in ["iptables", "ip6tables"] {
        let left = h2.run([program, "-S"]).unwrap();
        assert!(!left.contains("WEFT") && !left.contains("wft-"), "{program}: {left}");
    }
}

#[test]
fn frames_pass_whatever_rp_filter_and_br_netfilter_say() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    let near = Container::run(h2, "gamma", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));
    let mut echo = b.traffic_daemon(&["tcp-serve", &b.v4, "7003"]);
    for netfilter in ["0", "1"] {
        for rp_filter in ["0", "1", "2"] {
            for host in [h1, h2] {
                host.sh(&format!(
                    "for f in /proc/sys/net/bridge/bridge-nf-call-iptables /proc/sys/net/bridge/bridge-nf-call-ip6tables; do
                         echo {netfilter} >$f; done
                     for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo {rp_filter} >$f; done"
                ))
                .unwrap();
            }
            let what = format!("bridge-nf-call {netfilter}, rp_filter {rp_filter}");
            eventually(&what, Duration::from_secs(6), || {
                a.pings(&b.v4) && b.pings(&a.v4) && near.pings(&b.v4)
            });
            for from in [&a, &near] {
                let beat = from.try_traffic(&["tcp-beat", &b.v4, "7003", "1"]);
                assert!(beat.ok(), "{what}: TCP from {}: {beat}", from.name);
            }
        }
    }
    echo.kill9();
}
