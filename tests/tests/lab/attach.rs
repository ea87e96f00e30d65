//! What Docker did not start on a network: `weft attach`, `detach`, `expose`, `hide`.

use std::time::Duration;

use weft_lab::{Daemon, Host, Mesh};

use crate::fixture::{Container, eventually, hosts};

const SHORT: Duration = Duration::from_secs(5);

/// The addresses in the only line that a command prints: network, addresses, who.
fn addresses(host: &Host, command: &[&str]) -> Vec<String> {
    let said = host.run(command).unwrap_or_else(|e| panic!("{}: {e}", command.join(" ")));
    let words = said.split_whitespace().skip(1);
    words.filter(|word| word.parse::<std::net::IpAddr>().is_ok()).map(str::to_owned).collect()
}

/// Refused by one sentence that has this in it.
fn refused(host: &Host, command: &[&str], why: &str) {
    let out = host.exec(command);
    assert!(!out.ok() && out.stderr.contains(why), "{}: {out}", command.join(" "));
    assert_eq!(out.stderr.lines().count(), 1, "{out}");
}

fn listed(host: &Host, what: &str) -> bool {
    host.run(["weft", "ps"]).unwrap().split_whitespace().any(|word| word == what)
}

fn pings(host: &Host, to: &str) -> bool {
    host.exec(["ping", "-c1", "-W1", to]).ok()
}

/// A process in a network namespace of its own, with its pid.
fn stranger(host: &Host, log: &str) -> (Daemon, String) {
    let process = host.spawn(["unshare", "-n", "sh", "-c", "echo $$; exec sleep 1000"], log).unwrap();
    eventually("the process", SHORT, || process.log_text().ends_with('\n'));
    let pid = process.log_text().trim().to_owned();
    (process, pid)
}

/// The veths of a host that are ports of our bridges.
fn veths(host: &Host) -> usize {
    host.run(["ip", "-br", "link"]).unwrap().lines().filter(|line| line.starts_with("wve")).count()
}

#[test]
fn a_host_is_in_reach_while_it_is_exposed() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--ipv6"]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let near = Container::run(h1, "near", "app", &[]);
    let far = Container::run(h2, "far", "app", &[]);
    eventually("containers", SHORT, || near.pings(&far.v4));
    assert!(!pings(h1, &far.v4), "a gateway is no source towards another host");

    let own = addresses(h1, &["weft", "expose", "app"]);
    let [v4, v6] = own.as_slice() else { panic!("one of each family: {own:?}") };
    eventually("the host from afar", SHORT, || far.pings(v4) && far.pings(v6));
    assert!(near.pings(v4) && near.pings(v6), "and from its own containers");
    assert!(pings(h1, &far.v4) && pings(h1, &far.v6), "containers of another host from the host");
    assert!(pings(h1, &near.v4) && pings(h1, &near.v6), "its own containers");
    assert!(near.pings("10.32.0.1"), "the gateway still answers");
    let mut site = h1.spawn(["busybox", "httpd", "-f", "-v", "-p", "8000", "-h", "/"], "web.log").unwrap();
    let page = format!("http://{v4}:8000/etc/passwd");
    let fetches = || far.exec(&["curl", "-sf", "-m2", &page]).ok();
    eventually("a service of the host", SHORT, fetches);
    assert!(site.log_text().contains(&far.v4), "its source is the container's: {}", site.log_text());
    site.kill9();
    eventually("weft ps on both hosts", SHORT, || listed(h1, v4) && listed(h2, v4));
    assert_eq!(addresses(h1, &["weft", "expose", "app"]), own, "twice is once");
    refused(h1, &["weft", "expose", "app", "--ip", "10.32.0.50"], "already");
    refused(h1, &["weft", "network", "rm", "app"], "(host) on h1");

    mesh.daemons()[0].kill9();
    mesh.restart("h1").unwrap();
    mesh.wait_ready().unwrap();
    eventually("the same address after a crash", SHORT, || far.pings(v4) && pings(h1, &far.v6));
    h1.reboot().unwrap();
    mesh.restart("h1").unwrap();
    mesh.wait_ready().unwrap();
    eventually("the same address after a reboot", 2 * SHORT, || far.pings(v4) && far.pings(v6));
    assert!(listed(h1, v4));

    let other = addresses(h2, &["weft", "expose", "app"]);
    eventually("host to host", SHORT, || pings(h1, &other[0]) && pings(h2, v4));
    for host in [h1, h2] {
        host.run(["weft", "hide", "app"]).unwrap();
        refused(host, &["weft", "hide", "app"], "not exposed");
        assert!(!host.exec(["ip", "link", "show", "dev", "wxp-0"]).ok());
        assert!(!host.run(["ip", "-br", "link"]).unwrap().contains("wxp-"), "its interface is gone");
    }
    assert!(!far.pings(v4), "hidden");
    eventually("weft ps", SHORT, || !listed(h2, v4));
    refused(h1, &["weft", "expose", "nothing"], "no network named");
}

