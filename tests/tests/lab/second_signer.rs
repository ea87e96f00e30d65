//! The mesh key on a second host: while the founder is away hosts join and are removed through it, and the founder takes that over.

use std::time::Duration;

use serde_json::Value;
use weft_lab::Host;

use crate::fixture::{Container, eventually, hosts, with_app};

pub const PASSPHRASE: &str = "/run/passphrase";
pub const KEY: &str = "/run/mesh.key";

#[test]
fn hosts_join_and_go_while_the_founder_is_away() {
    let Some(lab) = hosts(3) else { return };
    let mut mesh = with_app(&lab);
    let [h1, h2, h3] = ["h1", "h2", "h3"].map(|name| lab.host(name));
    let c = Container::run(h3, "gamma", "app", &[]);
    carry_the_key(h1, h2);
    refusals(h2, h3);

    mesh.daemons()[1].signal(weft_lab::Signal::TERM);
    assert!(mesh.daemons()[1].wait(Duration::from_secs(10)).is_some());
    let wrong = h2.feed(
        ["sh", "-c", "cat > /run/wrong && weft mesh key import /run/mesh.key --passphrase-file /run/wrong"],
        b"not the passphrase",
    );
    assert!(wrong.unwrap_err().to_string().contains("passphrase is wrong"));
    h2.run(["weft", "mesh", "key", "import", KEY, "--passphrase-file", PASSPHRASE]).unwrap();
    mesh.restart("h2").unwrap();
    mesh.wait_ready().unwrap();
    eventually("h1 knows that h2 signs", Duration::from_secs(5), || {
        hosts_by(h1).iter().any(|h| h["name"] == "h2" && h["signer"] == true && h["controller"] == false)
    });
    let of_the_founder = h1.run(["weft", "token", "new", "--quiet"]).unwrap();

    mesh.daemons()[0].kill9();
    eventually("the founder is known to be away", Duration::from_secs(8), || !reachable(h2, "h1"));
    let token = h2.run(["weft", "token", "new", "--quiet"]).unwrap();
    h2.run(["weft", "host", "rm", "h3"]).unwrap();
    eventually("h3 is gone", Duration::from_secs(10), || !names(h2).contains(&"h3".to_owned()));
    let none = h2.exec(["weft", "network", "create", "other"]);
    assert!(!none.ok() && none.stderr.contains("h1 decides for this mesh"), "{none}");
    h3.docker(["rm", "-f", &c.name]).unwrap();
    h3.run(["weft", "leave", "--force"]).unwrap();
    eventually("the daemon of h3 has ended", Duration::from_secs(10), || mesh.daemons()[2].ended().is_some());

    let at = h2.addr().to_string();
    let early = h3.exec(["weft", "join", &at, "--token", of_the_founder.trim(), "--name", "h4"]);
    assert!(!early.ok() && early.stderr.contains("h1 decides for this mesh"), "{early}");
    h3.run(["weft", "join", &at, "--token", token.trim(), "--name", "h4"]).unwrap();
    mesh.restart("h3").unwrap();
    eventually("h4 is a member", Duration::from_secs(10), || reachable(h2, "h4"));

    mesh.restart("h1").unwrap();
    mesh.wait_ready().unwrap();
    eventually("the founder knows", Duration::from_secs(10), || {
        names(h1) == ["h1", "h2", "h4"] && reachable(h1, "h4")
    });
    eventually("the network is on h4", Duration::from_secs(20), || {
        h3.exec(["docker", "network", "inspect", "app"]).ok()
    });
    let a = Container::run(h1, "alpha", "app", &[]);
    let d = Container::run(h3, "delta", "app", &[]);
    eventually("ping", Duration::from_secs(10), || a.pings(&d.v4));
    h1.run(["weft", "host", "rm", "h2"]).unwrap();
    eventually("a signer can be removed", Duration::from_secs(10), || names(h3) == ["h1", "h4"]);
}

/// The file and its passphrase, as a person would carry them.
pub fn carry_the_key(from: &Host, to: &Host) {
    for host in [from, to] {
        host.feed(["sh", "-c", "cat > /run/passphrase"], b"correct horse battery\n").unwrap();
    }
    from.run(["weft", "mesh", "key", "export", KEY, "--passphrase-file", PASSPHRASE]).unwrap();
    let mode = from.run(["stat", "-c", "%a", KEY]).unwrap();
    assert_eq!(mode.trim(), "600");
    let again = from.exec(["weft", "mesh", "key", "export", KEY, "--passphrase-file", PASSPHRASE]);
    assert!(!again.ok() && again.stderr.contains(KEY), "nothing is overwritten: {again}");
    let sealed = from.run(["cat", KEY]).unwrap();
    to.feed(["sh", "-c", "umask 077; cat > /run/mesh.key"], format!("{sealed}\n").as_bytes()).unwrap();
}

/// Each is one sentence, and changes nothing.
fn refusals(h2: &Host, h3: &Host) {
    let refused = |host: &Host, argv: &[&str], wanted: &str| {
        let out = host.exec(argv.iter().copied());
        assert!(!out.ok() && out.stderr.contains(wanted), "{argv:?}: {out}");
    };
    let import = |file, passphrase| ["weft", "mesh", "key", "import", file, "--passphrase-file", passphrase];
    refused(h2, &import(KEY, PASSPHRASE), "weft up is running");
    refused(h2, &import("/run/nothing", PASSPHRASE), "/run/nothing");
    refused(
        h3,
        &["weft", "mesh", "key", "export", "/run/x", "--passphrase-file", "/etc/hostname"],
        "does not hold",
    );
}

fn names(host: &Host) -> Vec<String> {
    let mut names: Vec<String> =
        hosts_by(host).iter().map(|h| h["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn reachable(host: &Host, name: &str) -> bool {
    hosts_by(host).iter().any(|h| h["name"] == name && h["reachable"] == true)
}

fn hosts_by(host: &Host) -> Vec<Value> {
    serde_json::from_str(&host.run(["weft", "hosts", "--json"]).unwrap()).unwrap()
}
