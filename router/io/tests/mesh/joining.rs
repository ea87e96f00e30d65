//! How a host becomes a member, and what it hears when it does not.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{MeshKey, TokenId};
use weft_api::request::Admitted;
use weft_api::token::Token;
use weft_router_io::join::{JoinError, join};
use weft_router_io::node::{Node, NodeEvent, StartError};

use super::lab::{Disk, Lab, SOON, address, all_up, id, key, mesh, mesh_key, roster, until, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_needs_a_free_port_and_membership() {
    let mut lab = Lab::new(&[1]);
    let taken = UdpSocket::bind(lab.addresses[&1]).unwrap();
    let config = lab.config(1);
    let error = Node::start(config, Box::new(Disk::default())).await.err().unwrap();
    assert!(matches!(error, StartError::PortTaken { .. }), "{error}");
    drop(taken);
    let mut config = lab.config(1);
    config.stored.roster = roster(&[2]);
    let error = Node::start(config, Box::new(Disk::default())).await.err().unwrap();
    assert!(matches!(error, StartError::NotAMember { .. }), "{error}");
    let mut config = lab.config(1);
    config.mesh_key = MeshKey([7; 32]);
    let error = Node::start(config, Box::new(Disk::default())).await.err().unwrap();
    assert!(matches!(error, StartError::WrongMeshKey), "{error}");
}

fn token(mesh: [u8; 32]) -> Token {
    Token { id: TokenId([5; 16]), seed: [6; 32], mesh: weft_api::id::MeshId(mesh) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_joins_and_then_meets_everybody() {
    let mut lab = Lab::new(&[1, 2]);
    let mut hosts = lab.start_all().await;
    until("link up", SOON, || all_up(&hosts)).await;
    let good = token(mesh().mesh.0);
    // Member 2 is asked; its agent passes the wish on: here to the test.
    let mut door = hosts.pop().unwrap();
    let signer = hosts[0].node.clone();
    let serving = tokio::spawn(async move {
        while let Some(event) = door.events.recv().await {
            let NodeEvent::Join { wish, reply } = event else { continue };
            let wish = wish.verify(&token(mesh().mesh.0).key().public()).unwrap();
            let answer = match wish.name.as_str() {
                "h4" => {
                    signer.insert_roster(roster(&[4]));
                    Ok(Admitted {
                        mesh: mesh_key().sign(&mesh()),
                        successions: Vec::new(),
                        roster: roster(&[1, 2, 4]),
                    })
                }
                "forger" => {
                    Ok(Admitted { mesh: key(9).sign(&mesh()), successions: Vec::new(), roster: roster(&[4]) })
                }
                "nobody" => Ok(Admitted {
                    mesh: mesh_key().sign(&mesh()),
                    successions: Vec::new(),
                    roster: roster(&[1, 2]),
                }),
                name => Err(ApiError::new(ErrorKind::Conflict, format!("name {name} taken"))),
            };
            reply.send(answer).unwrap();
        }
    });
    let at = lab.addresses[&2];
    let taken = join(at, &good, &key(4), "h1").await.err().unwrap();
    assert!(matches!(&taken, JoinError::Refused(e) if e.message == "name h1 taken"), "{taken}");
    let wrong = join(at, &token([1; 32]), &key(4), "h4").await.err().unwrap();
    assert!(matches!(wrong, JoinError::WrongMesh { .. }), "{wrong}");
    for name in ["forger", "nobody"] {
        let bad = join(at, &good, &key(4), name).await.err().unwrap();
        assert!(matches!(bad, JoinError::BadAnswer { .. }), "{bad}");
    }
    let joined = join(at, &good, &key(4), "h4").await.unwrap();
    assert_eq!((joined.own.name.as_str(), joined.member.name.as_str()), ("h4", "h2"));
    assert!(joined.rtt > Duration::ZERO);

    lab.members = vec![1, 2, 4];
    lab.addresses.insert(4, address(4));
    lab.disks.insert(4, Disk::default());
    let newcomer = lab.start(4).await;
    let took = until("met", SOON, || view(&newcomer).reachable.len() == 3).await;
    println!("a new member met everybody in {took:?}");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_is_let_in_by_a_member_that_has_not_heard_of_it() {
    let mut lab = Lab::new(&[1]);
    let member = lab.start(1).await;
    lab.members = vec![1, 4];
    lab.addresses.insert(4, address(4));
    lab.disks.insert(4, Disk::default());
    let newcomer = lab.start(4).await;
    let took = until("met", SOON, || view(&newcomer).reachable.len() == 2).await;
    println!("let in after {took:?}");
    until("known", SOON, || view(&member).roster.contains_key(&id(4))).await;
    assert!(!member.node.drops().contains_key("not_a_member"), "{:?}", member.node.drops());
    let kept = lab.disks[&1].0.lock().unwrap().contains_key(&format!("roster {}", id(4)));
    assert!(kept, "and it lies on the disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_says_what_is_wrong() {
    let good = token(mesh().mesh.0);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = Instant::now();
    let error = join(silent.local_addr().unwrap(), &good, &key(4), "h4").await.err().unwrap();
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(12));
    println!("{error}");

    // The agent does not answer.
    let mut lab = Lab::new(&[1]);
    let mut host = lab.start(1).await;
    let answer = tokio::spawn(async move {
        let Some(NodeEvent::Join { reply, .. }) = host.events.recv().await else { panic!() };
        drop(reply);
        host
    });
    let error = join(lab.addresses[&1], &good, &key(4), "h4").await.err().unwrap();
    assert!(matches!(&error, JoinError::Refused(e) if e.kind == ErrorKind::Unavailable), "{error}");
    println!("{error}");
    drop(answer.await.unwrap());
}
