//! Random commands of several hosts: whatever they ask for, and in whatever order, the promises hold after every event.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use proptest::prelude::*;
use weft_api::decision::DecisionBody;
use weft_api::id::{HostId, HostKey, MeshId, NetworkId, TokenId};
use weft_api::request::{CreateNetwork, Goodbye, WantBlock};
use weft_api::roster::{Cipher, MeshRecord, Standing};
use weft_api::sign::SigningKey;
use weft_api::token::JoinWish;
use weft_controller_state::{Command, Event, Observed, State, World};
use weft_ipam::{block, range};

const MESH: MeshId = MeshId([9; 32]);
const HOSTS: u8 = 6;
const TOKENS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    NewToken {
        token: u8,
        once: bool,
        valid: u64,
    },
    RemoveToken {
        token: u8,
    },
    Join {
        token: u8,
        host: u8,
    },
    RemoveHost {
        host: u8,
    },
    Goodbye {
        host: u8,
    },
    Create {
        name: u8,
        range: usize,
        ipv6: bool,
    },
    RemoveNetwork {
        name: u8,
    },
    /// `forgetful`: the host has not heard the last answer.
    Block {
        host: u8,
        network: prop::sample::Index,
        forgetful: bool,
    },
    Observe {
        host: u8,
        route: usize,
        containers: usize,
    },
    Wait {
        secs: u64,
    },
}

const RANGES: [&str; 7] =
    ["", "10.40.0.0/16", "10.40.7.0/24", "10.40.7.0/30", "10.0.0.0/8", "fd00:1::/64", "192.168.1.0/29"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..TOKENS, any::<bool>(), 0u64..200).prop_map(|(token, once, valid)| Step::NewToken { token, once, valid }),
        1 => (0..TOKENS).prop_map(|token| Step::RemoveToken { token }),
        6 => (0..TOKENS, 1..HOSTS).prop_map(|(token, host)| Step::Join { token, host }),
        1 => (0..HOSTS).prop_map(|host| Step::RemoveHost { host }),
        1 => (0..HOSTS).prop_map(|host| Step::Goodbye { host }),
        4 => (0..4u8, 0..RANGES.len(), any::<bool>())
            .prop_map(|(name, range, ipv6)| Step::Create { name, range, ipv6 }),
        1 => (0..4u8).prop_map(|name| Step::RemoveNetwork { name }),
        12 => (0..HOSTS, any::<prop::sample::Index>(), prop::bool::weighted(0.2))
            .prop_map(|(host, network, forgetful)| Step::Block { host, network, forgetful }),
        2 => (0..HOSTS, 0..RANGES.len(), 0usize..3)
            .prop_map(|(host, route, containers)| Step::Observe { host, route, containers }),
        1 => (0u64..100).prop_map(|secs| Step::Wait { secs }),
    ]
}

fn host(n: u8) -> SigningKey {
    SigningKey::from_seed([n + 1; 32])
}

fn host_key(n: u8) -> HostKey {
    HostKey(host(n).public())
}

fn host_id(n: u8) -> HostId {
    host_key(n).id()
}

fn token_key(n: u8) -> SigningKey {
    SigningKey::from_seed([100 + n; 32])
}

fn founded() -> (State, Vec<Event>) {
    let command = Command::Found {
        mesh: MeshRecord { mesh: MESH, name: "quiet-fox".into(), cipher: Cipher::Aes256Gcm },
        key: host_key(0),
        name: "h0".into(),
        addresses: vec!["192.0.2.1:6783".parse().unwrap()],
    };
    let mut state = State::default();
    let events = state.decide(&World::default(), command).unwrap();
    events.iter().for_each(|event| state.apply(event));
    (state, events)
}

fn command(step: &Step, state: &State, world: &mut World) -> Option<Command> {
    Some(match step {
        Step::NewToken { token, once, valid } => Command::NewToken {
            id: TokenId([*token; 16]),
            key: token_key(*token).public(),
            once: *once,
            valid_secs: Some(*valid),
        },
        Step::RemoveToken { token } => Command::RemoveToken { id: TokenId([*token; 16]).to_string() },
        Step::Join { token, host } => Command::Join {
            wish: token_key(*token).sign(&JoinWish {
                mesh: MESH,
                token: TokenId([*token; 16]),
                key: host_key(*host),
                name: format!("h{host}"),
            }),
        },
        Step::RemoveHost { host } => Command::RemoveHost { name: format!("h{host}") },
        Step::Goodbye { host: n } => {
            Command::Goodbye { goodbye: host(*n).sign(&Goodbye { key: host_key(*n), mesh: MESH }) }
        }
        Step::Create { name, range, ipv6 } => Command::CreateNetwork(CreateNetwork {
            name: format!("n{name}"),
            subnets: RANGES[*range].parse().into_iter().collect(),
            ipv6: *ipv6,
            ..CreateNetwork::default()
        }),
        Step::RemoveNetwork { name } => Command::RemoveNetwork { name: format!("n{name}") },
        Step::Block { host, network, forgetful } => {
            let ranges: Vec<(NetworkId, IpNet)> =
                state.networks().flat_map(|n| n.subnets.iter().map(|s| (n.id, s.range))).collect();
            let (network, range) = *ranges.get(network.index(ranges.len().max(1)))?;
            let mut have: Vec<IpNet> = state.blocks_of(network, range, host_id(*host)).collect();
            if *forgetful {
                have.pop();
            }
            Command::GrantBlock {
                host: host_id(*host),
                want: WantBlock { network, range, have, address: None },
            }
        }
        Step::Observe { host, route, containers } => {
            let endpoints: BTreeMap<NetworkId, usize> =
                state.networks().take(1).map(|network| (network.id, *containers)).collect();
            let routes = RANGES[*route].parse().into_iter().collect();
            world.hosts.insert(host_id(*host), Observed { routes, endpoints });
            return None;
        }
        Step::Wait { secs } => {
            world.now += secs;
            return None;
        }
    })
}

