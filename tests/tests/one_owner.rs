//! One address, one owner: the books of three hosts and the deciding host's state, with requests that come late, twice, in any
//! order or never, decisions heard in any order, and hosts that crash between two steps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use weft_agent::book::Book;
use weft_agent::state::Ledger;
use weft_api::decision::{Decision, DecisionKey};
use weft_api::id::{HostKey, MeshId, MeshKey, NetworkId};
use weft_api::request::CreateNetwork;
use weft_api::roster::{Cipher, MeshRecord, Roles, RosterRecord, Standing};
use weft_controller_state::{Command, Event, State, World};
use weft_router_io::node::{MeshView, Stored};

const HOSTS: usize = 3;
const RANGE: &str = "10.40.0.0/27";

#[derive(Clone, Debug)]
enum Step {
    /// A container starts, with `--ip` or without.
    Start {
        host: usize,
        wanted: Option<u8>,
    },
    /// A container ends.
    End {
        host: usize,
        which: prop::sample::Index,
    },
    /// A host asks another for an address.
    Ask {
        from: usize,
        holder: usize,
        address: u8,
    },
    /// A host asks for the blocks that it wants.
    Want {
        host: usize,
        address: Option<u8>,
    },
    /// A host gives back what is idle.
    GiveUp {
        host: usize,
        which: prop::sample::Index,
    },
    /// A host says again what it has given up, and takes back what was never decided.
    Remind {
        host: usize,
    },
    /// One request arrives; another copy may follow.
    Arrive {
        which: prop::sample::Index,
        again: bool,
    },
    /// A host hears some of the decisions.
    Hear {
        host: usize,
        which: u64,
    },
    /// A host forgets loans that decisions have taken the place of.
    Settle {
        host: usize,
    },
    Crash {
        host: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let host = || 0..HOSTS;
    let which = any::<prop::sample::Index>;
    prop_oneof![
        6 => (host(), prop::option::of(1u8..31)).prop_map(|(host, wanted)| Step::Start { host, wanted }),
        4 => (host(), which()).prop_map(|(host, which)| Step::End { host, which }),
        6 => (host(), host(), 1u8..31).prop_map(|(from, holder, address)| Step::Ask { from, holder, address }),
        3 => (host(), prop::option::of(1u8..31)).prop_map(|(host, address)| Step::Want { host, address }),
        4 => (host(), which()).prop_map(|(host, which)| Step::GiveUp { host, which }),
        2 => host().prop_map(|host| Step::Remind { host }),
        12 => (which(), prop::bool::weighted(0.3)).prop_map(|(which, again)| Step::Arrive { which, again }),
        8 => (host(), prop_oneof![Just(u64::MAX), any::<u64>()]).prop_map(|(host, which)| Step::Hear { host, which }),
        2 => host().prop_map(|host| Step::Settle { host }),
        1 => host().prop_map(|host| Step::Crash { host }),
    ]
}

fn key(n: usize) -> HostKey {
    HostKey([u8::try_from(n).unwrap() + 1; 32])
}

fn mesh() -> MeshId {
    MeshKey([0; 32]).id()
}

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 40, 0, last).into()
}

struct Host {
    dir: tempfile::TempDir,
    book: Option<Book>,
    view: MeshView,
    containers: BTreeSet<IpAddr>,
}

struct Mesh {
    state: State,
    network: NetworkId,
    range: IpNet,
    hosts: Vec<Host>,
    /// Requests on their way to the deciding host.
    wire: Vec<Command>,
}

impl Mesh {
    fn new() -> Self {
        let mut state = State::default();
        state.apply(&Event::Founded(MeshRecord {
            mesh: mesh(),
            name: "quiet-fox".into(),
            cipher: Cipher::Aegis128L,
        }));
        let mut hosts = Vec::new();
        for n in 0..HOSTS {
            state.apply(&Event::Enrolled(RosterRecord {
                mesh: mesh(),
                key: key(n),
                name: format!("h{n}"),
                roles: Roles::default(),
                serial: 1,
                standing: Standing::Member,
                under: weft_api::roster::Under::default(),
            }));
            let dir = tempfile::tempdir().unwrap();
            let ledger = Arc::new(Ledger::create(dir.path(), mesh()).unwrap());
            let book = Some(Book::open(key(n).id(), ledger, &Stored::default()).unwrap());
            hosts.push(Host { dir, book, view: MeshView::default(), containers: BTreeSet::new() });
        }
        let wish = CreateNetwork {
            name: "app".into(),
            subnets: vec![RANGE.parse().unwrap()],
            ..CreateNetwork::default()
        };
        let events = state.decide(&World::default(), Command::CreateNetwork(wish)).unwrap();
        events.iter().for_each(|event| state.apply(event));
        let network = state.networks().next().unwrap().id;
        let mut mesh = Self { state, network, range: RANGE.parse().unwrap(), hosts, wire: Vec::new() };
        // Everybody begins with a block.
        for host in 0..HOSTS {
            mesh.hear(host, u64::MAX);
            mesh.take(Step::Want { host, address: None }).unwrap();
            mesh.arrive(0, false);
            mesh.hear(host, u64::MAX);
        }
        mesh
    }

    fn book(&self, host: usize) -> &Book {
        self.hosts[host].book.as_ref().unwrap()
    }

