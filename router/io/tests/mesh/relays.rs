//! Hosts that reach each other only through others: handshakes, control streams and frames go all the way.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_api::fact::Item;
use weft_router_io::node::NodeEvent;

use super::lab::{Lab, SOON, all_up, id, until, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_row_everybody_is_reached_through_the_others() {
    let mut lab = Lab::new(&[1, 2, 3, 4]);
    lab.apart = [(1, 3), (1, 4), (2, 4)].into();
    let mut hosts = lab.start_all().await;
    for host in &hosts {
        host.node.publish(vec![Item::Version("v1".into())]);
    }
    let took = until("all links up", 3 * SOON, || all_up(&hosts)).await;
    println!("four in a row met in {took:?}");

    hosts[3].node.publish(vec![Item::Version("from afar".into())]);
    until("a fact comes through", SOON, || {
        view(&hosts[0]).facts.get(&id(4)).is_some_and(|f| f.items.contain(&Item::Version("from afar".into())))
    })
    .await;

    let mut stream = hosts[0].node.open_stream(id(4)).await.unwrap();
    let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move {
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        }
    });
    let event = tokio::time::timeout(SOON, hosts[3].events.recv()).await.unwrap().unwrap();
    let NodeEvent::ApiStream { from, mut stream } = event else { panic!("{event:?}") };
    assert_eq!(from, id(1));
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert!(got == sent);
    drop(writing.await.unwrap());

    let drops = hosts[1].node.drops();
    for reason in ["relay_stranger", "relay_nested", "relay_garbled", "relay_limit"] {
        assert_eq!(drops.get(reason), None, "{drops:?}");
    }
    // Each hears from the others where it is seen, and says so: in the end no relay is needed.
    let direct = || hosts.iter().all(|h| h.node.links().iter().all(|l| l.address.is_some()));
    until("all links are direct", 3 * SOON, direct).await;
}
