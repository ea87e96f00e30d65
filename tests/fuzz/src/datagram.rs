//! Datagrams from the underlay and, once opened, the chunks of a member.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_api::id::NetworkId;
use weft_api::roster::Cipher;
use weft_router::chunk::{Chunk, ChunkKind, Chunks, frame_head, piece_head, probe_head, quic_head};
use weft_router::drop::DropReason;
use weft_router::envelope::{HEADER_LEN, Header, Shape, TAG_LEN};
use weft_router::fragment::{self, MAX_OPEN_EACH, Reassembly};
use weft_router::offload::plain::Checksum;
use weft_router::relay::{RELAY_FRONT, RELAY_HEAD_LEN, RELAY_LEN, RELAY_OVERHEAD, Relayed, uncover};
use weft_router::replay::{ReplayWindow, WINDOW};
use weft_router::seal::{Chain, Direction};
use weft_router::session::probe::Probe;
use weft_router::stream::MAX_DATAGRAM;

use crate::cast::host;
use crate::input::{Input, with_length};

fn chain() -> Chain {
    Chain::first(&[7; 32])
}

fn sealed(cipher: Cipher, header: Header, chunks: &[u8]) -> Vec<u8> {
    let mut datagram = [&[0; HEADER_LEN], chunks, &[0; TAG_LEN]].concat();
    chain().seal_key(cipher, Direction::FromDialler).seal(header, &mut datagram);
    datagram
}

/// A relayed envelope with this head, before these bytes.
fn relayed(cipher: Cipher, header: Header, head: &[u8; RELAY_HEAD_LEN], behind: &[u8]) -> Vec<u8> {
    let mut front = [0; RELAY_FRONT];
    front[HEADER_LEN..HEADER_LEN + RELAY_HEAD_LEN].copy_from_slice(head);
    chain().seal_key(cipher, Direction::FromDialler).seal_head(header, &mut front);
    [&front[..], behind].concat()
}

/// The head of a datagram from the first host to the second, which carries an envelope with this header.
fn head(carried: Header) -> [u8; RELAY_HEAD_LEN] {
    let mut front = [0; RELAY_FRONT];
    front[RELAY_OVERHEAD..].copy_from_slice(&carried.envelope());
    Relayed::new(host(1), host(2)).cover(&mut front);
    *front[HEADER_LEN..].first_chunk().expect("a front is longer than its head")
}

/// First the suite, then datagrams, each after its length; one of length 0 has another datagram sealed from what follows, a relayed
/// one if its lane is above 63.
pub(crate) fn envelope(bytes: &[u8]) {
    let mut input = Input(bytes);
    let cipher = input.pick(&Cipher::ALL);
    let open = chain().open_key(cipher, Direction::FromDialler);
    let (mut window, mut taken, mut made) = (ReplayWindow::new(), BTreeSet::new(), BTreeSet::new());
    while !input.is_empty() {
        let mut datagram = input.bytes().to_vec();
        if datagram.is_empty() {
            let lane = input.u8();
            let header = Header { lane: lane % 64, index: 1, counter: input.u32().into() };
            datagram = if lane < 64 {
                sealed(cipher, header, &[&[1], input.bytes()].concat())
            } else {
                let mut bytes = head(Header { lane: 0, index: 2, counter: 3 });
                input.bytes().iter().zip(&mut bytes).for_each(|(from, to)| *to ^= from);
                relayed(cipher, header, &bytes, input.bytes())
            };
            made.insert(datagram.clone());
        }
        let original = datagram.clone();
        let (header, is_relayed) = match Shape::of(&datagram) {
            Ok(Shape::Envelope(header)) => (header, false),
            Ok(Shape::Relayed(header)) => (header, true),
            Ok(Shape::Notice(header)) => {
                assert_eq!(header.notice()[..], datagram[..HEADER_LEN]);
                continue;
            }
            Ok(Shape::Bare) | Err(_) => continue,
        };
        let bytes = if is_relayed { header.relayed() } else { header.envelope() };
        assert_eq!(bytes[..], datagram[..HEADER_LEN]);
        if window.check(header.counter).is_err() {
            continue;
        }
        let opened = match is_relayed {
            true => open.open_head(header, &mut datagram).map(|head| head.to_vec()),
            false => open.open(header, &mut datagram).map(|chunks| chunks.to_vec()),
        };
        let Ok(inside) = opened else { continue };
        // Two of one counter differ only here: the key is known. What is behind a head is somebody else's affair.
        let again = match inside.first_chunk() {
            Some(head) if is_relayed => relayed(cipher, header, head, &original[RELAY_FRONT..]),
            _ => sealed(cipher, header, &inside),
        };
        assert!(made.contains(&original) || again == original, "an envelope that nobody sealed was opened");
        let newest = window.accept(header.counter).expect("it was looked at before");
        assert!(taken.insert(header.counter), "a counter was taken twice");
        assert_eq!(newest, taken.last() == Some(&header.counter));
        assert!(window.check(header.counter).is_err());
        assert!(window.check(header.counter.saturating_add(WINDOW * 2)).is_ok());
        if is_relayed {
            read_head(&inside, &mut datagram, &original);
        } else {
            read_chunks(&inside);
        }
    }
}

