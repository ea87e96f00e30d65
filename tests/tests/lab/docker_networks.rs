//! Networks made, removed and disputed with Docker's own words, on any host.

use std::time::Duration;

use weft_lab::{Host, Lab, Mesh};

use crate::fixture::{Container, eventually, hosts};

const CREATE: [&str; 7] = ["docker", "network", "create", "-d", "weft", "--ipam-driver", "weft"];

fn create(host: &Host, args: &[&str]) -> weft_lab::Output {
    host.exec(CREATE.iter().chain(args))
}

fn has(host: &Host, name: &str) -> bool {
    host.exec(["docker", "network", "inspect", name]).ok()
}

fn on_all(lab: &Lab, what: &str, limit: f64, done: impl Fn(&Host) -> bool) {
    let took = eventually(what, Duration::from_secs_f64(limit), || lab.hosts().iter().all(&done));
    println!("{what}: {:.2} s", took.as_secs_f64());
}

fn range(host: &Host, name: &str) -> String {
    host.docker(["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name]).unwrap()
}

fn state(host: &Host, name: &str) -> String {
    let networks: serde_json::Value =
        serde_json::from_str(&host.run(["weft", "network", "ls", "--json"]).unwrap()).unwrap();
    let found = networks.as_array().unwrap().iter().find(|n| n["name"] == name).cloned();
    found.map_or_else(|| "none".into(), |n| n["state"].as_str().unwrap().to_owned())
}

#[test]
fn docker_makes_and_removes_a_network_of_the_mesh() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = Mesh::up(&lab, &[]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));

    // No range: one of the pool. The container starts at once, before the name has gone round.
    let made = create(h2, &["app"]);
    assert!(made.ok(), "{made}");
    let b = Container::run(h2, "beta", "app", &[]);
    on_all(&lab, "network app", 3.0, |host| has(host, "app"));
    assert_eq!(range(h1, "app"), range(h2, "app"));
    let a = Container::run(h1, "alpha", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4) && b.pings(&a.v4));
    let ls = h1.run(["weft", "network", "ls"]).unwrap();
    assert!(ls.contains("app") && ls.contains("h1 h2"), "{ls}");

    // Everything that can be said, from a host that does not decide.
    let all = [
        "--subnet",
        "10.71.0.0/16",
        "--gateway",
        "10.71.0.254",
        "--internal",
        "--ipv6",
        "-o",
        "weft.mtu=1300",
    ];
    let made = create(h2, &[&all[..], &["full"]].concat());
    assert!(made.ok(), "{made}");
    on_all(&lab, "network full", 3.0, |host| has(host, "full"));
    let free = Container::run(h2, "gamma", "full", &[]).v4;
    h2.docker(["rm", "-f", "gamma"]).unwrap();
    let c = Container::run(h2, "gamma", "full", &["--ip", &free]);
    let d = Container::run(h1, "delta", "full", &[]);
    assert_eq!(c.v4, free);
    assert!(!d.v6.is_empty(), "an IPv6 address");
    eventually("ping on full", Duration::from_secs(5), || c.pings(&d.v4) && c.pings(&d.v6));
    let mtu = c.exec(&["ip", "link", "show", &c.iface]).stdout;
    assert!(mtu.contains("mtu 1300"), "{mtu}");
    assert!(h1.exec(["ping", "-c1", "-W1", "10.71.0.254"]).ok(), "the gateway that was chosen");

    // Docker's own addresses would be the same on each host.
    let refused = h1.exec(["docker", "network", "create", "-d", "weft", "other"]);
    assert!(!refused.ok() && refused.stderr.contains("--ipam-driver weft"), "{refused}");
    for (args, word) in [
        (&["--subnet", "10.71.8.0/24", "other"][..], "full"),
        (&["--subnet", "10.72.0.0/31", "other"], "/31"),
        (&["--subnet", "10.72.0.0/16", "--ip-range", "10.72.1.0/24", "other"], "--ip-range"),
        (&["--subnet", "10.72.0.0/16", "--aux-address", "a=10.72.0.9", "other"], "--aux-address"),
        (&["-o", "weft.mtu=9000", "other"], "9000"),
        (&["-o", "weft.speed=9", "other"], "weft.speed"),
    ] {
        let refused = create(h2, args);
        println!("{}: {}", args.join(" "), refused.stderr.trim());
        assert!(!refused.ok() && refused.stderr.contains(word), "{refused}");
    }
    assert!(!has(h1, "other") && !has(h2, "other"));

    // What docker made, docker removes: everywhere, once nobody uses it.
    h1.docker(["rm", "-f", "alpha", "delta"]).unwrap();
    h2.docker(["rm", "-f", "beta"]).unwrap();
    h1.docker(["network", "rm", "app"]).unwrap();
    on_all(&lab, "app is gone", 5.0, |host| !has(host, "app") && state(host, "app") == "none");
    h1.docker(["network", "rm", "full"]).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(state(h1, "full"), "detached", "h2 uses it");
    assert!(has(h2, "full") && c.host.docker(["exec", "gamma", "true"]).is_ok());
    h2.docker(["rm", "-f", "gamma"]).unwrap();
    on_all(&lab, "full is gone", 60.0, |host| !has(host, "full") && state(host, "full") == "none");
    assert!(!h2.exec(["ip", "-br", "link"]).stdout.contains("wft-"), "no bridge is left");
}

