//! Docker goes on as people know it: published ports, the way out, several networks, everyday commands.

use std::time::Duration;

use weft_lab::{Daemon, Host, Lab, Mesh};

use crate::fixture::{Container, eventually, hosts, with_app};
use crate::truth;

/// What a small web server in a container, or on a host, has to give.
const PAGE: &str = "/etc/passwd";
const SHORT: Duration = Duration::from_secs(5);

/// `docker run` of a web server that tells on its standard error who asked.
fn web<'a>(host: &'a Host, name: &str, network: &str, args: &[&str]) -> Container<'a> {
    let mut command = vec!["run", "-d", "--name", name, "--network", network];
    command.extend(args);
    command.extend(["busybox", "httpd", "-f", "-v", "-p", "80", "-h", "/"]);
    host.docker(command).unwrap_or_else(|e| panic!("docker run {name}: {e}"));
    Container::of(host, name, network)
}

/// The same on a host itself, port 8000.
fn outside(host: &Host) -> Daemon {
    host.spawn(["busybox", "httpd", "-f", "-v", "-p", "8000", "-h", "/"], "web.log").unwrap()
}

fn fetches(host: &Host, url: &str) -> bool {
    host.exec(["curl", "-sfg", "-m2", &format!("{url}{PAGE}")]).ok()
}

fn fetches_inside(at: &Container, url: &str) -> bool {
    at.exec(&["curl", "-sfg", "-m2", &format!("{url}{PAGE}")]).ok()
}

/// What a container has printed, on both streams.
fn said(host: &Host, name: &str) -> String {
    let out = host.exec(["docker", "logs", name]);
    out.stdout + &out.stderr
}

#[test]
fn published_ports_and_the_way_out() {
    let Some(lab) = hosts(2) else { return };
    let mesh = with_app(&lab);
    mesh.network(&["six", "--ipv6"]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let web1 = web(h1, "web1", "app", &["-p", "8080:80"]);

    let took = eventually("the port from outside", SHORT, || fetches(h2, "http://192.0.2.1:8080"));
    println!("published port answers after {:.2} s", took.as_secs_f64());
    assert!(said(h1, "web1").contains("192.0.2.2"), "the source is kept: {}", said(h1, "web1"));
    assert!(fetches(h1, "http://192.0.2.1:8080"), "from the host itself");
    assert!(fetches(h1, "http://127.0.0.1:8080"), "from the host itself, loopback");
    assert!(fetches_inside(&web1, "http://192.0.2.1:8080"), "from the same container (hairpin)");
    let neighbour = Container::run(h1, "neighbour", "app", &[]);
    assert!(fetches_inside(&neighbour, "http://192.0.2.1:8080"), "from a container beside it");
    let far = Container::run(h2, "far", "app", &[]);
    assert!(fetches_inside(&far, "http://192.0.2.1:8080"), "from a container of another host, by the port");
    assert!(fetches_inside(&far, &format!("http://{}", web1.v4)), "and by its address");
    assert!(said(h1, "web1").contains(&far.v4), "the source is the container's: {}", said(h1, "web1"));

    let mut site = outside(h2);
    eventually("the way out by NAT", SHORT, || fetches_inside(&web1, "http://192.0.2.2:8000"));
    assert!(site.log_text().contains("192.0.2.1"), "the host's address: {}", site.log_text());
    assert!(!site.log_text().contains(&web1.v4), "no address of the mesh gets out: {}", site.log_text());
    assert!(web1.pings("192.0.2.254"), "the router of the underlay");
    site.kill9();

    // Docker 20.10 publishes on IPv6 by its proxy (the source is the proxy's), and has no way out by IPv6.
    let web6 = web(h1, "web6", "six", &["-p", "8086:80"]);
    let far6 = Container::run(h2, "far6", "six", &[]);
    eventually("ping over IPv6", SHORT, || far6.pings(&web6.v6));
    assert!(fetches_inside(&far6, &format!("http://[{}]", web6.v6)), "by its IPv6 address");
    assert!(said(h1, "web6").contains(&far6.v6), "its source: {}", said(h1, "web6"));
    assert!(fetches(h2, "http://[2001:db8::1]:8086"), "the published port from outside over IPv6");
    assert!(fetches(h2, "http://192.0.2.1:8086"), "and over IPv4");
}

#[test]
fn an_internal_network_has_no_way_out() {
    let Some(lab) = hosts(2) else { return };
    let mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["quiet", "--internal", "--ipv6"]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "quiet", &[]);
    let b = Container::run(h2, "beta", "quiet", &[]);
    eventually("ping within", SHORT, || a.pings(&b.v4) && b.pings(&a.v6));
    assert!(!h1.exec(["ip", "link", "show", "docker_gwbridge"]).ok(), "no docker_gwbridge was made");
    let links = a.exec(&["ip", "-br", "link"]).stdout;
    assert_eq!(links.lines().count(), 2, "lo and one interface:\n{links}");
    let ways = a.exec(&["ip", "route"]).stdout + &a.exec(&["ip", "-6", "route"]).stdout;
    assert!(!ways.contains("default"), "no default route:\n{ways}");
    let mut site = outside(h1);
    eventually("the site", SHORT, || fetches(h2, "http://192.0.2.1:8000"));
    assert!(!fetches_inside(&a, "http://192.0.2.1:8000"), "the host itself");
    assert!(!a.pings("192.0.2.2"), "another host");
    site.kill9();
}