#[test]
fn containers_and_namespaces_are_attached() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--ipv6"]).unwrap();
    mesh.network(&["two"]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let far = Container::run(h2, "far", "app", &[]);
    h2.docker(["network", "connect", "two", "far"]).unwrap();
    let far_two = Container::of(h2, "far", "two");

    // A container that was started without weft.
    let run = ["run", "-d", "--name", "plain", "--network", "none", "busybox", "sleep", "100000"];
    h1.docker(run).unwrap();
    let plain = addresses(h1, &["weft", "attach", "plain", "app"]);
    let pid = h1.container_pid("plain").unwrap();
    let inside = |argv: &[&str]| h1.exec_in_netns_of(pid, argv);
    eventually("the container", SHORT, || far.pings(&plain[0]) && far.pings(&plain[1]));
    assert!(inside(&["ping", "-c1", "-W1", &far.v4]).ok() && inside(&["ping", "-c1", "-W1", &far.v6]).ok());
    let link = inside(&["ip", "link", "show", "weft0"]).stdout;
    assert!(link.contains("mtu 1340") && link.contains("02:42:0a:20"), "{link}");
    let two = addresses(h1, &["weft", "attach", "plain", "two", "--ip", "10.33.0.9"]);
    assert_eq!(two, ["10.33.0.9"]);
    eventually("its second network", SHORT, || far_two.pings("10.33.0.9"));
    assert_eq!(addresses(h1, &["weft", "attach", "plain", "app"]), plain, "twice is once");
    eventually("weft ps names it", SHORT, || {
        listed(h2, "plain") && h2.run(["weft", "ps"]).unwrap().contains(&plain[0])
    });
    h1.run(["weft", "detach", "plain", "two"]).unwrap();
    assert!(!far_two.pings("10.33.0.9"));
    refused(h1, &["weft", "detach", "plain", "two"], "did not attach plain");

    // Any namespace.
    let (mut process, number) = stranger(h1, "stranger.log");
    let at = addresses(h1, &["weft", "attach", "--pid", &number, "app", "--ip", "10.32.0.30"]);
    assert_eq!(at[0], "10.32.0.30");
    eventually("the namespace", SHORT, || far.pings(&at[0]) && far.pings(&at[1]));
    refused(h1, &["weft", "attach", "plain", "app", "--ip", "10.32.0.30"], "already");
    let (mut second, other) = stranger(h1, "second.log");
    refused(h1, &["weft", "attach", "--pid", &other, "app", "--ip", "10.32.0.30"], "in use by");
    refused(h1, &["weft", "attach", "--pid", &other, "app", "--ip", "10.99.0.30"], "outside");
    refused(h1, &["weft", "attach", "--pid", "999999", "app"], "is it running?");
    refused(h1, &["weft", "attach", "nobody", "app"], "no container");
    refused(h1, &["weft", "detach", "--pid", &other, "app"], "not attached");
    let before = veths(h1);
    let same = addresses(h1, &["weft", "attach", "--pid", &other, "app"]);
    h1.run(["weft", "detach", "--pid", &other, "app"]).unwrap();
    assert_eq!(veths(h1), before, "no interface is left");
    assert_eq!(
        addresses(h1, &["weft", "attach", "--pid", &other, "app"]),
        same,
        "its address was free again"
    );

    // All of it outlives the daemon; what ends meanwhile is gone at its next start.
    mesh.daemons()[0].kill9();
    assert!(inside(&["ip", "-br", "link"]).stdout.contains("weft0"));
    second.kill9();
    mesh.restart("h1").unwrap();
    mesh.wait_ready().unwrap();
    eventually("the living", SHORT, || far.pings(&plain[0]) && far.pings("10.32.0.30"));
    eventually("the dead", SHORT, || !listed(h1, &same[0]) && !listed(h2, &same[0]));
    process.kill9();
    eventually("the end of a namespace", SHORT, || !listed(h1, "10.32.0.30"));
    h1.docker(["rm", "-f", "plain"]).unwrap();
    eventually("the end of a container", SHORT, || !listed(h1, &plain[0]) && veths(h1) == 0);
    h2.docker(["rm", "-f", "far"]).unwrap();
    eventually("networks without users", SHORT, || h1.exec(["weft", "network", "rm", "app", "two"]).ok());
}
