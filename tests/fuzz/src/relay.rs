//! Datagrams that members hand over for others, in a mesh where every host may believe any route.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_router::envelope::Header;
use weft_router::relay::{MAX_HOPS, Onward, RELAY_HEAD_LEN, RELAY_LEN, RelayLimits, RelayTable, Relayed};
use weft_router::session::Path;

use crate::cast::{HOSTS, host};
use crate::input::{Input, with_length};

/// What each host has of each other: a path or a route, two bytes; then, after its length, each datagram with who hands it to whom.
pub(crate) fn relay(bytes: &[u8]) {
    let mut input = Input(bytes);
    let members: BTreeSet<_> = (0..HOSTS - 1).map(host).collect();
    let mut paths = [[None; HOSTS]; HOSTS];
    let mut tables = Vec::new();
    for (n, paths) in paths.iter_mut().enumerate() {
        let mut table = RelayTable { me: host(n), members: members.clone(), ..RelayTable::default() };
        for (to, path) in paths.iter_mut().enumerate() {
            let (what, hop) = (input.u8() % 4, host(input.u8().into()));
            *path = match what {
                0 => Some(Path::Udp(([10, 0, 0, 1], 6783).into())),
                1 => Some(Path::Relay(hop)),
                _ => None,
            };
            if what == 2 {
                table.routes.insert(host(to), hop);
            }
        }
        tables.push(table);
    }
    let mut limits = RelayLimits::default();
    while !input.is_empty() {
        let (by, to) = (usize::from(input.u8()) % HOSTS, usize::from(input.u8()) % HOSTS);
        let body = input.bytes();
        let _ = limits.take(host(by), Duration::from_millis(input.u8().into()));
        // A body as long as a head is one; any other is a chunk's.
        let read = match <&[u8; RELAY_HEAD_LEN]>::try_from(body) {
            Ok(head) => Relayed::read_head(head),
            Err(_) => Relayed::read(body),
        };
        if let Ok(relayed) = read {
            assert_eq!(relayed.body()[..], body[..RELAY_LEN]);
            travel(&tables, &paths, relayed, by, to);
        }
    }
}

/// However the hosts are mistaken, it ends after [`MAX_HOPS`], and it passes members only.
fn travel(
    tables: &[RelayTable],
    paths: &[[Option<Path>; HOSTS]; HOSTS],
    mut relayed: Relayed,
    mut by: usize,
    mut at: usize,
) {
    let index = |id| (0..HOSTS).find(|n| host(*n) == id);
    for _ in 0..MAX_HOPS {
        let path = |to| index(to).and_then(|to| paths[at][to]);
        match tables[at].judge(relayed, host(by), path) {
            Ok(Onward::To(next, onward)) => {
                assert!(onward.limit < relayed.limit);
                assert_eq!((onward.source, onward.target), (relayed.source, relayed.target));
                assert!(
                    next != host(by) && next != relayed.source && path(next).is_some_and(Path::is_direct)
                );
                (by, at) = (at, index(next).expect("nobody else has a path"));
                relayed = onward;
            }
            Ok(Onward::Here) => return assert_eq!(relayed.target, host(at)),
            Err(_) => return,
        }
    }
    panic!("{relayed:?} still travels");
}

pub(crate) fn samples() -> Vec<Vec<u8>> {
    let datagram = |by: u8, to: u8, relayed: Relayed| {
        let head = [&relayed.body()[..], &Header { lane: 0, index: 1, counter: 2 }.envelope()].concat();
        let chunk = [&relayed.body()[..], b"sealed"].concat();
        [&[by, to][..], &with_length(&chunk), &[1, by, to], &with_length(&head), &[1]].concat()
    };
    let ring = |what: u8| -> Vec<u8> {
        (0..HOSTS)
            .flat_map(|n| {
                (0..HOSTS).flat_map(move |to| {
                    [if (n + 1) % HOSTS == to { 0 } else { what }, u8::try_from(n + 1).unwrap_or_default()]
                })
            })
            .collect()
    };
    let talk: Vec<u8> = [(0, 1, 0, 4), (0, 1, 0, 3), (2, 3, 1, 0), (0, 1, 5, 4)]
        .into_iter()
        .flat_map(|(by, to, source, target)| datagram(by, to, Relayed::new(host(source), host(target))))
        .collect();
    vec![[ring(1), talk.clone()].concat(), [ring(2), talk.clone()].concat(), [ring(3), talk].concat()]
}
