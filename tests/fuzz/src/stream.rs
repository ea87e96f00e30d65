//! What runs on a TCP stream, and who may open how many.

use std::net::IpAddr;
use weft_router::stream::gate::{Gate, MAX_OF_ADDRESS, MAX_STREAMS, MAX_UNPROVEN, MAX_UNPROVEN_OF_ADDRESS};
use weft_router::stream::{LENGTH_LEN, MAX_DATAGRAM, datagram_at, record_head, whole_records};

use crate::input::Input;

/// How long a part of the stream is that comes at once, then the stream; cut otherwise it says the same.
pub(crate) fn streams(bytes: &[u8]) {
    let mut input = Input(bytes);
    gate(&mut Input(input.bytes()));
    let part = usize::from(input.u8()) + 1;
    let stream = input.0;
    let at_once = datagrams(&mut stream.to_vec());
    let (mut held, mut in_parts, mut garbled) = (Vec::new(), Vec::new(), false);
    for part in stream.chunks(part) {
        held.extend_from_slice(part);
        let (datagrams, well) = datagrams(&mut held);
        in_parts.extend(datagrams);
        garbled = !well;
        if garbled {
            break;
        }
        assert!(held.len() < LENGTH_LEN + MAX_DATAGRAM, "more waits than a record has");
    }
    if at_once.1 {
        assert!(!garbled);
        assert_eq!(in_parts, at_once.0);
    }
}

/// Takes whole records out of what is held; `false`: it cannot be read.
fn datagrams(held: &mut Vec<u8>) -> (Vec<Vec<u8>>, bool) {
    let Ok(whole) = whole_records(held) else { return (Vec::new(), false) };
    let (mut at, mut found) = (0, Vec::new());
    while at < whole {
        let datagram = datagram_at(held, at).expect("it was read").expect("it is whole");
        assert!(datagram.start == at + LENGTH_LEN && datagram.len() <= MAX_DATAGRAM && !datagram.is_empty());
        assert_eq!(held[at..datagram.start], record_head(datagram.len()));
        at = datagram.end;
        found.push(held[datagram].to_vec());
    }
    assert_eq!(at, whole);
    held.drain(..whole);
    (found, true)
}

/// Comings and goings; of each stream one that came in goes once.
fn gate(input: &mut Input<'_>) {
    let (mut gate, mut inside) = (Gate::default(), Vec::<(IpAddr, bool)>::new());
    while !input.is_empty() {
        let (what, address) = (input.u8() % 4, input.u8() % 32);
        let address = IpAddr::from([192, 0, 2, address]);
        let of = |proven: Option<bool>| {
            move |s: &&(IpAddr, bool)| s.0 == address && proven.is_none_or(|proven| s.1 == proven)
        };
        match what {
            0 | 1 => {
                if gate.enter(address).is_ok() {
                    inside.push((address, false));
                }
            }
            2 => {
                if let Some(stream) = inside.iter_mut().find(|s| s.0 == address && !s.1) {
                    stream.1 = true;
                    gate.prove(address);
                }
            }
            _ => {
                if let Some(at) = inside.iter().position(|s| s.0 == address) {
                    let (_, proven) = inside.swap_remove(at);
                    gate.leave(address, proven);
                }
            }
        }
        assert!(inside.iter().filter(of(None)).count() <= MAX_OF_ADDRESS);
        assert!(inside.iter().filter(of(Some(false))).count() <= MAX_UNPROVEN_OF_ADDRESS);
        assert!(inside.len() <= MAX_STREAMS && inside.iter().filter(|s| !s.1).count() <= MAX_UNPROVEN);
    }
    let still: Vec<(IpAddr, bool)> = inside;
    still.iter().for_each(|(address, proven)| gate.leave(*address, *proven));
    assert!(gate.enter(IpAddr::from([192, 0, 2, 99])).is_ok(), "who left is still counted");
}

pub(crate) fn samples() -> Vec<Vec<u8>> {
    let record = |n: usize| [&record_head(n)[..], &vec![7; n]].concat();
    let stream = [record(1), record(300), record(1400), vec![0, 9, 1]].concat();
    let visits = [0, 1, 0, 1, 2, 1, 3, 1, 0, 2, 3, 2, 3, 1];
    vec![
        [&[0, 0, 255][..], &stream].concat(),
        [&[0, 14][..], &visits, &[2], &stream].concat(),
        [&[0, 0, 1, 0xff, 0xff][..], &stream].concat(),
    ]
}
