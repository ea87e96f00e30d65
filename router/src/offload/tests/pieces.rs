//! Cut, lose, repeat and reorder, glue: what comes out is what arrived.

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::TestCaseError;

use super::superframe::{Spec, any_arrival, any_spec};
use crate::frame::Layout;
use crate::offload::plain::Checksum;
use crate::offload::{
    Cut, CutError, CutLimits, Glue, GlueLimits, Gso, MAX_RUN_PIECES, Offloads, Place, Push, Run, VnetHeader,
    checksum, segment,
};

pub const GLUE: GlueLimits = GlueLimits { inner_mtu: 1500, offloads: Offloads::ALL, uso_segments: 128 };

/// The chunk bodies of all pieces, as a lane writes them.
pub fn bodies(cut: &Cut<'_>) -> Vec<Vec<u8>> {
    let body = |piece| {
        let mut body = vec![0; cut.head_len()];
        cut.write_head(&piece, &mut body);
        body.extend_from_slice(cut.payload(&piece));
        assert_eq!(body.len(), cut.body_len(&piece));
        body
    };
    cut.pieces().map(body).collect()
}

/// Delivers one run to a pretended tap: (header, whole frame) of each write.
pub fn deliver(run: &Run<'_, u8>, buffers: &[Vec<u8>], out: &mut Vec<(VnetHeader, Vec<u8>)>) {
    let bytes = |span: crate::offload::Span| &buffers[span.buffer as usize][span.range()];
    run.emit(bytes, |write| {
        let mut frame = write.headers.to_vec();
        write.payload.iter().for_each(|span| frame.extend_from_slice(bytes(*span)));
        out.push((write.vnet, frame));
    });
}

/// Feeds bodies as one receive batch.
pub fn receive(limits: &GlueLimits, arrived: &[Vec<u8>]) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut glue = Glue::new();
    let mut out = Vec::new();
    for (number, body) in arrived.iter().enumerate() {
        let place = Place { buffer: number as u32, start: 0 };
        let mut push = glue.push(7u8, limits, body, place).unwrap();
        if push == Push::EndsRun {
            deliver(&glue.take().unwrap(), arrived, &mut out);
            push = glue.push(7, limits, body, place).unwrap();
        }
        if push == Push::Complete {
            deliver(&glue.take().unwrap(), arrived, &mut out);
        }
        assert_ne!(push, Push::EndsRun);
    }
    if let Some(run) = glue.take() {
        deliver(&run, arrived, &mut out);
    }
    out
}

/// What a kernel makes of a write: the segments with all checksums.
pub fn resegment(vnet: VnetHeader, mut frame: Vec<u8>) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    if vnet.is_superframe() {
        segment::each(&vnet, &frame, Checksum::Computed, |vnet, headers, payload| {
            assert_eq!(vnet, VnetHeader::default());
            segments.push([headers, payload].concat());
        })
        .unwrap();
    } else {
        if vnet.needs_checksum() {
            let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
            checksum::complete(&mut frame, start, offset).unwrap();
            // The kernel, too, writes 0xffff for 0 here whatever the protocol; of TCP etherparse writes 0.
            let field = &mut frame[start + offset..start + offset + 2];
            if offset == 16 && field == [0xff, 0xff] {
                field.fill(0);
            }
        }
        segments.push(frame);
    }
    segments
}