fn check(state: &State) -> Result<(), TestCaseError> {
    let ranges: Vec<IpNet> = state.networks().flat_map(|n| n.subnets.iter().map(|s| s.range)).collect();
    for (i, one) in ranges.iter().enumerate() {
        prop_assert!(ranges[i + 1..].iter().all(|other| !range::overlap(*one, *other)), "{ranges:?}");
    }
    for network in state.networks() {
        prop_assert_ne!(network.id.0, 0);
        let blocks: Vec<(IpNet, HostId)> = state.blocks(network.id).collect();
        for (i, (one, owner)) in blocks.iter().enumerate() {
            prop_assert!(
                network.subnets.iter().any(|s| block::is_block_of(s.range, *one)),
                "{one} is outside"
            );
            prop_assert!(state.member(*owner).is_some(), "{one} is held by who is gone");
            prop_assert!(
                blocks[i + 1..].iter().all(|(other, _)| !range::overlap(*one, *other)),
                "{blocks:?}"
            );
        }
    }
    for (_, decided) in state.decisions() {
        prop_assert!(decided.revision <= state.revision());
    }
    for token in state.tokens().filter(|token| token.once) {
        prop_assert!(token.used_by.len() <= 1);
    }
    let names: Vec<&str> = state.members().map(|r| r.name.as_str()).collect();
    prop_assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_hold(steps in prop::collection::vec(step(), 1..120)) {
        let (mut state, mut history) = founded();
        let mut world = World { now: 1_000_000, ..World::default() };
        let mut ids = BTreeSet::new();
        for step in &steps {
            let Some(command) = command(step, &state, &mut world) else { continue };
            let revision = state.revision();
            match state.decide(&world, command.clone()) {
                Err(refusal) => prop_assert!(refusal.to_string().contains(": "), "no advice: {refusal}"),
                Ok(events) => {
                    let mut last = revision;
                    for event in &events {
                        if let Event::Decided { revision, body, .. } = event {
                            prop_assert_eq!(*revision, last + 1);
                            last = *revision;
                            if let Some(DecisionBody::Network(network)) = body {
                                prop_assert!(ids.insert(network.id), "{} is used again", network.id);
                            }
                        }
                        if let Event::Enrolled(record) = event {
                            let before = state.record(&record.key);
                            prop_assert!(before.is_none_or(|b| b.standing == Standing::Member && b.serial < record.serial));
                        }
                        state.apply(event);
                    }
                    // Asked again, the same thing changes nothing, or is refused because it is there.
                    if matches!(step, Step::Join { .. } | Step::Block { .. } | Step::Goodbye { .. }) {
                        prop_assert_eq!(state.decide(&world, command).unwrap_or_default(), []);
                    }
                    history.extend(events);
                    check(&state)?;
                }
            }
        }
        let mut replayed = State::default();
        history.iter().for_each(|event| replayed.apply(event));
        prop_assert_eq!(&replayed, &state);
        let stored = serde_json::to_vec(&(&state, &history)).unwrap();
        let (read, events): (State, Vec<Event>) = serde_json::from_slice(&stored).unwrap();
        prop_assert_eq!(&read, &state);
        prop_assert_eq!(&events, &history);
    }

    /// A store from before some events hears what the mesh says in its name, and is where it was.
    #[test]
    fn a_restored_backup_catches_up(steps in prop::collection::vec(step(), 1..80), at in any::<prop::sample::Index>()) {
        let (mut state, _) = founded();
        let mut world = World { now: 1_000_000, ..World::default() };
        let mut backups = vec![state.clone()];
        for step in &steps {
            let Some(command) = command(step, &state, &mut world) else { continue };
            for event in state.decide(&world, command).unwrap_or_default() {
                state.apply(&event);
            }
            backups.push(state.clone());
        }
        let mut backup = at.get(&backups).clone();
        let hear = Command::Hear {
            roster: state.roster().cloned().collect(),
            decisions: state.decisions().map(|(key, decided)| weft_api::decision::Decision {
                mesh: MESH,
                revision: decided.revision,
                signer: host_key(0),
                key: key.clone(),
                body: decided.body.clone(),
            }).collect(),
        };
        for event in backup.decide(&world, hear.clone()).unwrap() {
            backup.apply(&event);
        }
        prop_assert!(backup.networks().eq(state.networks()));
        prop_assert!(backup.members().eq(state.members()));
        prop_assert_eq!(backup.revision(), state.revision());
        for network in state.networks() {
            prop_assert!(backup.blocks(network.id).eq(state.blocks(network.id)));
        }
        prop_assert_eq!(backup.decide(&world, hear).unwrap(), []);
    }
}
