//! Hosts that die and halves that part: who is left knows it, and what was said apart is known to all when they meet.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use weft_lab::{Host, Mesh};

use crate::fixture::{Container, eventually, hosts, with_app};
use crate::flow::{CHANGED, Flow, way};
use crate::second_signer::{KEY, PASSPHRASE, carry_the_key};

/// A death is known everywhere within this (seconds).
const KNOWN: f64 = 5.0;
/// Halves that see each other again agree within this (seconds).
const AGREED: f64 = 10.0;

#[test]
fn a_killed_host_is_known_to_all_the_others() {
    let Some(lab) = hosts(4) else { return };
    let mut _mesh = Mesh::up(&lab, &[]).unwrap();
    let others: Vec<&Host> = ["h1", "h2", "h3"].map(|name| lab.host(name)).into();
    lab.host("h4").kill();
    let known = || {
        others.iter().all(|host| {
            let reachable = reachable(host);
            reachable.get("h4") == Some(&false) && reachable.get("h1") == Some(&true)
        })
    };
    let took = eventually("the death is known on every host", Duration::from_secs_f64(KNOWN), known);
    println!("a host's death is known on every other after {:.2} s", took.as_secs_f64());
}

#[test]
fn halves_that_never_met_agree_when_a_link_comes_up() {
    let Some(lab) = hosts(4) else { return };
    let mut mesh = with_app(&lab);
    let (left, right) = (["h1", "h2"], ["h3", "h4"]);
    for daemon in mesh.daemons() {
        daemon.kill9();
    }
    for (a, b) in left.iter().flat_map(|a| right.map(|b| (*a, b))) {
        lab.cut(a, b).unwrap();
    }
    for name in left.iter().chain(&right) {
        mesh.restart(name).unwrap();
    }
    let half = |of: [&str; 2], not: [&str; 2]| {
        of.iter().all(|name| {
            let reachable = reachable(lab.host(name));
            of.iter().all(|o| reachable.get(*o) == Some(&true))
                && not.iter().all(|o| reachable.get(*o) == Some(&false))
        })
    };
    let apart = || half(left, right) && half(right, left);
    eventually("the halves are apart", Duration::from_secs(20), apart);
    let names = ["alpha", "beta", "gamma", "delta"];
    let hosts = lab.hosts().iter().zip(names);
    let containers: Vec<Container<'_>> =
        hosts.map(|(host, name)| Container::run(host, name, "app", &[])).collect();
    assert!(apart());
    // One link only: all else is learnt through it.
    lab.mend("h2", "h3").unwrap();
    let agree = || {
        lab.hosts()
            .iter()
            .all(|host| names.iter().all(|name| containers_of(host).contains(&(*name).to_owned())))
    };
    let took = eventually("every host knows every container", Duration::from_secs_f64(AGREED), agree);
    println!("two halves agree {:.2} s after a link came up", took.as_secs_f64());
    let met = || lab.hosts().iter().all(|host| reachable(host).values().all(|yes| *yes));
    eventually("every host is reachable from every other", Duration::from_secs_f64(AGREED), met);
    let through = lab.host("h1").exec(["weft", "hosts"]).stdout;
    assert!(through.contains("through h2"), "{through}");
    for (a, b) in left.iter().flat_map(|a| right.map(|b| (*a, b))) {
        lab.mend(a, b).unwrap();
    }
    eventually("frames pass", Duration::from_secs_f64(AGREED), || containers[0].pings(&containers[3].v4));
}

