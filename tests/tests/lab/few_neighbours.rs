//! More hosts than keep sessions with everybody: each keeps a few, and the others begin with the first frame.

use std::time::Duration;

use serde_json::Value;
use weft_lab::{Host, Mesh};

use crate::fixture::{Container, eventually, hosts};

const HOSTS: usize = 8;
/// Up to so many hosts everybody would have a session with everybody.
const FULL_MESH: &str = "4";
/// Of sessions, if each host chooses two, and one of its choices may be passed over for another.
const ENDS: usize = 2 * 2 * HOSTS + HOSTS;
/// A mesh that was started anew is whole again.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn hosts_without_a_session_reach_each_other_with_the_first_frame() {
    let Some(lab) = hosts(HOSTS) else { return };
    let mut mesh = Mesh::up_with(&lab, &[], &["--full-mesh", FULL_MESH]).unwrap();
    mesh.network(&["app"]).unwrap();
    let containers: Vec<Container<'_>> = lab
        .hosts()
        .iter()
        .map(|host| Container::run(host, &format!("c{}", host.name()), "app", &[]))
        .collect();
    // What began while hosts joined and were told of the network would go on for minutes.
    for daemon in mesh.daemons() {
        daemon.kill9();
    }
    for host in lab.hosts() {
        mesh.restart(host.name()).unwrap();
    }
    mesh.wait_ready().unwrap();
    for host in lab.hosts() {
        eventually("every container is known", SOON, || listed(host, "ps").len() == HOSTS);
    }

    let before: Vec<usize> = lab.hosts().iter().map(up).collect();
    println!("sessions of each host before: {before:?}");
    assert!(before.iter().all(|sessions| *sessions > 0));
    assert!(before.iter().sum::<usize>() <= ENDS, "others have one than those that chose each other");
    for from in &containers {
        for to in containers.iter().filter(|to| to.name != from.name) {
            let first = from.exec(&["ping", "-c1", "-W3", &to.v4]);
            assert!(first.ok(), "{} -> {}: {first}", from.name, to.name);
        }
    }
    let after: Vec<usize> = lab.hosts().iter().map(up).collect();
    println!("and after everybody has talked to everybody: {after:?}");
    assert_eq!(after, [HOSTS - 1; HOSTS], "each began with a frame");
    mesh.wait_ready().unwrap();
}

/// Sessions that are up.
fn up(host: &Host) -> usize {
    listed(host, "links").iter().filter(|link| link["state"] == "up").count()
}

fn listed(host: &Host, what: &str) -> Vec<Value> {
    serde_json::from_str(&host.run(["weft", what, "--json"]).unwrap()).unwrap()
}
