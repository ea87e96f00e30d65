//! Superframes of a container, whose virtio header it may have made by hand.

use weft_router::offload::plain::Checksum;
use weft_router::offload::{
    Cut, CutLimits, Glue, GlueLimits, Gso, MAX_RUN_PIECES, Merge, Offer, Offloads, Place, Push, VnetHeader,
    segment,
};

use crate::input::{Input, with_length};
use crate::pieces::write;

/// Room in a datagram, MTU, then frames with their virtio headers, each after its length.
pub(crate) fn superframes(bytes: &[u8]) {
    let mut input = Input(bytes);
    let limits = CutLimits { max_body: input.u16().into(), inner_mtu: input.u16() };
    let mut merge = Merge::new();
    while !input.is_empty() {
        let Some((vnet, frame)) = VnetHeader::parse(input.bytes()) else { continue };
        cut(&vnet, frame, limits);
        if merge.offer(&vnet, frame) == Offer::Flush {
            flush(&mut merge, limits);
            assert_ne!(merge.offer(&vnet, frame), Offer::Flush, "nothing is held");
        }
    }
    flush(&mut merge, limits);
}

fn flush(merge: &mut Merge, limits: CutLimits) {
    if let Some(merged) = merge.take() {
        cut(&merged.vnet, merged.frame, limits);
    }
}

fn cut(vnet: &VnetHeader, frame: &[u8], limits: CutLimits) {
    let mut segments = 0;
    let cut_here = segment::each(vnet, frame, Checksum::Computed, |vnet, _, _| {
        assert_eq!(vnet, VnetHeader::default());
        segments += 1;
    });
    if let Ok(count) = cut_here {
        assert_eq!(count, segments);
    }
    let Ok(cut) = Cut::new(vnet, frame, limits, 9) else { return };
    let bodies = bodies(&cut);
    let (last, whole) = bodies.split_last().expect("there is always one");
    assert!(bodies.iter().all(|b| b.len() <= limits.max_body));
    assert!(whole.iter().all(|b| b.len() == bodies[0].len()) && last.len() <= bodies[0].len());
    if bodies.len() > MAX_RUN_PIECES {
        return;
    }
    // The other end has the same network, and so the same MTU.
    let limits = GlueLimits { inner_mtu: limits.inner_mtu, offloads: Offloads::ALL, uso_segments: 128 };
    let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    let (mut glue, mut payload) = (Glue::new(), Vec::new());
    for (number, body) in (0u32..).zip(&bodies) {
        let place = Place { buffer: number, start: 0 };
        let mut push = glue.push(7u8, &limits, body, place).expect("what we cut is taken");
        if push == Push::EndsRun {
            payload.extend(write(&glue.take().expect("it was begun"), &bodies, &limits));
            push = glue.push(7, &limits, body, place).expect("what we cut is taken");
        }
        if push == Push::Complete {
            payload.extend(write(&glue.take().expect("it was begun"), &bodies, &limits));
        }
    }
    if let Some(run) = glue.take() {
        payload.extend(write(&run, &bodies, &limits));
    }
    assert_eq!(payload, frame[frame.len() - payload.len()..], "what is glued is what was cut");
    assert!(cut.pieces().map(|p| p.payload.len()).sum::<usize>() == payload.len());
}

/// The chunk bodies of all pieces.
pub(crate) fn bodies(cut: &Cut<'_>) -> Vec<Vec<u8>> {
    let body = |piece| {
        let mut body = vec![0; cut.head_len()];
        cut.write_head(&piece, &mut body);
        body.extend_from_slice(cut.payload(&piece));
        assert_eq!(body.len(), cut.body_len(&piece));
        body
    };
    cut.pieces().map(body).collect()
}

/// One of each kind.
pub(crate) fn superframe_samples() -> Vec<(VnetHeader, Vec<u8>)> {
    let ethernet = |ethertype: u16| [&[2; 6][..], &[4; 6], &ethertype.to_be_bytes()].concat();
    let v4 = |protocol: u8, len: u16| {
        let total = (20 + len).to_be_bytes();
        let head =
            [0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 32, 0, 2, 10, 32, 0, 3];
        [ethernet(0x0800), head.to_vec()].concat()
    };
    let v6 = |protocol: u8, len: u16| {
        let [len0, len1] = len.to_be_bytes();
        [ethernet(0x86dd), vec![0x60, 0, 0, 0, len0, len1, protocol, 64], vec![0xfd; 32]].concat()
    };
    let tcp = [&[0, 80, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x98, 0xff, 0xff, 0, 0, 0, 0][..], &[5; 3000]];
    let udp = [&[0, 53, 1, 0, 0x0b, 0xc0, 0, 0][..], &[6; 3000]];
    let length = |l4: &[&[u8]; 2]| u16::try_from(l4[0].len() + l4[1].len()).expect("3 KB");
    let make = |ip: Vec<u8>, l4: &[&[u8]; 2], gso: Gso, csum_offset| {
        let csum_start = u16::try_from(ip.len()).expect("short");
        let hdr_len = csum_start + u16::try_from(l4[0].len()).expect("short");
        let (flags, gso_type) = (VnetHeader::NEEDS_CSUM, gso as u8);
        (
            VnetHeader { flags, gso_type, hdr_len, gso_size: 600, csum_start, csum_offset },
            [ip, l4.concat()].concat(),
        )
    };
    vec![
        make(v4(6, length(&tcp)), &tcp, Gso::Tcp4, 16),
        make(v6(6, length(&tcp)), &tcp, Gso::Tcp6, 16),
        make(v4(17, length(&udp)), &udp, Gso::Udp, 6),
        make(v6(17, length(&udp)), &udp, Gso::Udp, 6),
    ]
}

pub(crate) fn samples() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (vnet, frame) in superframe_samples() {
        let whole = [&vnet.to_bytes()[..], &frame].concat();
        for max_body in [0x0578u16, 0x0200, 0x2400] {
            seeds.push([&max_body.to_be_bytes()[..], &[0x05, 0xdc], &with_length(&whole)].concat());
        }
        let small = VnetHeader { gso_type: 0, gso_size: 0, ..vnet };
        let (head, _) = frame.split_at(usize::from(vnet.hdr_len) + 40);
        let small = with_length(&[&small.to_bytes()[..], head].concat());
        seeds.push([&[0x05, 0x78, 0x05, 0xdc][..], &small, &small].concat());
    }
    seeds
}
