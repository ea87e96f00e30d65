//! Which groups somebody of this host listens to, network by network: asked for by queries, forgotten when nobody answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use weft_api::id::NetworkId;

use super::{EVERY_GROUP, Heard, query};

/// Groups of one network that are named; with more of them the host takes every group of the network.
pub const MAX_GROUPS_OF_A_NETWORK: usize = 256;
/// Groups of all networks that are named; with more of them the host takes every group of the networks that come last.
pub const MAX_GROUPS: usize = 1024;

// RFC 3376 8, RFC 3810 9.
const QUERY_INTERVAL: Duration = Duration::from_secs(125);
const QUERY_RESPONSE: Duration = Duration::from_secs(10);
const STARTUP_INTERVAL: Duration = Duration::from_secs(125 / 4);
const MEMBERSHIP_LIFE: Duration = Duration::from_secs(2 * 125 + 10);
const ROUTER_LIFE: Duration = Duration::from_secs(2 * 125 + 5);
const LAST_MEMBER_INTERVAL: Duration = Duration::from_secs(1);
const LAST_MEMBER_QUERIES: u8 = 2;
/// The first query is to be answered sooner, since until then the host takes every group.
const FIRST_RESPONSE: Duration = Duration::from_secs(1);
const UNKNOWN_FOR: Duration = Duration::from_secs(2);

/// What is known of all networks of this host.
#[derive(Default, Debug)]
pub struct Memberships {
    networks: BTreeMap<NetworkId, Network>,
}

#[derive(Debug)]
struct Network {
    /// Until then nobody has had the time to answer.
    unknown_until: Option<Duration>,
    next_query: Duration,
    queries: u32,
    groups: BTreeMap<IpAddr, Group>,
    router_until: Option<Duration>,
    /// A group had no room; until then it may still be listened to.
    overfull_until: Option<Duration>,
}

#[derive(Debug)]
struct Group {
    until: Duration,
    /// Somebody left: so many more questions whether anybody is left over, and when the next is due.
    questions: u8,
    next_question: Duration,
}

impl Memberships {
    /// Nothing of nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The networks that have a bridge here. One that comes is asked at once; one that goes is forgotten.
    pub fn set_networks(&mut self, networks: &BTreeSet<NetworkId>, now: Duration) {
        self.networks.retain(|id, _| networks.contains(id));
        for id in networks {
            self.networks.entry(*id).or_insert_with(|| Network::new(now));
        }
    }

    /// Notes what a frame from the network's bridge said.
    pub fn hear(&mut self, network: NetworkId, heard: &[Heard], now: Duration) {
        if let Some(network) = self.networks.get_mut(&network) {
            heard.iter().for_each(|heard| network.hear(*heard, now));
        }
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.networks.values().map(Network::next_wake).min()
    }

    /// Forgets what was not said again, and gives the frames to be written into the bridges.
    pub fn tick(&mut self, now: Duration) -> Vec<(NetworkId, Vec<u8>)> {
        let mut frames = Vec::new();
        for (id, network) in &mut self.networks {
            network.tick(now, |frame| frames.push((*id, frame)));
        }
        frames
    }

    /// The groups that this host takes; [`EVERY_GROUP`] stands for all of a network.
    #[must_use]
    pub fn groups(&self, now: Duration) -> BTreeMap<NetworkId, BTreeSet<IpAddr>> {
        let mut room = MAX_GROUPS;
        let of = |network: &Network, room: &mut usize| {
            let mut groups: BTreeSet<IpAddr> = network.groups.keys().copied().collect();
            if groups.len() > *room {
                groups = BTreeSet::from([EVERY_GROUP]);
            } else {
                *room -= groups.len();
            }
            if network.takes_all(now) {
                groups.insert(EVERY_GROUP);
            }
            groups
        };
        self.networks.iter().map(|(id, network)| (*id, of(network, &mut room))).collect()
    }
}

impl Network {
    fn new(now: Duration) -> Self {
        Self {
            unknown_until: Some(now + UNKNOWN_FOR),
            next_query: now,
            queries: 0,
            groups: BTreeMap::new(),
            router_until: None,
            overfull_until: None,
        }
    }

    fn takes_all(&self, now: Duration) -> bool {
        self.ends().into_iter().flatten().any(|end| now < end)
    }

    fn hear(&mut self, heard: Heard, now: Duration) {
        match heard {
            Heard::Router => self.router_until = Some(now + ROUTER_LIFE),
            Heard::Joined(group) if self.has_room(group) => {
                let until = now + MEMBERSHIP_LIFE;
                self.groups.insert(group, Group { until, questions: 0, next_question: now });
            }
            Heard::Joined(_) => self.overfull_until = Some(now + MEMBERSHIP_LIFE),
            Heard::Left(group) => {
                // Who says it again while it is being asked for does not prolong it.
                if let Some(group) = self.groups.get_mut(&group).filter(|g| g.questions == 0) {
                    let end = now + LAST_MEMBER_INTERVAL * u32::from(LAST_MEMBER_QUERIES);
                    if group.until > end {
                        *group = Group { until: end, questions: LAST_MEMBER_QUERIES, next_question: now };
                    }
                }
            }
        }
    }

    /// Until when the network's every group is taken, for each reason to do so.
    fn ends(&self) -> [Option<Duration>; 3] {
        [self.unknown_until, self.router_until, self.overfull_until]
    }

    fn has_room(&self, group: IpAddr) -> bool {
        self.groups.len() < MAX_GROUPS_OF_A_NETWORK || self.groups.contains_key(&group)
    }

    fn next_wake(&self) -> Duration {
        let groups = self
            .groups
            .values()
            .flat_map(|group| [Some(group.until), (group.questions > 0).then_some(group.next_question)]);
        groups.chain(self.ends()).flatten().fold(self.next_query, Duration::min)
    }

    fn tick(&mut self, now: Duration, mut write: impl FnMut(Vec<u8>)) {
        if now >= self.next_query {
            let first = self.queries == 0;
            let response = if first { FIRST_RESPONSE } else { QUERY_RESPONSE };
            query::general(response, QUERY_INTERVAL).into_iter().for_each(&mut write);
            self.next_query = now + if first { STARTUP_INTERVAL } else { QUERY_INTERVAL };
            self.queries = self.queries.saturating_add(1);
        }
        for end in [&mut self.unknown_until, &mut self.router_until, &mut self.overfull_until] {
            end.take_if(|until| now >= *until);
        }
        self.groups.retain(|_, group| now < group.until);
        for (address, group) in &mut self.groups {
            if group.questions > 0 && now >= group.next_question {
                write(query::specific(*address, LAST_MEMBER_INTERVAL, QUERY_INTERVAL));
                group.questions -= 1;
                group.next_question = now + LAST_MEMBER_INTERVAL;
            }
        }
    }
}