#[test]
fn disputed_and_detached_networks() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));

    // One name, two hosts, at once: one network. Three times, since it is a race.
    for round in 0..3 {
        let name = format!("both{round}");
        std::thread::scope(|scope| {
            for host in [h1, h2] {
                let name = &name;
                scope.spawn(move || assert!(create(host, &[name]).ok()));
            }
        });
        on_all(&lab, "one network of two", 5.0, |host| has(host, &name) && state(host, &name) == "here");
        eventually("one range", Duration::from_secs(5), || range(h1, &name) == range(h2, &name));
    }
    let a = Container::run(h1, "alpha", "both0", &[]);
    let b = Container::run(h2, "beta", "both0", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));

    // The same range on two hosts is one network; under another name it is none.
    for host in [h1, h2] {
        assert!(create(host, &["--subnet", "10.73.0.0/24", "fixed"]).ok() || has(host, "fixed"));
    }
    on_all(&lab, "network fixed", 3.0, |host| has(host, "fixed") && range(host, "fixed") == "10.73.0.0/24");
    assert!(create(h2, &["--subnet", "10.73.0.0/24", "alias"]).ok(), "Docker does not tell its name");
    eventually("the alias is removed", Duration::from_secs(5), || !has(h2, "alias"));

    // A network that weft made, removed from Docker: not on this host.
    mesh.network(&["app"]).unwrap();
    h2.docker(["network", "rm", "app"]).unwrap();
    eventually("detached", Duration::from_secs(5), || state(h2, "app") == "detached" && !has(h2, "app"));
    assert!(has(h1, "app"));
    h2.run(["weft", "network", "attach", "app"]).unwrap();
    eventually("attached", Duration::from_secs(5), || has(h2, "app") && state(h2, "app") == "here");
    h2.run(["weft", "network", "detach", "app"]).unwrap();
    eventually("detached", Duration::from_secs(5), || !has(h2, "app"));
    let refused = h1.exec(["weft", "network", "detach", "both0"]);
    assert!(refused.status == 1 && refused.stderr.contains("alpha"), "{refused}");
    mesh.daemons()[1].kill9();
    mesh.restart("h2").unwrap();
    mesh.wait_ready().unwrap();
    assert_eq!(state(h2, "app"), "detached", "a restart does not bring it back");
    assert!(create(h2, &["app"]).ok(), "docker network create does");
    eventually("attached by docker", Duration::from_secs(10), || {
        has(h2, "app") && state(h2, "app") == "here" && range(h1, "app") == range(h2, "app")
    });

    // Without the founder nothing is made, and Docker's own output says why.
    lab.host("h1").kill();
    eventually("the founder is missed", Duration::from_secs(5), || !h2.exec(["weft", "status"]).ok());
    let refused = create(h2, &["late"]);
    println!("without the founder: {}", refused.stderr.trim());
    assert!(!refused.ok() && refused.stderr.contains("h1"), "{refused}");
    assert!(!has(h2, "late"));
}
