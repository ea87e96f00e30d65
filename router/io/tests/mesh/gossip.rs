//! What spreads beyond those who heard it first.

use std::time::Duration;

use weft_api::fact::Item;

use super::lab::{Host, Lab, SOON, id, kill, until, view};

/// Silence of 3.5 s, and the time that the news needs.
const KNOWN: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_is_enough_and_a_death_is_known_to_all() {
    let members = [1, 2, 3, 4, 5];
    let mut lab = Lab::new(&members);
    let addresses = lab.addresses.clone();
    let mut hosts: Vec<Host> = Vec::new();
    for n in members {
        // Whoever comes later is only told where the first one is.
        let all = std::mem::replace(&mut lab.addresses, [1, n].map(|n| (n, addresses[&n])).into());
        hosts.push(lab.start(n).await);
        lab.addresses = all;
        hosts.last().unwrap().node.publish(vec![Item::Address(addresses[&n])]);
    }
    let links = |hosts: &[Host]| hosts.iter().all(|h| h.node.links().iter().all(|l| l.rtt_ms.is_some()));
    let took = until("everybody has met everybody", SOON, || {
        hosts.iter().all(|h| view(h).reachable.len() == members.len()) && links(&hosts)
    });
    println!("five hosts that know one address met in {:?}", took.await);
    for host in &hosts {
        assert!(view(host).through.is_empty(), "links to all");
    }
    kill(hosts.remove(2)).await;
    let known = || hosts.iter().all(|h| !view(h).reachable.contains(&id(3)));
    let took = until("the death is known", KNOWN, known).await;
    println!("a death is known to all after {took:?}");
    assert!(hosts.iter().all(|h| view(h).facts.contains_key(&id(3))), "what it said stays");
}
