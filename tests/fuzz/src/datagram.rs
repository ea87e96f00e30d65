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
use weft_router::relay::{RELAY_LEN, Relayed};
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

/// First the suite, then datagrams, each after its length; one of length 0 has another datagram sealed from what follows.
pub(crate) fn envelope(bytes: &[u8]) {
    let mut input = Input(bytes);
    let cipher = input.pick(&Cipher::ALL);
    let open = chain().open_key(cipher, Direction::FromDialler);
    let (mut window, mut taken, mut made) = (ReplayWindow::new(), BTreeSet::new(), BTreeSet::new());
    while !input.is_empty() {
        let mut datagram = input.bytes().to_vec();
        if datagram.is_empty() {
            let header = Header { lane: input.u8() % 64, index: 1, counter: input.u32().into() };
            datagram = sealed(cipher, header, &[&[1], input.bytes()].concat());
            made.insert(datagram.clone());
        }
        let original = datagram.clone();
        let header = match Shape::of(&datagram) {
            Ok(Shape::Envelope(header)) => header,
            Ok(Shape::Notice(header)) => {
                assert_eq!(header.notice()[..], datagram[..HEADER_LEN]);
                continue;
            }
            Ok(Shape::Bare) | Err(_) => continue,
        };
        assert_eq!(header.envelope()[..], datagram[..HEADER_LEN]);
        if window.check(header.counter).is_err() {
            continue;
        }
        if let Ok(chunks) = open.open(header, &mut datagram) {
            let inside = chunks.to_vec();
            // Two of one counter differ only here: the key is known.
            let ours = made.contains(&original) || sealed(cipher, header, &inside) == original;
            assert!(ours, "an envelope that nobody sealed was opened");
            let newest = window.accept(header.counter).expect("it was looked at before");
            assert!(taken.insert(header.counter), "a counter was taken twice");
            assert_eq!(newest, taken.last() == Some(&header.counter));
            assert!(window.check(header.counter).is_err());
            assert!(window.check(header.counter.saturating_add(WINDOW * 2)).is_ok());
            read_chunks(&inside);
        }
    }
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
    let relayed = Relayed::new(host(1), host(2)).head(6);
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
