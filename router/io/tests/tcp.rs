//! Whole nodes on loopback with UDP swallowed between them: they meet over TCP, join over TCP, leave it when UDP passes; and whoever
//! knocks at the TCP port without a key changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weft_api::fact::Item;
use weft_api::id::{BootId, HostId, HostKey, MeshKey, TokenId};
use weft_api::report::{Link, LinkState};
use weft_api::request::Admitted;
use weft_api::roster::{Cipher, MeshRecord, Roles, RosterRecord, Standing};
use weft_api::sign::{Signed, SigningKey};
use weft_api::token::Token;
use weft_router_io::join::join;
use weft_router_io::node::{Node, NodeConfig, NodeEvent, Persist, Stored, StoredRecord};

const SOON: Duration = Duration::from_secs(20);

fn mesh_key() -> SigningKey {
    SigningKey::from_seed([100; 32])
}

fn mesh() -> MeshRecord {
    let mesh = MeshKey(mesh_key().public()).id();
    MeshRecord { mesh, name: "quiet-fox".into(), cipher: Cipher::Aes256Gcm }
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed([n; 32])
}

fn id(n: u8) -> HostId {
    HostKey(key(n).public()).id()
}

fn roster(members: &[u8]) -> Vec<Signed<RosterRecord>> {
    let record = |n: &u8| {
        mesh_key().sign(&RosterRecord {
            mesh: mesh().mesh,
            key: HostKey(key(*n).public()),
            name: format!("h{n}"),
            roles: Roles { founder: *n == 1, controller: *n == 1, signer: *n == 1 },
            serial: 1,
            standing: Standing::Member,
            under: weft_api::roster::Under::default(),
        })
    };
    members.iter().map(record).collect()
}

struct NoDisk;

impl Persist for NoDisk {
    fn save(&self, _: &[StoredRecord]) -> io::Result<()> {
        Ok(())
    }
}

async fn start(n: u8, dial: Vec<(HostId, SocketAddr)>) -> (Node, mpsc::Receiver<NodeEvent>) {
    let config = NodeConfig {
        host_key: key(n),
        boot: BootId([n; 16]),
        boot_counter: 1,
        mesh: mesh(),
        mesh_key: MeshKey(mesh_key().public()),
        listen: "127.0.0.1:0".parse().unwrap(),
        limits: Default::default(),
        lanes: 2,
        stored: Stored { roster: roster(&[1, 2]), ..Stored::default() },
        dial,
    };
    Node::start(config, Box::new(NoDisk)).await.unwrap()
}

/// A way to `to` that swallows UDP and passes TCP. The socket keeps the port from anybody else.
async fn without_udp(to: SocketAddr) -> (SocketAddr, UdpSocket) {
    let (listener, swallows) = loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
            break (listener, socket);
        }
    };
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (address, swallows)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "not after {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

fn link(node: &Node) -> Link {
    node.links().remove(0)
}