#[test]
fn halves_whose_hosts_joined_apart_agree_when_a_link_comes_up() {
    let Some(lab) = hosts(4) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    let [h1, h2, h3, h4] = ["h1", "h2", "h3", "h4"].map(|name| lab.host(name));
    carry_the_key(h1, h3);
    mesh.daemons()[2].signal(weft_lab::Signal::TERM);
    assert!(mesh.daemons()[2].wait(Duration::from_secs(10)).is_some());
    h3.run(["weft", "mesh", "key", "import", KEY, "--passphrase-file", PASSPHRASE]).unwrap();
    mesh.restart("h3").unwrap();
    mesh.wait_ready().unwrap();
    for (host, at) in [(h2, 1), (h4, 3)] {
        host.run(["weft", "leave"]).unwrap();
        eventually("its daemon ends", Duration::from_secs(10), || mesh.daemons()[at].ended().is_some());
    }
    let knows =
        |host: &Host, names: &[&str]| reachable(host).keys().map(String::as_str).eq(names.iter().copied());
    eventually("the signers know that they left", Duration::from_secs(10), || {
        [h1, h3].iter().all(|host| knows(host, &["h1", "h3"]))
    });
    for (a, b) in [("h1", "h3"), ("h1", "h4"), ("h2", "h3"), ("h2", "h4")] {
        lab.cut(a, b).unwrap();
    }
    eventually("the signers are apart", Duration::from_secs(10), || {
        [(h1, "h3"), (h3, "h1")].iter().all(|(host, other)| reachable(host).get(*other) == Some(&false))
    });
    // Each signer admits a host that the other half has never heard of.
    for (signer, host, name) in [(h1, h2, "left"), (h3, h4, "right")] {
        let token = signer.run(["weft", "token", "new", "--quiet"]).unwrap();
        let at = signer.addr().to_string();
        host.run(["weft", "join", &at, "--token", token.trim(), "--name", name]).unwrap();
        mesh.restart(host.name()).unwrap();
    }
    eventually("each half has its own", Duration::from_secs(10), || {
        knows(h2, &["h1", "h3", "left"]) && knows(h4, &["h1", "h3", "right"])
    });

    lab.mend("h1", "h3").unwrap();
    let all = ["h1", "h3", "left", "right"];
    let met = |host: &Host| knows(host, &all) && reachable(host).values().all(|yes| *yes);
    let took = eventually("everybody reaches everybody", Duration::from_secs_f64(AGREED), || {
        lab.hosts().iter().all(met)
    });
    println!("halves whose hosts joined apart agree {:.2} s after a link came up", took.as_secs_f64());
    // `left` and `right` have two hosts between them.
    mesh.network(&["app"]).unwrap();
    let a = Container::run(h2, "alpha", "app", &[]);
    let b = Container::run(h4, "beta", "app", &[]);
    eventually("ping through two hosts", Duration::from_secs_f64(AGREED), || {
        a.pings(&b.v4) && b.pings(&a.v4)
    });
    let flow = Flow::start(&a, &b, &b.v4, "7001", "0123456789abcdef");
    println!("{}{}", h2.run(["weft", "hosts"]).unwrap(), h2.run(["weft", "links"]).unwrap());
    lab.mend("h2", "h4").unwrap();
    let direct = || {
        let by = |host, other| way(host, other).as_deref() == Some("udp");
        by(h2, "right") && by(h4, "left")
    };
    let took = eventually("directly", CHANGED, direct);
    println!("direct {:.1} s after their link came up", took.as_secs_f64());
    flow.goes_on("it goes on directly");
    flow.finish();
}

/// Whether each host is reachable, as this one sees it; nothing while its daemon does not answer.
fn reachable(host: &Host) -> BTreeMap<String, bool> {
    let list = list(host, "hosts");
    let row = |h: &Value| Some((h["name"].as_str()?.to_owned(), h["reachable"].as_bool()?));
    list.iter().filter_map(row).collect()
}

fn containers_of(host: &Host) -> Vec<String> {
    list(host, "ps").iter().filter_map(|e| Some(e["container"].as_str()?.to_owned())).collect()
}

fn list(host: &Host, noun: &str) -> Vec<Value> {
    let said = host.exec(["weft", noun, "--json"]).stdout;
    serde_json::from_str(&said).unwrap_or_default()
}
