//! A member turned bad: its key is good, its messages are not.

use std::net::UdpSocket;

use weft_api::id::{BootId, MeshKey};
use weft_api::roster::{Cipher, MeshRecord, Roles, Standing};
use weft_api::sign::SigningKey;
use weft_router::mesh::Gossip;
use weft_router::session::message::{MAX_MESSAGE_LEN, Message};
use weft_router::session::{Hello, Rekey, Remote, Share};

use super::*;
use crate::quic::frames::STREAM_CONTROL;

struct Nowhere;

impl Persist for Nowhere {
    fn save(&self, _: &[StoredRecord]) -> io::Result<()> {
        Ok(())
    }
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed([n; 32])
}

async fn victim() -> (Node, mpsc::Receiver<NodeEvent>) {
    member(1, Vec::new()).await
}

async fn member(n: u8, dial: Vec<(HostId, SocketAddr)>) -> (Node, mpsc::Receiver<NodeEvent>) {
    let mesh_key = MeshKey(key(100).public());
    let record = |n: u8| RosterRecord {
        mesh: mesh_key.id(),
        key: HostKey(key(n).public()),
        name: format!("h{n}"),
        roles: Roles::default(),
        serial: 1,
        standing: Standing::Member,
        under: weft_api::roster::Under::default(),
    };
    let roster = [1, 2].map(|n| key(100).sign(&record(n))).to_vec();
    let config = NodeConfig {
        host_key: key(n),
        boot: BootId([n; 16]),
        boot_counter: 1,
        mesh: MeshRecord { mesh: mesh_key.id(), name: "m".into(), cipher: Cipher::Aes256Gcm },
        mesh_key,
        listen: ([127, 0, 0, 1], 0).into(),
        limits: Default::default(),
        lanes: 2,
        stored: Stored { roster, ..Stored::default() },
        dial,
    };
    Node::start(config, Box::new(Nowhere)).await.unwrap()
}

async fn bad_member(victim: &Node) -> quinn::Connection {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = endpoint::dial_only(socket).unwrap();
    let config = endpoint::client(&key(2), tls::ALPN_MEMBER).unwrap();
    let address = victim.local_addr().unwrap();
    endpoint.connect_with(config, address, tls::SERVER_NAME).unwrap().await.unwrap()
}

fn hello() -> Vec<u8> {
    let hello =
        Hello { boot: BootId([2; 16]), index: 7, cipher: Cipher::Aes256Gcm, replaces: false, seen: None };
    Message::Hello(hello).encode()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_control_streams_are_closed_by_name() {
    let (node, _events) = victim().await;
    let control = [STREAM_CONTROL].to_vec();
    let too_long = u32::try_from(MAX_MESSAGE_LEN + 1).unwrap().to_be_bytes().to_vec();
    let share = |epoch| Share { epoch, index: 9, public: [0; 32] }; // a point of small order
    let cases = [
        vec![9],
        [&control[..], &hello(), &Message::Rekey(Rekey::Offer(share(2))).encode()].concat(),
        [&control[..], &hello(), &Message::Rekey(Rekey::Offer(share(1))).encode()].concat(),
        [&control[..], &[0xff; 64]].concat(),
        [&control[..], &Message::Mesh(Gossip::Prune).encode()].concat(),
        [&control[..], &hello(), &hello()].concat(),
        [&control[..], &hello(), &too_long].concat(),
        [&control[..], &hello(), &[0, 0, 0, 2, 0xff, 0xff]].concat(),
    ];
    for (n, bytes) in cases.iter().enumerate() {
        let connection = bad_member(&node).await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let why = timeout(Duration::from_secs(3), connection.closed()).await.unwrap();
        let quinn::ConnectionError::ApplicationClosed(close) = why else { panic!("case {n}: {why}") };
        assert_eq!(Why::from_code(close.error_code.into_inner()), Some(Why::Garbled), "case {n}");
    }
    let drops = node.drops();
    let counts = ["stream_unknown", "message_garbled", "rekey_out_of_turn"].map(|label| drops.get(label));
    assert_eq!(counts, [Some(&1), Some(&5), Some(&2)], "{drops:?}");
    assert_eq!(node.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_member_is_given_up() {
    let (node, _events) = victim().await;
    let connection = bad_member(&node).await;
    let why = timeout(Duration::from_secs(5), connection.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(close) = why else { panic!("{why}") };
    assert_eq!(Why::from_code(close.error_code.into_inner()), Some(Why::GivenUp));
    assert!(node.0.engine.lane.tables().receives.is_empty(), "its keys are erased");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_a_kind_or_a_reader_are_refused() {
    let (node, events) = victim().await;
    let connection = bad_member(&node).await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[&[STREAM_CONTROL][..], &hello()].concat()).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[77]).await.unwrap();
    assert!(receive.read_to_end(10).await.is_err());
    drop(events);
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[STREAM_API]).await.unwrap();
    assert!(receive.read_to_end(10).await.is_err());
    let drops = node.drops();
    assert_eq!((drops.get("stream_unknown"), drops.get("agent_busy")), (Some(&1), Some(&1)), "{drops:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn among_many_strangers_a_member_gets_in_by_proving_its_address() {
    let (node, _events) = victim().await;
    let strangers = &node.0.engine.strangers;
    let from = |n: u8| Remote::Udp(([192, 0, n, 1], 1).into());
    let mut crowd: Vec<_> = (0..16).map(|n| strangers.judge(from(n), false)).collect();
    assert!(matches!(strangers.judge(from(99), false), endpoint::Verdict::Retry));
    let connection = bad_member(&node).await;
    assert!(connection.close_reason().is_none(), "through a Retry, whose token holds the virtual address");
    tokio::time::sleep(Duration::from_millis(200)).await; // its own place is free again
    crowd.extend((16..64).map(|n| strangers.judge(from(n), true)));
    let late = timeout(Duration::from_millis(500), bad_member(&node));
    assert!(late.await.is_err(), "no answer");
    assert!(node.drops().contains_key("handshake_limit"));
    drop(crowd);
    bad_member(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_fresh_again_and_again() {
    let (one, _events) = victim().await;
    let me = HostKey(key(1).public()).id();
    let (two, _more_events) = member(2, vec![(me, one.local_addr().unwrap())]).await;
    let both = [&one, &two];
    let indexes = |node: &Node| -> BTreeSet<u32> {
        node.0.engine.lane.tables().sends.values().map(|send| send.index()).collect()
    };
    let (mut seen, mut before): ([BTreeSet<u32>; 2], [BTreeSet<u32>; 2]) = Default::default();
    // Either end begins; how many there may be at a time is bounded, so no more than that are awaited.
    for round in 0..8 {
        timeout(Duration::from_secs(20), async {
            while both.map(indexes).iter().zip(&before).any(|(is, was)| is.is_empty() || is == was) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("both seal with the next key");
        before = both.map(indexes);
        seen.iter_mut().zip(&before).for_each(|(seen, is)| seen.extend(is));
        assert_eq!(both[round % 2].rekey(), 1);
    }
    assert!(seen.iter().all(|s| s.len() == 8), "{seen:?}");
    for node in both {
        let drops = node.drops();
        for label in ["unknown_index", "key_expired", "not_authentic", "replayed", "rekey_out_of_turn"] {
            assert_eq!(drops.get(label), None, "{drops:?}");
        }
        assert!(node.links()[0].key_age.is_some_and(|age| age < 60));
    }
    assert_eq!(both.map(Node::connections), [1, 1], "always the same connection");
}
