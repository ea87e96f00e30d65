//! Pieces made to hurt: nothing panics, and no header that the tap would choke on comes out.

use proptest::prelude::{any, prop, prop_assert, proptest};

use super::pieces::{any_offloads, bodies, check_bounds, deliver, receive, resegment};
use super::superframe::{Spec, any_spec};
use crate::offload::{
    Cut, CutError, CutLimits, Glue, GlueLimits, HeadersError, Kind, Offloads, PieceError, Place, Push,
    VnetHeader, plain::Checksum, segment,
};

const LIMITS: CutLimits = CutLimits { max_body: 1400, inner_mtu: 1500 };

fn tcp4() -> Spec {
    Spec {
        vlan_tags: 0,
        is_v6: false,
        is_tcp: true,
        ip_options: 0,
        tcp_options: 0,
        psh_fin_cwr_ece: [false; 4],
        sequence: 1,
        id: 1,
        len: 3000,
        gso_size: 600,
    }
}

fn tcp4_piece() -> Vec<u8> {
    let (vnet, frame) = tcp4().superframe();
    bodies(&Cut::new(&vnet, &frame, LIMITS, 1).unwrap()).swap_remove(1)
}

/// What a piece is refused with after `change`.
fn refused(change: impl FnOnce(&mut Vec<u8>)) -> PieceError {
    let mut body = tcp4_piece();
    change(&mut body);
    let limits = GlueLimits { inner_mtu: 1500, offloads: Offloads::ALL, uso_segments: 64 };
    Glue::new().push(0u8, &limits, &body, Place { buffer: 0, start: 0 }).unwrap_err()
}

#[test]
fn every_lie_has_a_name() {
    let lengths = |offset: u16, len, gso_size| PieceError::ImpossibleLength { len, offset, gso_size };
    assert_eq!(refused(|body| body.truncate(8)), PieceError::Truncated(8));
    assert_eq!(refused(|body| body[0] = 5), PieceError::UnknownKind(5));
    assert_eq!(refused(|body| body[1] = 9), PieceError::AbsurdNumber { index: 9, last: 2 });
    assert_eq!(refused(|body| body.truncate(9)), PieceError::Headers(HeadersError::NotUnderstood));
    let mismatch = PieceError::KindMismatch { said: Kind::Udp4, found: Kind::Tcp4 };
    assert_eq!(refused(|body| body[0] = 3), mismatch);
    assert_eq!(refused(|body| body[9 + 47] |= 2), PieceError::Headers(HeadersError::ImpossibleFlags(0x12)));
    assert_eq!(refused(|body| body[5..7].fill(0)), PieceError::SegmentSize { gso_size: 0, limit: 1460 });
    assert_eq!(refused(|body| body[5] = 7), PieceError::SegmentSize { gso_size: 7 * 256 + 88, limit: 1460 });
    assert_eq!(refused(|body| body.truncate(9 + 54)), lengths(1200, 0, 600));
    assert_eq!(refused(|body| body.truncate(9 + 54 + 700)), lengths(1200, 700, 600));
    assert_eq!(refused(|body| body[7..9].fill(0)), lengths(0, 1200, 600));
    assert_eq!(refused(|body| (body[1], body[2]) = (255, 255)), lengths(1200, 1200, 600));
    let late = |body: &mut Vec<u8>| {
        (body[1], body[2]) = (60, 70);
        body[7..9].copy_from_slice(&6_464u16.to_be_bytes());
    };
    assert_eq!(refused(late), lengths(6_464, 1200, 600));
    let end = |body: &mut Vec<u8>| {
        (body[1], body[2]) = (54, 54);
        body[7..9].copy_from_slice(&64_800u16.to_be_bytes());
    };
    assert_eq!(refused(end), PieceError::TooLong(66_040));
}