/// The opened head of a relayed envelope: it carries an envelope, and what lies behind it is as it came.
fn read_head(head: &[u8], datagram: &mut [u8], original: &[u8]) {
    let head: &[u8; RELAY_HEAD_LEN] = head.try_into().expect("a head has one length");
    let Ok(relayed) = Relayed::read_head(head) else { return };
    assert_eq!(relayed.body()[..], head[..RELAY_LEN]);
    uncover(datagram.first_chunk_mut().expect("it was opened"));
    assert_eq!(datagram[RELAY_OVERHEAD..RELAY_FRONT], head[RELAY_LEN..]);
    assert_eq!(datagram[RELAY_FRONT..], original[RELAY_FRONT..]);
    let carried = Shape::of(&datagram[RELAY_OVERHEAD..]);
    assert!(!matches!(carried, Ok(Shape::Bare | Shape::Notice(_) | Shape::Relayed(_))), "{carried:?}");
}

pub(crate) fn envelopes() -> Vec<Vec<u8>> {
    let header = |counter| Header { lane: 1, index: 1, counter };
    let mut seeds = Vec::new();
    for (n, cipher) in (0u8..).zip(Cipher::ALL) {
        let rows = chunk_rows();
        let datagrams = rows.iter().zip(0..).map(|(row, n)| with_length(&sealed(cipher, header(n), row)));
        seeds.push([vec![n], datagrams.collect::<Vec<_>>().concat()].concat());
    }
    let to_seal = [&[0, 0, 0, 5, 0, 0, 1, 0], &with_length(b"abc")[..]].concat();
    let twice = [&[0], &to_seal[..], &to_seal, &with_length(&header(9).notice())].concat();
    seeds.push(twice);
    for (n, cipher) in (0u8..).zip(Cipher::ALL) {
        let carried = sealed(cipher, header(7), &chunk_rows()[1]);
        let whole = relayed(cipher, header(5), &head(header(7)), &carried[HEADER_LEN..]);
        let garbled = relayed(cipher, header(6), &[9; RELAY_HEAD_LEN], &[0; 20]);
        seeds.push([vec![n], with_length(&whole), with_length(&whole), with_length(&garbled)].concat());
    }
    let to_relay = [&[0, 0, 64, 0, 0, 1, 1][..], &with_length(&[0]), &with_length(&[5; 20])].concat();
    seeds.push([&[0], &to_relay[..], &to_relay].concat());
    seeds.push([&[1], &with_length(&[0xc0, 0, 0, 0, 1, 0, 0])[..], &with_length(&[0x05; 40])].concat());
    seeds
}

/// The chunks of an opened envelope.
pub(crate) fn chunks(bytes: &[u8]) {
    read_chunks(bytes);
}

fn read_chunks(bytes: &[u8]) {
    let (mut walk, mut before, mut read) = (Chunks::new(), 0, 0);
    let (mut parts, mut fragments) = (Reassembly::new(), 0);
    while let Some(next) = walk.next_in(bytes) {
        read += 1;
        assert!(read <= bytes.len(), "the walk goes on although nothing is left");
        let Ok(Chunk { kind, body }) = next else { continue };
        assert!(before <= body.start && body.start <= body.end && body.end <= bytes.len());
        before = body.end;
        let body = &bytes[body];
        match kind {
            ChunkKind::Probe | ChunkKind::Answer => {
                if let Ok(probe) = Probe::read(body) {
                    assert_eq!(Probe::read(&probe.bytes()), Ok(probe));
                }
            }
            ChunkKind::Frame { .. } => crate::frames::arrived(body),
            ChunkKind::Fragment => {
                fragments += 1;
                let taken = parts.take(Duration::from_millis(fragments), (1, 0), body);
                if let Ok(Some(whole)) = &taken {
                    assert!(whole.len() <= MAX_DATAGRAM);
                    if let Some(Ok(chunk)) = Chunks::new().next_in(whole) {
                        assert!(chunk.body.end <= whole.len());
                    }
                }
                assert!(!matches!(taken, Err(reason) if reason != DropReason::FragmentInvalid));
                assert!(fragments <= MAX_OPEN_EACH as u64 || parts.take_lost() <= fragments);
            }
            ChunkKind::Relayed => {
                if let Ok(relayed) = Relayed::read(body) {
                    assert_eq!(relayed.body()[..], body[..RELAY_LEN]);
                }
            }
            _ => {}
        }
    }
}

pub(crate) fn chunk_rows() -> Vec<Vec<u8>> {
    let network = NetworkId(3);
    let head = |head: &[u8], body: &[u8]| [head, body].concat();
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("seeds are short");
    let probe = Probe::Answer { answered: 1, own: 2 }.bytes();
    let relayed = Relayed::new(host(1), host(2)).chunk(6);
    let mut rows = vec![
        head(&relayed, b"sealed"),
        head(&probe_head(false, length(&probe)), &probe),
        head(&probe_head(true, length(&probe)), &probe),
        head(&quic_head(3), b"abc"),
        head(&piece_head(network, 4), &[1, 0, 0, 0]),
    ];
    for frame in crate::frames::plain() {
        let open = frame_head(network, Checksum::NotComputed, length(&frame));
        rows.push(head(&open, &frame));
        rows.push(head(&frame_head(network, Checksum::Computed, length(&frame)), &frame));
    }
    let frame = rows[5].clone();
    let parts = fragment::cut(7, frame.len(), 40).expect("it can be cut");
    rows.push(parts.flat_map(|(head, part)| [&head[..], &frame[part]].concat()).collect());
    rows.push([rows.concat(), vec![0; 20]].concat());
    rows
}
