//! The stage for a member turned bad: three hosts with a container each; on h2 `weft up` has ended, and the attacker has its key
//! and a session with h1. A container of h1 talks with one of h3 all the while.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use weft_api::id::{HostKey, NetworkId};
use weft_api::roster::MeshRecord;
use weft_api::sign::SigningKey;
use weft_lab::{Host, Lab, Mesh};

use crate::attacker::{Attacker, Size};
use crate::fixture::{Container, deadline, eventually};

/// What an attack needs.
pub struct Stage<'a> {
    /// The victim.
    pub host: &'a Host,
    pub attacker: Attacker,
    pub network: NetworkId,
    /// Containers of the victim, of the attacker's own host and of the third.
    pub victim: Container<'a>,
    pub own: Container<'a>,
    pub third: Container<'a>,
    /// The attacker's key and mesh.
    pub key: SigningKey,
    pub mesh: MeshRecord,
    /// Where the attacker's host said that it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// Keys of the victim, which decides, and of the third host.
    pub victim_key: HostKey,
    pub third_key: HostKey,
}

impl Stage<'_> {
    /// Sets it, lets `attack` play, and asserts that the victim is what it was, that its containers were not disturbed, and
    /// that the attacker's host is a good member again once its own `weft up` runs.
    pub fn set(attack: impl FnOnce(&mut Stage<'_>)) {
        let lab = Lab::builder().hosts(3).up().unwrap();
        let mut mesh = Mesh::up(&lab, &[]).unwrap();
        mesh.network(&["app", "--ipv6"]).unwrap();
        let [h1, h2, h3] = ["h1", "h2", "h3"].map(|name| lab.host(name));
        let victim = Container::run(h1, "alpha", "app", &[]);
        let own = Container::run(h2, "mallory", "app", &[]);
        let third = Container::run(h3, "gamma", "app", &[]);
        eventually("ping", Duration::from_secs(5), || own.pings(&victim.v4) && victim.pings(&third.v4));
        let pid = mesh.daemons()[0].pid;
        mesh.daemons()[1].kill9();

        let mut serve = third.traffic_daemon(&["tcp-serve", &third.v4, "7003"]);
        let short = ["tcp-short", &third.v4, "7003", "1"];
        eventually("the echo", Duration::from_secs(5), || victim.try_traffic(&short).ok());
        let mut beat = victim.traffic_daemon(&["tcp-beat", &third.v4, "7003", "25"]);

        let command = h2.command([env!("CARGO_BIN_EXE_member"), "/var/lib/weft", "192.0.2.1:6783"]).unwrap();
        let mut attacker = Attacker::start(command);
        attacker.obey("fresh");
        let networks = json(h1, &["network", "ls"]);
        let hosts = json(h1, &["hosts"]);
        let reached = hosts.as_array().unwrap().iter().find(|h| h["name"] == "h2").unwrap();
        let file = |host: &Host, name: &str| {
            std::fs::read_to_string(host.on_disk("/var/lib/weft").join(name)).unwrap()
        };
        let identity = |host: &Host| serde_json::from_str::<Value>(&file(host, "mesh.json")).unwrap();
        let public = |host: &Host| serde_json::from_value(identity(host)["key"].clone()).unwrap();
        let mut stage = Stage {
            host: h1,
            attacker,
            network: serde_json::from_value(networks[0]["id"].clone()).unwrap(),
            victim,
            own,
            third,
            key: SigningKey::from_seed(file(h2, "host.key").trim().parse::<HostKey>().unwrap().0),
            mesh: serde_json::from_value(identity(h2)["mesh"].clone()).unwrap(),
            addresses: serde_json::from_value(reached["addresses"].clone()).unwrap(),
            victim_key: public(h1),
            third_key: public(h3),
        };
        let size = Size::of(h1, pid);
        attack(&mut stage);
        size.assert_same(h1);
        let Stage { attacker, victim, own, third, .. } = stage;
        drop(attacker);

        assert!(victim.pings(&third.v4), "the containers still talk");
        assert_eq!(beat.wait(Duration::from_secs(60)), Some(0), "{}", beat.log_text());
        let said = beat.log_text();
        println!("TCP between the others meanwhile: {}", said.trim());
        let gap = said.split_whitespace().rev().nth(1).and_then(|ms| ms.parse().ok());
        assert!(gap.map(Duration::from_millis).is_some_and(|gap| gap < deadline(2.0)), "{said}");
        serve.kill9();
        mesh.restart("h2").unwrap();
        mesh.wait_ready().unwrap();
        eventually("the attacker's host as a good member", Duration::from_secs(10), || own.pings(&victim.v4));
    }
}

fn json(host: &Host, args: &[&str]) -> Value {
    let said = host.run(["weft"].iter().chain(args).chain(&["--json"])).unwrap();
    serde_json::from_str(&said).unwrap()
}