#[test]
fn what_cannot_be_cut_has_a_name() {
    let udp = Spec { is_tcp: false, gso_size: 1450, ..tcp4() };
    let (vnet, frame) = udp.superframe();
    let cut = |vnet: &VnetHeader, limits| Cut::new(vnet, &frame, limits, 0).unwrap_err();
    let room = 1400 - 9 - 42;
    assert_eq!(cut(&vnet, LIMITS), CutError::UdpTooBig { gso_size: 1450, room });
    let wide = CutLimits { max_body: 9000, inner_mtu: 1340 };
    assert_eq!(cut(&vnet, wide), CutError::UdpTooBig { gso_size: 1450, room: 1312 });
    let narrow = CutLimits { max_body: 50, ..LIMITS };
    assert_eq!(cut(&vnet, narrow), CutError::PathTooSmall { max_body: 50 });
    let elsewhere = VnetHeader { csum_start: 60, ..vnet };
    assert_eq!(cut(&elsewhere, LIMITS), CutError::ChecksumElsewhere { start: 60, offset: 6 });
    let zero = VnetHeader { gso_size: 0, ..vnet };
    assert_eq!(cut(&zero, LIMITS), CutError::ImpossibleLength { len: 3000, gso_size: 0 });
    let tcp = VnetHeader { gso_type: 1, ..vnet };
    assert_eq!(cut(&tcp, LIMITS), CutError::KindMismatch { gso_type: 1, found: Kind::Udp4 });
    assert_eq!(cut(&VnetHeader { gso_type: 3, ..vnet }, LIMITS), CutError::UnknownGso(3));
    assert_eq!(cut(&VnetHeader { gso_type: 0, ..vnet }, LIMITS), CutError::NotSuperframe);
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..6u8) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() { *first = kind; }
        let limits = GlueLimits { inner_mtu: 1340, offloads: Offloads::ALL, uso_segments: 64 };
        let mut glue = Glue::new();
        if glue.push(0, &limits, &bytes, Place { buffer: 0, start: 0 }).is_ok() {
            let mut out = Vec::new();
            deliver(&glue.take().unwrap(), &[bytes], &mut out);
            for (vnet, frame) in out { check_bounds(&vnet, &frame, &limits)?; }
        }
    }

    #[test]
    fn changed_pieces_stay_in_bounds(
        spec in any_spec(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..90usize, any::<u8>()), 1..12),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..1400usize), 0..4),
        offloads in any_offloads(),
        inner_mtu in prop::sample::select(vec![0u16, 100, 1340, 1500, 65_535]),
    ) {
        let (vnet, frame) = spec.superframe();
        let Ok(cut) = Cut::new(&vnet, &frame, LIMITS, 3) else { return Ok(()) };
        let mut bodies = bodies(&cut);
        for (which, at, value) in changes {
            if let Some(byte) = which.get_mut(&mut bodies[..]).get_mut(at) { *byte = value; }
        }
        for (which, len) in cuts { which.get_mut(&mut bodies[..]).truncate(len); }
        let limits = GlueLimits { inner_mtu, offloads, uso_segments: 64 };
        let (mut glue, mut out) = (Glue::new(), Vec::new());
        for (number, body) in bodies.iter().enumerate() {
            let place = Place { buffer: number as u32, start: 0 };
            if glue.push(1u8, &limits, body, place) == Ok(Push::EndsRun) {
                deliver(&glue.take().unwrap(), &bodies, &mut out);
                let _ = glue.push(1, &limits, body, place).is_ok();
            }
        }
        if let Some(run) = glue.take() { deliver(&run, &bodies, &mut out); }
        for (vnet, frame) in out {
            check_bounds(&vnet, &frame, &limits)?;
            prop_assert!(!resegment(vnet, frame).is_empty());
        }
    }

    #[test]
    fn a_container_cannot_make_us_panic(
        spec in any_spec(),
        header in any::<[u8; VnetHeader::LEN]>(),
        at in 0..100usize,
        value in any::<u8>(),
        keep in any::<bool>(),
    ) {
        let (own, mut frame) = spec.superframe();
        if let Some(byte) = frame.get_mut(at) { *byte = value; }
        let vnet = if keep { own } else { VnetHeader::parse(&header).unwrap().0 };
        if let Ok(cut) = Cut::new(&vnet, &frame, LIMITS, 3) {
            let limits = GlueLimits { inner_mtu: 1500, offloads: Offloads::ALL, uso_segments: 128 };
            receive(&limits, &bodies(&cut));
        }
        let _ = segment::each(&vnet, &frame, Checksum::Computed, |_, _, _| {});
    }
}