fn up_by(node: &Node, transport: &str) -> bool {
    node.links().iter().any(|link| link.state == LinkState::Up && link.transport == transport)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_meet_over_tcp_and_leave_it_for_udp() {
    let (one, mut events) = start(1, vec![]).await;
    let (way, _swallows) = without_udp(one.local_addr().unwrap()).await;
    let (two, _events) = start(2, vec![(id(1), way)]).await;
    let took = until("up over TCP", || up_by(&one, "tcp") && up_by(&two, "tcp")).await;
    println!("over TCP after {took:?}");
    assert_eq!(link(&two).address, Some(way));

    let mut asked = two.open_stream(id(1)).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| i as u8).collect();
    let copy = sent.clone();
    let asking = tokio::spawn(async move {
        asked.write_all(&copy).await.unwrap();
        asked.shutdown().await.unwrap();
        let mut answer = Vec::new();
        asked.read_to_end(&mut answer).await.unwrap();
        answer
    });
    let Some(NodeEvent::ApiStream { mut stream, .. }) = events.recv().await else { panic!() };
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    stream.write_all(&heard).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(asking.await.unwrap() == sent, "megabytes come back as they went");
    assert!(up_by(&two, "tcp"));

    one.publish(vec![Item::Address(one.local_addr().unwrap())]);
    let took = until("up over UDP", || up_by(&one, "udp") && up_by(&two, "udp")).await;
    println!("over UDP {took:?} after its address is known");
    for node in [one, two] {
        let drops = node.drops();
        // A full queue drops, and QUIC sends it again.
        let wrong = drops.keys().find(|k| k.starts_with("stream") && *k != "stream_queue_full");
        assert_eq!(wrong, None, "{drops:?}");
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_joins_over_tcp() {
    let (one, mut events) = start(1, vec![]).await;
    let (way, _swallows) = without_udp(one.local_addr().unwrap()).await;
    let serving = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let NodeEvent::Join { reply, .. } = event else { continue };
            reply
                .send(Ok(Admitted {
                    mesh: mesh_key().sign(&mesh()),
                    successions: Vec::new(),
                    roster: roster(&[1, 2]),
                }))
                .unwrap();
        }
    });
    let token = Token { id: TokenId([0; 16]), seed: [3; 32], mesh: mesh().mesh };
    let joined = join(way, &token, &key(2), "h2").await.unwrap();
    assert_eq!((joined.own.name.as_str(), joined.member.name.as_str()), ("h2", "h1"));
    assert_eq!(joined.transport, "TCP");
    serving.abort();
    one.shutdown().await;
}

/// What strangers do at the port, and what each is counted as.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_the_tcp_port_change_nothing() {
    let (one, _one) = start(1, vec![]).await;
    let (two, _two) = start(2, vec![(id(1), one.local_addr().unwrap())]).await;
    until("up", || up_by(&one, "udp") && up_by(&two, "udp")).await;
    let port = one.local_addr().unwrap();
    let counted = |reason: &str| one.drops().get(reason).copied().unwrap_or(0);

    let preface = b"weft\x01\0\0\0";
    let cases: [(&str, Vec<u8>); 4] = [
        ("stream_foreign", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("stream_foreign", b"weft\x02\0\0\0".to_vec()),
        ("stream_garbled", [&preface[..], &[0, 0]].concat()),
        ("stream_unproven", [&preface[..], &[4, 0].repeat(40_000)].concat()),
    ];
    for (reason, bytes) in cases {
        let before = counted(reason);
        let mut stranger = TcpStream::connect(port).await.unwrap();
        let _ = stranger.write_all(&bytes).await; // It may be closed already.
        until(reason, || counted(reason) == before + 1).await;
        let mut heard = Vec::new();
        let _ = stranger.read_to_end(&mut heard).await;
        assert!(heard.is_empty(), "{reason}: not a byte for a stranger");
    }

    // Four that are silent or speak slowly keep out others of their address, for two seconds; a thousand more are closed at once.
    let mut slow = Vec::new();
    for n in 0..4_usize {
        let mut stranger = TcpStream::connect(port).await.unwrap();
        stranger.write_all(&preface[..n]).await.unwrap();
        slow.push(stranger);
    }
    let many: BTreeMap<usize, TcpStream> = {
        let mut many = BTreeMap::new();
        for n in 0..1000 {
            many.insert(n, TcpStream::connect(port).await.unwrap());
        }
        many
    };
    until("the silent are closed", || counted("stream_silent") >= 4).await;
    until("the many are closed", || counted("stream_address_limit") + counted("stream_silent") >= 1004).await;
    assert!(counted("stream_address_limit") >= 900, "{:?}", one.drops());
    drop((slow, many));

    // One that says the preface and then nothing.
    let before = counted("stream_unproven");
    let mut quiet = TcpStream::connect(port).await.unwrap();
    quiet.write_all(preface).await.unwrap();
    until("the unproven is closed", || counted("stream_unproven") == before + 1).await;
    assert!(up_by(&one, "udp") && up_by(&two, "udp"));
}