#[test]
fn three_networks_in_one_container_and_everyday_commands() {
    let Some(lab) = hosts(2) else { return };
    let mesh = Mesh::up(&lab, &[]).unwrap();
    let names = ["red", "green", "blue"];
    for name in names {
        mesh.network(&[name]).unwrap();
    }
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let far: Vec<Container> = names.iter().map(|n| Container::run(h2, &format!("far-{n}"), n, &[])).collect();
    let mut a = Container::run(h1, "alpha", "red", &[]);
    for name in &names[1..] {
        h1.docker(["network", "connect", name, "alpha"]).unwrap();
    }
    for (name, to) in names.iter().zip(&far) {
        eventually(&format!("ping on {name}"), SHORT, || a.pings(&to.v4));
        let here = Container::of(h1, "alpha", name);
        assert!(to.pings(&here.v4), "and back on {name}");
    }
    h1.docker(["network", "disconnect", "green", "alpha"]).unwrap();
    assert!(!a.pings(&far[1].v4), "green is off");
    assert!(a.pings(&far[0].v4) && a.pings(&far[2].v4), "the others are on");
    h1.docker(["network", "connect", "green", "alpha"]).unwrap();
    eventually("ping on green again", SHORT, || a.pings(&far[1].v4));
    settled(&lab, "after connect and disconnect");
    println!("three networks: connect, disconnect, connect");

    h1.docker(["rename", "alpha", "omega"]).unwrap();
    settled(&lab, "after a rename");
    h1.docker(["pause", "omega"]).unwrap();
    settled(&lab, "while it is paused");
    h1.docker(["unpause", "omega"]).unwrap();
    assert_eq!(Container::of(h1, "omega", "red").v4, a.v4, "the address stays");
    assert!(a.pings(&far[0].v4));
    h1.sh("echo hello >/run/note && docker cp /run/note omega:/tmp/note").unwrap();
    assert_eq!(h1.docker(["exec", "omega", "cat", "/tmp/note"]).unwrap(), "hello");
    h1.sh("docker cp omega:/tmp/note /run/back && cmp /run/note /run/back").unwrap();
    let ping = ["exec", "omega", "ping", "-c1", "-W1", far[2].v4.as_str()];
    h1.docker(ping).unwrap();

    h1.docker(["restart", "-t0", "omega"]).unwrap();
    a = Container::of(h1, "omega", "red");
    eventually("ping after a restart", SHORT, || a.pings(&far[0].v4) && a.pings(&far[1].v4));
    settled(&lab, "after a restart");
    h1.docker(["rm", "-f", "omega"]).unwrap();
    settled(&lab, "after rm -f");
}

fn settled(lab: &Lab, when: &str) {
    let mut last = None;
    eventually(&format!("weft, Docker and the kernel agree {when}"), Duration::from_secs(10), || {
        let now = truth::difference(lab);
        if now.is_some() && now != last {
            println!("{when}: {}", now.as_deref().unwrap_or_default());
        }
        last = now;
        last.is_none()
    });
}
