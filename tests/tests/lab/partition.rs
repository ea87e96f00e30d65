//! Hosts that die and halves that part: who is left knows it, and what was said apart is known to all when they meet.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use weft_lab::{Host, Lab, Mesh};

use crate::fixture::{Container, eventually};

/// A death is known everywhere within this (seconds).
const KNOWN: f64 = 5.0;
/// Halves that see each other again agree within this (seconds).
const AGREED: f64 = 10.0;

#[test]
fn a_killed_host_is_known_to_all_the_others() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(4).up().unwrap();
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
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(4).up().unwrap();
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app"]).unwrap();
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