/// PROTOCOL 8, first point.
pub fn check_bounds(vnet: &VnetHeader, frame: &[u8], limits: &GlueLimits) -> Result<(), TestCaseError> {
    if vnet.flags == 0 {
        prop_assert_eq!(*vnet, VnetHeader::default());
        return Ok(());
    }
    prop_assert_eq!(vnet.flags, VnetHeader::NEEDS_CSUM);
    prop_assert!(limits.offloads.has(Offloads::CSUM));
    let layout = Layout::parse(frame).unwrap();
    let (ip, l4) = (layout.ip.unwrap(), layout.l4().unwrap());
    let (overhead, end) = (usize::from(l4.header_end - ip.offset), usize::from(l4.header_end));
    prop_assert!(frame.len() - usize::from(ip.offset) <= 65_535);
    prop_assert_eq!((vnet.csum_start, vnet.hdr_len), (l4.offset, l4.header_end));
    let tcp = ip.protocol == 6;
    prop_assert_eq!(vnet.csum_offset, if tcp { 16 } else { 6 });
    if vnet.gso_type == 0 {
        prop_assert_eq!(vnet.gso_size, 0);
        return Ok(());
    }
    let (size, payload) = (usize::from(vnet.gso_size), frame.len() - end);
    prop_assert!(size >= 1 && size + overhead <= usize::from(limits.inner_mtu) && size < payload);
    prop_assert!(tcp || payload <= size * usize::from(limits.uso_segments));
    let (gso, needed) = match (tcp, ip.version == crate::frame::IpVersion::V6) {
        (true, false) => (Gso::Tcp4, Offloads::TSO4),
        (true, true) => (Gso::Tcp6, Offloads::TSO6),
        (false, false) => (Gso::Udp, Offloads::USO4),
        (false, true) => (Gso::Udp, Offloads::USO6),
    };
    prop_assert!(limits.offloads.has(needed));
    prop_assert_eq!(vnet.gso_type & !VnetHeader::GSO_ECN, gso as u8);
    let has_cwr = tcp && frame[usize::from(l4.offset) + 13] & 0x80 != 0;
    prop_assert_eq!(vnet.gso_type & VnetHeader::GSO_ECN != 0, has_cwr);
    prop_assert!(!has_cwr || limits.offloads.has(Offloads::TSO_ECN));
    Ok(())
}

pub fn any_offloads() -> impl Strategy<Value = Offloads> {
    use Offloads as O;
    let sets = vec![
        O::ALL,
        O::NONE,
        O::CSUM,
        O::ALL.without(O::CSUM),
        O::ALL.without(O::TSO_ECN),
        O::ALL.without(O::TSO4),
        O::ALL.without(O::TSO6.with(O::USO6)),
        O::ALL.without(O::USO4),
    ];
    prop::sample::select(sets)
}

/// The superframes that a perfect receiver writes: maximal runs of consecutive pieces.
fn expected_runs(
    spec: &Spec,
    cut: &Cut<'_>,
    arrival: &[usize],
    limits: &GlueLimits,
    gso: usize,
) -> Vec<Vec<u8>> {
    let most = if spec.is_tcp { usize::MAX } else { usize::from(limits.uso_segments) * gso };
    let header_len = cut.head_len() - crate::offload::piece::PIECE_HEADER_LEN;
    let pieces: Vec<_> =
        cut.pieces().map(|p| p.payload.start - header_len..p.payload.end - header_len).collect();
    let mut runs: Vec<(std::ops::Range<usize>, usize, usize)> = Vec::new();
    for &index in arrival {
        let piece = pieces[index].clone();
        match runs.last_mut() {
            Some((run, next, count))
                if *next == index && *count < MAX_RUN_PIECES && piece.end - run.start <= most =>
            {
                *run = run.start..piece.end;
                *next += 1;
                *count += 1;
            }
            _ => runs.push((piece, index + 1, 1)),
        }
    }
    runs.into_iter().map(|(run, ..)| spec.frame(run, gso)).collect()
}

fn any_journey() -> impl Strategy<Value = (Spec, CutLimits, Vec<usize>)> {
    (any_spec(), 1100..1500usize, 1200..1501u16).prop_flat_map(|(spec, max_body, inner_mtu)| {
        let limits = CutLimits { max_body, inner_mtu };
        let (vnet, frame) = spec.superframe();
        let count = Cut::new(&vnet, &frame, limits, 0).map_or(1, |cut| cut.count());
        (Just(spec), Just(limits), any_arrival(count))
    })
}

