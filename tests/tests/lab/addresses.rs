//! Which address a container gets: its own, one in a block that nobody holds, IPv4 and IPv6, with a MAC that a person chose.

use std::time::Duration;

use weft_lab::{Host, Mesh};

use crate::fixture::{Container, eventually, hosts};

const SHORT: Duration = Duration::from_secs(5);
const CHOSEN_MAC: &str = "02:00:5e:10:20:30";

/// What Docker says of a `docker run` that fails.
fn refused(host: &Host, args: &[&str]) -> String {
    let mut command = vec!["docker", "run", "-d"];
    command.extend(args);
    command.extend(["busybox", "sleep", "100000"]);
    let out = host.exec(command);
    assert!(!out.ok(), "{out}");
    out.stderr
}

/// As `docker run --mac-address` asks; a command of version 25 or later does not ask an older engine so.
fn create_with_mac(host: &Host, name: &str) {
    let body = format!(
        r#"{{"Image":"busybox","Cmd":["sleep","100000"],"MacAddress":"{CHOSEN_MAC}","HostConfig":{{"NetworkMode":"app"}}}}"#
    );
    let url = format!("http://docker/v1.41/containers/create?name={name}");
    let json = "Content-Type: application/json";
    host.run(["curl", "-sf", "--unix-socket", "/run/docker.sock", "-H", json, "-d", &body, &url]).unwrap();
}

#[test]
fn people_choose_addresses() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--subnet", "10.40.0.0/16", "--subnet", "fd00:40::/64"]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));

    // Far from the blocks that anybody holds.
    let fixed = Container::run(h2, "fixed", "app", &["--ip", "10.40.200.7", "--ip6", "fd00:40::c:7"]);
    assert_eq!((fixed.v4.as_str(), fixed.v6.as_str()), ("10.40.200.7", "fd00:40::c:7"));
    let free = Container::run(h1, "free", "app", &[]);
    eventually("both families", SHORT, || free.pings("10.40.200.7") && free.pings("fd00:40::c:7"));
    let said = refused(h1, &["--network", "app", "--ip", "10.40.200.7"]);
    assert!(said.contains("container fixed on h2"), "{said}");
    let at = h1.run(["weft", "expose", "app", "--ip", "10.40.90.1"]).unwrap();
    assert!(at.contains("10.40.90.1"), "{at}");
    eventually("a host at the address that it chose", SHORT, || fixed.pings("10.40.90.1"));
    h1.run(["weft", "hide", "app"]).unwrap();

    // Kept through a restart of everything but the deciding host's word.
    h2.docker(["restart", "-t0", "fixed"]).unwrap();
    eventually("the same after a restart", SHORT, || free.pings("10.40.200.7"));
    mesh.daemons()[0].kill9();
    h2.docker(["restart", "-t0", "fixed"]).unwrap();
    assert_eq!(Container::of(h2, "fixed", "app").v4, "10.40.200.7", "and while nobody decides");
    let said = refused(h2, &["--name", "late", "--network", "app", "--ip", "10.40.77.7"]);
    assert!(said.contains("no host holds yet"), "{said}");
    mesh.restart("h1").unwrap();
    mesh.wait_ready().unwrap();
    h2.docker(["start", "late"]).unwrap();
    eventually("a block once somebody decides again", SHORT, || free.pings("10.40.77.7"));

    for name in ["odd", "even"] {
        create_with_mac(h2, name);
    }
    h2.docker(["start", "odd"]).unwrap();
    let odd = Container::of(h2, "odd", "app");
    assert_eq!(odd.mac, CHOSEN_MAC);
    eventually("a chosen MAC", SHORT, || free.pings(&odd.v4) && free.pings(&odd.v6));
    let neighbours = free.exec(&["ip", "neigh", "show", &odd.v4]).stdout;
    assert!(neighbours.contains(CHOSEN_MAC), "{neighbours}");
    let out = h2.exec(["docker", "start", "even"]);
    assert!(!out.ok() && out.stderr.contains("in use by"), "{out}");
}