    fn hear(&mut self, host: usize, which: u64) {
        let decided: BTreeMap<DecisionKey, Decision> = self
            .state
            .decisions()
            .enumerate()
            .filter(|(n, _)| which >> (n % 64) & 1 == 1)
            .map(|(_, (about, decided))| {
                let decision = Decision {
                    mesh: mesh(),
                    revision: decided.revision,
                    signer: key(0),
                    key: about.clone(),
                    body: decided.body.clone(),
                };
                (about.clone(), decision)
            })
            .collect();
        Arc::make_mut(&mut self.hosts[host].view.decisions).extend(decided);
        self.book(host).learn(Arc::new(self.hosts[host].view.clone()));
    }

    fn arrive(&mut self, at: usize, again: bool) {
        let command = if again { self.wire[at].clone() } else { self.wire.remove(at) };
        for event in self.state.decide(&World::default(), command).unwrap_or_default() {
            self.state.apply(&event);
        }
    }

    fn crash(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        host.book = None;
        let ledger = Arc::new(Ledger::open(host.dir.path(), mesh()).unwrap());
        let book = Book::open(key(n).id(), ledger, &Stored::default()).unwrap();
        book.learn(Arc::new(host.view.clone()));
        host.book = Some(book);
    }

    fn start(&mut self, host: usize, wanted: Option<u8>) -> Result<(), TestCaseError> {
        if let Ok(given) = self.book(host).give(self.network, self.range, wanted.map(ip)) {
            for (n, other) in self.hosts.iter().enumerate() {
                // An address that was given before a crash and never became an endpoint is given again.
                let twice = n != host && other.containers.contains(&given);
                prop_assert!(!twice, "{given} is a container's on h{n} and on h{host}");
            }
            self.hosts[host].containers.insert(given);
        }
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Start { host, wanted } => self.start(host, wanted)?,
            Step::End { host, which } => {
                let running: Vec<IpAddr> = self.hosts[host].containers.iter().copied().collect();
                if !running.is_empty() {
                    let address = *which.get(&running);
                    self.book(host).free(self.network, address).unwrap();
                    self.hosts[host].containers.remove(&address);
                }
            }
            Step::Ask { from, holder, address } if from != holder => {
                if let Ok(loan) = self.book(holder).lend(self.network, ip(address), key(from).id()) {
                    self.wire.push(Command::Lend { host: key(holder).id(), loan });
                }
            }
            Step::Ask { .. } => {}
            Step::Want { host, address } => {
                for mut want in self.book(host).wants() {
                    want.address = address.map(ip);
                    self.wire.push(Command::GrantBlock { host: key(host).id(), want });
                }
            }
            Step::GiveUp { host, which } => {
                let idle = self.book(host).idle();
                if !idle.is_empty() {
                    let what = which.get(&idle).clone();
                    prop_assert!(self.book(host).give_up(&what).unwrap());
                    self.wire.push(Command::GiveUp { host: key(host).id(), what });
                }
            }
            Step::Remind { host } => {
                let (given_up, overdue) =
                    (self.book(host).given_up(), self.book(host).overdue(Duration::ZERO));
                let host = key(host).id();
                self.wire.extend(given_up.into_iter().map(|what| Command::GiveUp { host, what }));
                self.wire.extend(overdue.into_iter().map(|loan| Command::Lend { host, loan }));
            }
            Step::Arrive { which, again } => {
                if !self.wire.is_empty() {
                    self.arrive(which.index(self.wire.len()), again);
                }
            }
            Step::Hear { host, which } => self.hear(host, which),
            Step::Settle { host } => drop(self.book(host).settle().unwrap()),
            Step::Crash { host } => self.crash(host),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_address_has_two_owners(steps in prop::collection::vec(step(), 1..120)) {
        let mut mesh = Mesh::new();
        for step in steps {
            mesh.take(step)?;
        }
        ends_right(mesh)?;
    }
}

/// The holder has heard that its loan is decided, and who asked has not.
#[test]
fn a_lease_that_is_asked_for_again_is_no_new_loan() {
    let mut mesh = Mesh::new();
    for _ in 0..2 {
        mesh.take(Step::Ask { from: 1, holder: 2, address: 10 }).unwrap();
        mesh.arrive(0, false);
        mesh.hear(2, u64::MAX);
    }
    ends_right(mesh).unwrap();
}

/// Once everything has arrived and is heard, nothing is in between any more.
fn ends_right(mut mesh: Mesh) -> Result<(), TestCaseError> {
    for _ in 0..4 {
        for host in 0..HOSTS {
            mesh.hear(host, u64::MAX);
            mesh.take(Step::Settle { host })?;
            mesh.take(Step::Remind { host })?;
        }
        while !mesh.wire.is_empty() {
            mesh.arrive(0, false);
        }
    }
    for host in 0..HOSTS {
        mesh.hear(host, u64::MAX);
        mesh.take(Step::Settle { host })?;
        prop_assert!(mesh.book(host).overdue(Duration::ZERO).is_empty());
        prop_assert!(mesh.book(host).given_up().is_empty());
        for address in mesh.hosts[host].containers.clone() {
            let leased = mesh.state.leases(mesh.network).find(|(ip, _)| *ip == address);
            let held = mesh.state.blocks(mesh.network).find(|(block, _)| block.contains(&address));
            let owner = leased.map(|(_, owner)| owner).or(held.map(|(_, owner)| owner));
            prop_assert_eq!(owner, Some(key(host).id()), "of {}", address);
        }
    }
    Ok(())
}