proptest! {
    #[test]
    fn what_arrived_comes_out_once_and_in_order(
        (spec, cut_limits, arrival) in any_journey(),
        offloads in any_offloads(),
        uso_segments in prop::sample::select(vec![64u16, 128]),
        id in any::<u16>(),
    ) {
        let (vnet, frame) = spec.superframe();
        let cut = match Cut::new(&vnet, &frame, cut_limits, id) {
            Err(CutError::UdpTooBig { gso_size, room }) => {
                prop_assert!(!spec.is_tcp && usize::from(gso_size) > room);
                return Ok(());
            }
            cut => cut.unwrap(),
        };
        let bodies = bodies(&cut);
        let (stride, last) = (bodies[0].len(), bodies.len() - 1);
        prop_assert!(stride <= cut_limits.max_body && bodies[last].len() <= stride);
        prop_assert!(bodies[..last].iter().all(|body| body.len() == stride));

        let header_len = cut.head_len() - crate::offload::piece::PIECE_HEADER_LEN;
        let overhead = header_len - 14 - usize::from(spec.vlan_tags) * 4;
        let gso = usize::from(spec.gso_size)
            .min(spec.len)
            .min(cut_limits.max_body - cut.head_len())
            .min(usize::from(cut_limits.inner_mtu) - overhead);
        let limits = GlueLimits { inner_mtu: cut_limits.inner_mtu, offloads, uso_segments };
        let arrived: Vec<Vec<u8>> = arrival.iter().map(|index| bodies[*index].clone()).collect();
        let written = receive(&limits, &arrived);

        if offloads == Offloads::ALL {
            let whole: Vec<Vec<u8>> = written.iter().map(|(vnet, frame)| {
                let single = VnetHeader { gso_type: 0, gso_size: 0, ..*vnet };
                resegment(single, frame.clone()).remove(0)
            }).collect();
            prop_assert_eq!(whole, expected_runs(&spec, &cut, &arrival, &limits, gso));
        }
        let mut out = Vec::new();
        for (vnet, frame) in written {
            check_bounds(&vnet, &frame, &limits)?;
            out.extend(resegment(vnet, frame));
        }
        let mut expected = Vec::new();
        for index in arrival {
            let range = cut.pieces().nth(index).unwrap().payload;
            expected.extend(spec.segments(range.start - header_len..range.end - header_len, gso));
        }
        prop_assert!(out == expected, "{} segments out, {} expected", out.len(), expected.len());
    }

    #[test]
    fn segmentation_is_what_etherparse_builds(spec in any_spec()) {
        let (vnet, frame) = spec.superframe();
        let expected: Vec<_> = spec.segments(0..spec.len, spec.gso_size.into()).collect();
        let count = segment::each(&vnet, &frame, Checksum::NotComputed, |vnet, headers, _| {
            assert_eq!((vnet.flags, vnet.gso_type, usize::from(vnet.hdr_len)), (1, 0, headers.len()));
        });
        prop_assert_eq!(count, Ok(expected.len()));
        prop_assert!(resegment(vnet, frame) == expected);
    }

    #[test]
    fn superframes_of_one_flow_are_not_mixed(
        spec in any_spec(),
        fates in prop::collection::vec(any::<[bool; 2]>(), 300),
    ) {
        let limits = CutLimits { max_body: 1400, inner_mtu: 1500 };
        let spec = Spec { gso_size: spec.gso_size.min(1000), ..spec };
        let (vnet, frame) = spec.superframe();
        let (one, two) = (Cut::new(&vnet, &frame, limits, 1).unwrap(), Cut::new(&vnet, &frame, limits, 2).unwrap());
        let (one, two) = (bodies(&one), bodies(&two));
        let mut arrived = Vec::new();
        for (index, [has_one, has_two]) in fates.into_iter().enumerate().take(one.len()) {
            arrived.extend(has_one.then(|| one[index].clone()));
            arrived.extend(has_two.then(|| two[index].clone()));
        }
        let written = receive(&GLUE, &arrived).len();
        let id = |body: &Vec<u8>| body[3..5].to_vec();
        let changes = arrived.windows(2).filter(|pair| id(&pair[0]) != id(&pair[1])).count();
        prop_assert!(arrived.is_empty() || written > changes);
    }
}

#[test]
fn pieces_of_different_keys_are_not_glued() {
    let spec = Spec {
        vlan_tags: 0,
        is_v6: false,
        is_tcp: true,
        ip_options: 0,
        tcp_options: 3,
        psh_fin_cwr_ece: [true, false, false, false],
        sequence: 9,
        id: 4,
        len: 4000,
        gso_size: 1200,
    };
    let (vnet, frame) = spec.superframe();
    let bodies = bodies(&Cut::new(&vnet, &frame, CutLimits { max_body: 1400, inner_mtu: 1500 }, 1).unwrap());
    let mut glue = Glue::new();
    let place = Place { buffer: 0, start: 0 };
    assert_eq!(glue.push(1, &GLUE, &bodies[0], place), Ok(Push::Held));
    assert_eq!(glue.push(2, &GLUE, &bodies[1], place), Ok(Push::EndsRun));
    assert_eq!(glue.push(1, &GLUE, &bodies[1], place), Ok(Push::Held));
    assert_eq!(glue.take().unwrap().segments(), 2);
    assert!(glue.is_empty() && glue.take().is_none());
}
