//! Addresses of other hosts' blocks: asked for by `--ip`, lent, had by nobody else, given back; and blocks that are given back.

use std::time::Duration;

use weft_lab::{Host, Mesh};

use crate::fixture::{Container, eventually, hosts};

const SHORT: Duration = Duration::from_secs(5);
/// A block or lease is given back a minute after its last use, once Docker's list was read.
const RETURNED: Duration = Duration::from_secs(150);

/// What Docker says of a `docker run` that fails; its container is removed.
fn refused(host: &Host, address: &str) -> String {
    let run = ["docker", "run", "--name", "late", "--network", "app", "--ip", address, "busybox", "true"];
    let out = host.exec(run);
    assert!(!out.ok(), "{out}");
    host.docker(["rm", "-f", "late"]).unwrap();
    out.stderr
}

/// A line of `weft network inspect`, in words.
fn inspected(host: &Host, first: &str) -> Option<Vec<String>> {
    let said = host.run(["weft", "network", "inspect", "app"]).unwrap();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    said.lines().map(words).find(|words| words.first().is_some_and(|word| word == first))
}

fn lessee(host: &Host, address: &str) -> Option<String> {
    inspected(host, address).map(|words| words[1].clone())
}

/// How many blocks of four a host holds.
fn blocks(host: &Host, of: &str) -> usize {
    let said = host.run(["weft", "network", "inspect", "app"]).unwrap();
    let block = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.len() == 3 && words[0].contains("/30") && words[1] == of
    };
    said.lines().filter(block).count()
}

fn is_pinned(host: &Host, container: &str) -> bool {
    let said = host.run(["weft", "ps"]).unwrap();
    said.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first() == Some(&container) && words.contains(&"yes")
    })
}

#[test]
fn an_address_of_another_hosts_block_is_lent_and_comes_back() {
    let Some(lab) = hosts(3) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--subnet", "10.40.0.0/16", "--subnet", "fd00:40::/64"]).unwrap();
    let (h1, h2, h3) = (lab.host("h1"), lab.host("h2"), lab.host("h3"));

    // A neighbour of h2's own container, in h2's block of each family.
    let near = Container::run(h2, "near", "app", &[]);
    let (stem, last) = near.v4.rsplit_once('.').unwrap();
    let after = |n: u8| format!("{stem}.{}", last.parse::<u8>().unwrap() + n);
    let wanted = after(1);
    let wanted6 = near.v6.rsplit_once(':').unwrap().0.to_owned() + ":" + &next(&near.v6);
    let lent = Container::run(h3, "lent", "app", &["--ip", &wanted, "--ip6", &wanted6]);
    assert_eq!((&lent.v4, &lent.v6), (&wanted, &wanted6));
    eventually("both ways", SHORT, || near.pings(&wanted) && lent.pings(&near.v4));
    eventually("both ways by IPv6", SHORT, || near.pings(&wanted6) && lent.pings(&near.v6));
    for host in [h1, h2, h3] {
        eventually("the lease everywhere", SHORT, || lessee(host, &wanted).as_deref() == Some("h3"));
        eventually("pinned, everywhere", SHORT, || is_pinned(host, "lent") && !is_pinned(host, "near"));
    }

    // Its holder gives it to nobody, nor lends it twice.
    let beside = Container::run(h2, "beside", "app", &[]);
    assert_ne!(beside.v4, wanted);
    for host in [h1, h2] {
        let said = refused(host, &wanted);
        assert!(said.contains("container lent on h3"), "{said}");
    }
    let said = refused(h3, &near.v4);
    assert!(said.contains("container near on h2"), "{said}");

    // Kept by a container that is stopped, while both daemons die.
    h3.docker(["stop", "-t0", "lent"]).unwrap();
    mesh.daemons()[1].kill9();
    mesh.daemons()[2].kill9();
    mesh.restart("h2").unwrap();
    mesh.restart("h3").unwrap();
    mesh.wait_ready().unwrap();
    let said = refused(h2, &wanted);
    assert!(said.contains("leased to host h3"), "{said}");
    h3.docker(["start", "lent"]).unwrap();
    eventually("the same address again", SHORT, || near.pings(&wanted) && near.pings(&wanted6));

    // Without its holder there is no new one, and the old one stays.
    mesh.daemons()[1].kill9();
    h3.docker(["restart", "-t0", "lent"]).unwrap();
    assert_eq!(Container::of(h3, "lent", "app").v4, wanted);
    let beyond = after(40);
    let said = refused(h3, &beyond);
    assert!(said.contains("host h2's, which") && said.contains("try again"), "{said}");
    mesh.restart("h2").unwrap();
    mesh.wait_ready().unwrap();
    let again = Container::run(h3, "again", "app", &["--ip", &beyond]);
    eventually("once its holder is back", SHORT, || near.pings(&again.v4));

    // By hand, and on a container that runs.
    let by_hand = after(41);
    h1.run(["weft", "expose", "app", "--ip", &by_hand]).unwrap();
    eventually("a host", SHORT, || near.pings(&by_hand));
    let connected = after(42);
    h1.docker(["run", "-d", "--name", "late", "busybox", "sleep", "100000"]).unwrap();
    h1.docker(["network", "connect", "--ip", &connected, "app", "late"]).unwrap();
    eventually("a container that runs", SHORT, || near.pings(&connected));

    // Given back when its container is gone.
    h3.docker(["rm", "-f", "lent"]).unwrap();
    eventually("back at its holder", RETURNED, || {
        lessee(h1, &wanted).is_none() && lessee(h2, &wanted).is_none()
    });
    let home = Container::run(h2, "home", "app", &["--ip", &wanted]);
    assert_eq!(home.v4, wanted);
    eventually("in reach at home", SHORT, || again.pings(&wanted));
}

/// The last group of an IPv6 address, one higher.
fn next(address: &str) -> String {
    let last = address.rsplit_once(':').unwrap().1;
    format!("{:x}", u16::from_str_radix(last, 16).unwrap() + 1)
}

#[test]
fn a_block_that_is_empty_goes_back_and_serves_another_host() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--subnet", "10.41.0.0/24"]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let names: Vec<String> = (0..9).map(|n| format!("c{n}")).collect();
    for name in &names {
        Container::run(h2, name, "app", &[]);
    }
    let fixed = Container::run(h2, "fixed", "app", &["--ip", "10.41.0.130"]);
    h2.docker(["stop", "-t0", "fixed"]).unwrap();
    eventually("several blocks of four", SHORT, || blocks(h1, "h2") >= 4);
    let mut remove = vec!["rm", "-f"];
    remove.extend(names.iter().map(String::as_str));
    h2.docker(remove).unwrap();
    // The hold time begins anew with the process.
    mesh.daemons()[1].kill9();
    mesh.restart("h2").unwrap();
    mesh.wait_ready().unwrap();
    let before = blocks(h1, "h2");
    eventually("only the stopped one's, which has room for more", RETURNED, || blocks(h1, "h2") == 1);
    assert!(before > 1, "{before} blocks before");
    assert_eq!(inspected(h1, "10.41.0.128/30").map(|words| words[1].clone()).as_deref(), Some("h2"));
    h2.docker(["start", "fixed"]).unwrap();
    assert_eq!(Container::of(h2, "fixed", "app").v4, fixed.v4);
    for n in 0..9 {
        Container::run(h1, &format!("d{n}"), "app", &[]);
    }
    let fresh = Container::run(h2, "fresh", "app", &[]);
    let other = Container::of(h1, "d8", "app");
    eventually("both ways", SHORT, || fresh.pings(&other.v4) && other.pings(&fresh.v4));
}
