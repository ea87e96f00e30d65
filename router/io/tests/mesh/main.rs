//! Whole nodes on loopback: they find each other, agree, survive restarts, and refuse whoever does not belong.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod gossip;
mod joining;
mod lab;
mod relays;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::fact::Item;
use weft_api::id::{HostKey, MeshKey};
use weft_api::report::LinkState;
use weft_api::roster::{Cipher, Standing};
use weft_router_io::node::{Node, NodeEvent, Persist, StoredRecord};

use lab::{Disk, Host, Lab, SOON, all_up, id, key, kill, mesh, record, record_by, until, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_find_each_other_and_agree() {
    let mut lab = Lab::new(&[1, 2, 3]);
    let hosts = lab.start_all().await;
    let took = until("all links up", SOON, || all_up(&hosts)).await;
    println!("three hosts met in {took:?}");

    for (n, host) in (1u8..).zip(&hosts) {
        host.node.publish(vec![Item::Version(format!("v{n}"))]);
    }
    let decision = Decision {
        mesh: mesh().mesh,
        revision: 1,
        signer: HostKey(key(1).public()),
        key: DecisionKey::Controller,
        body: Some(DecisionBody::Controller { host: id(1), addresses: vec![] }),
    };
    hosts[0].node.insert_decisions(vec![key(1).sign(&decision)]);
    let forged = Decision { revision: 2, signer: HostKey(key(2).public()), ..decision.clone() };
    hosts[1].node.insert_decisions(vec![key(2).sign(&forged)]);
    let agree = || {
        hosts.iter().all(|h| {
            let view = view(h);
            view.decisions.get(&DecisionKey::Controller) == Some(&decision)
                && (1..4).all(|n| {
                    view.facts.get(&id(n)).is_some_and(|f| f.items.contain(&Item::Version(format!("v{n}"))))
                })
        })
    };
    let took = until("facts and decision everywhere", SOON, agree).await;
    println!("facts and a decision spread in {took:?}");
    assert_eq!(hosts[1].node.drops().get("decision_not_controllers"), Some(&1));

    hosts[2].node.publish(vec![Item::Version("new".into())]);
    let heard = || view(&hosts[0]).facts[&id(3)].items.contain(&Item::Version("new".into()));
    until("a change spreads", SOON, heard).await;
    assert!(lab.disks[&1].0.lock().unwrap().contains_key(&format!("facts {}", id(3))), "stored");

    tokio::time::sleep(Duration::from_millis(1500)).await;
    for host in &hosts {
        for link in host.node.links() {
            assert_eq!(link.state, LinkState::Up);
            assert_eq!(link.cipher, Some(Cipher::Aes256Gcm));
            let rtt = link.rtt_ms.expect("probes give a round trip");
            assert!(rtt > 0.0 && rtt < 500.0, "{rtt}");
            assert!(link.sent_bytes > 0 && link.received_bytes > 0, "{link:?}");
        }
        let drops = host.node.drops();
        println!("drops: {drops:?}");
        assert!(!drops.contains_key("not_authentic") && !drops.contains_key("message_garbled"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_streams_carry_bytes_both_ways() {
    let mut lab = Lab::new(&[1, 2]);
    let mut hosts = lab.start_all().await;
    until("link up", SOON, || all_up(&hosts)).await;
    let mut asked = hosts[1].node.open_stream(id(1)).await.unwrap();
    let request: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let sent = request.clone();
    let ask = tokio::spawn(async move {
        asked.write_all(&sent).await.unwrap();
        asked.shutdown().await.unwrap();
        let mut answer = Vec::new();
        asked.read_to_end(&mut answer).await.unwrap();
        answer
    });
    let Some(NodeEvent::ApiStream { from, mut stream }) = hosts[0].events.recv().await else { panic!() };
    assert_eq!(from, id(2));
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    stream.write_all(&heard).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(ask.await.unwrap() == request);
    assert!(hosts[1].node.open_stream(id(2)).await.is_err());
    assert!(hosts[1].node.open_stream(id(9)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_host_is_back_soon_after_its_restart() {
    let mut lab = Lab::new(&[1, 2, 3]);
    let mut hosts = lab.start_all().await;
    until("all links up", SOON, || all_up(&hosts)).await;
    for n in [1u8, 3] {
        tokio::time::sleep(Duration::from_millis(1200)).await; // the sessions of before are older than a second
        let at = usize::from(n) - 1;
        let dead = hosts.remove(at);
        kill(dead).await;
        let start = Instant::now();
        let back = lab.start(n).await;
        hosts.insert(at, back);
        // The others must have noticed the new life, not only believe in the old one.
        let both_ways = || {
            let links = hosts[at].node.links();
            let fresh = links.len() == 2 && links.iter().all(|l| l.state == LinkState::Up);
            let others = hosts.iter().filter(|h| h.node.id() != id(n));
            fresh
                && others.into_iter().all(|h| {
                    let link = h.node.links().into_iter().find(|l| l.id == id(n)).unwrap();
                    link.state == LinkState::Up && link.key_age == Some(0)
                })
        };
        until("back", Duration::from_secs(3), both_ways).await;
        println!("h{n} back {:?} after its restart", start.elapsed());
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(all_up(&hosts));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_lost_its_disk_is_believed_again() {
    let mut lab = Lab::new(&[1, 2]);
    lab.boots = 50;
    let mut hosts = lab.start_all().await;
    until("link up", SOON, || all_up(&hosts)).await;
    hosts[1].node.publish(vec![Item::Version("before".into())]);
    let says = |h: &Host, what: &str| {
        view(h).facts.get(&id(2)).is_some_and(|f| f.items.contain(&Item::Version(what.into())))
    };
    until("heard", SOON, || says(&hosts[0], "before")).await;
    kill(hosts.remove(1)).await;
    (lab.boots, lab.disks) = (0, [1, 2].map(|n| (n, Disk::default())).into());
    hosts.push(lab.start(2).await);
    hosts[1].node.publish(vec![Item::Version("after".into())]);
    until("heard again", SOON, || says(&hosts[0], "after") && says(&hosts[1], "after")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_delays_and_loses_nothing() {
    struct Failing(Mutex<u32>, Disk);
    impl Persist for Failing {
        fn save(&self, records: &[StoredRecord]) -> io::Result<()> {
            let mut left = self.0.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return Err(io::Error::other("full"));
            }
            self.1.save(records)
        }
    }
    let mut lab = Lab::new(&[1]);
    let disk = Failing(Mutex::new(2), Disk::default());
    let (node, _events) = Node::start(lab.config(1), Box::new(disk)).await.unwrap();
    node.publish(vec![Item::Version("mine".into())]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(node.view().borrow().facts.is_empty(), "not stored, not said");
    until("stored", SOON, || node.view().borrow().facts.contains_key(&id(1))).await;
    assert_eq!(node.drops().get("disk_refused"), Some(&2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_is_known_at_once() {
    let mut lab = Lab::new(&[1, 2]);
    let mut hosts = lab.start_all().await;
    until("link up", SOON, || all_up(&hosts)).await;
    hosts.remove(0).node.clone().shutdown().await;
    let took = until("down", Duration::from_secs(1), || view(&hosts[0]).reachable.len() == 1).await;
    println!("a goodbye is known after {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_closed_and_refused() {
    let mut lab = Lab::new(&[1, 2, 3]);
    let mut hosts = lab.start_all().await;
    until("all links up", SOON, || all_up(&hosts)).await;
    hosts[2].node.publish(vec![Item::Version("mine".into())]);
    until("its facts are known", SOON, || view(&hosts[0]).facts.contains_key(&id(3))).await;
    hosts[0].node.insert_roster(vec![record(3, 2, Standing::Removed)]);
    let mut third = hosts.remove(2);
    let gone = || hosts.iter().all(|h| !view(h).reachable.contains(&id(3)) && view(h).reachable.len() == 2);
    until("its sessions are closed", SOON, gone).await;
    assert!(!view(&hosts[0]).facts.contains_key(&id(3)), "what it said is forgotten");
    let removed = tokio::time::timeout(SOON, third.events.recv()).await;
    // It hears of it unless its last session was closed before the record came through; then it is refused for ever.
    println!("the removed host heard: {}", matches!(removed, Ok(Some(NodeEvent::Removed))));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(gone());
    let refused = |h: &Host| h.node.drops().get("not_a_member").copied().unwrap_or(0);
    assert!(matches!(removed, Ok(Some(NodeEvent::Removed))) || refused(&hosts[0]) + refused(&hosts[1]) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_junk_change_nothing() {
    let mut lab = Lab::new(&[1, 2]);
    let hosts = lab.start_all().await;
    until("link up", SOON, || all_up(&hosts)).await;
    // A host that believes itself a member, by a roster that another mesh key has signed.
    let mut stranger = Lab::new(&[1, 9]);
    stranger.addresses.insert(1, lab.addresses[&1]);
    let (other, mut config) = (key(200), stranger.config(9));
    config.mesh_key = MeshKey(other.public());
    config.mesh.mesh = config.mesh_key.id();
    config.stored.roster = [1, 9].map(|n| record_by(&other, n, 1, Standing::Member)).to_vec();
    let stranger = stranger.start_as(9, config).await;
    for reason in ["record_of_another_mesh", "not_a_member"] {
        until(reason, SOON, || hosts[0].node.drops().contains_key(reason)).await;
    }

    let junk = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = 1u64;
    for i in 0..3000usize {
        let bytes: Vec<u8> = (0..i % 1400)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 40) as u8
            })
            .collect();
        junk.send_to(&bytes, lab.addresses[&1]).unwrap();
        if i % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let drops = hosts[0].node.drops();
    println!("after junk: {drops:?}");
    for reason in ["unknown_kind", "bare_unknown"] {
        assert!(drops.get(reason).is_some_and(|n| *n > 100), "{reason}: {drops:?}");
    }
    assert!(all_up(&hosts));
    assert_eq!(view(&stranger).reachable.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simultaneous_dials_end_in_one_session() {
    let mut lab = Lab::new(&[1, 2]);
    for _ in 0..5 {
        let hosts = lab.start_all().await;
        until("link up", SOON, || all_up(&hosts)).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(all_up(&hosts));
        for host in &hosts {
            assert_eq!(host.node.connections(), 1);
        }
        for host in hosts {
            let address = host.node.local_addr().unwrap();
            host.node.clone().shutdown().await;
            drop(host);
            until("the port is free", SOON, || UdpSocket::bind(address).is_ok()).await;
        }
    }
}

/// The largest full mesh (PROTOCOL 6), all started at once: every handshake twice, and limits that must not bite members.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_hosts_started_at_once_meet() {
    let mut lab = Lab::new(&(1..=32).collect::<Vec<_>>());
    let start = Instant::now();
    let hosts = lab.start_all().await;
    until("all links up", Duration::from_secs(60), || all_up(&hosts)).await;
    println!("32 hosts met in {:?}", start.elapsed());
    for host in &hosts {
        let drops = host.node.drops();
        assert!(!drops.contains_key("handshake_prefix_limit") && !drops.contains_key("connections_too_many"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_socket_takes_both_families() {
    let mut lab = Lab::new(&[1, 2, 3]);
    let mut hosts = Vec::new();
    for n in [1, 2, 3] {
        let mut config = lab.config(n);
        let port = lab.addresses[&n].port();
        config.listen = if n == 3 { config.listen } else { SocketAddr::from(([0u16; 8], port)) };
        config.dial.clear();
        if n > 1 {
            config.dial.push((id(1), SocketAddr::new(Ipv4Addr::LOCALHOST.into(), lab.addresses[&1].port())));
        }
        if n == 1 {
            config.dial.push((id(2), SocketAddr::new(Ipv6Addr::LOCALHOST.into(), lab.addresses[&2].port())));
        }
        if n == 3 {
            config.dial.push((id(2), SocketAddr::new(Ipv4Addr::LOCALHOST.into(), lab.addresses[&2].port())));
        }
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let starting = runtime.spawn(Node::start(config, Box::new(lab.disks[&n].clone())));
        let (node, events) = starting.await.unwrap().unwrap();
        hosts.push(Host { node, events, runtime: Some(runtime) });
    }
    until("all links up", SOON, || all_up(&hosts)).await;
    let addresses: Vec<_> = hosts.iter().flat_map(|h| h.node.links()).filter_map(|l| l.address).collect();
    println!("{addresses:?}");
    assert!(
        addresses.iter().all(|a| a.ip() == a.ip().to_canonical()),
        "no address is shown in its mapped form"
    );
}
