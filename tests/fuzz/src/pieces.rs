//! Pieces of a member, glued and written to a tap that takes what the input says.

use weft_router::frame::{IpVersion, Layout};
use weft_router::offload::piece::MAX_UDP_PIECE_SEGMENTS;
use weft_router::offload::{
    Cut, CutLimits, Glue, GlueLimits, Gso, Offloads, Place, Push, Run, Span, VnetHeader,
};

use crate::input::{Input, with_length};
use crate::superframe;

const OFFLOADS: [Offloads; 5] = [
    Offloads::ALL,
    Offloads::NONE,
    Offloads::CSUM,
    Offloads::CSUM.with(Offloads::TSO4).with(Offloads::TSO6),
    Offloads::ALL.without(Offloads::TSO_ECN),
];

/// Offloads, MTU, segments of a write, then bodies, each after its length.
pub(crate) fn pieces(bytes: &[u8]) {
    let mut input = Input(bytes);
    let limits = GlueLimits {
        offloads: input.pick(&OFFLOADS),
        inner_mtu: input.u16(),
        // One piece alone may have as many as every kernel takes.
        uso_segments: MAX_UDP_PIECE_SEGMENTS as u16 + u16::from(input.u8()),
    };
    let mut bodies = Vec::new();
    while !input.is_empty() && bodies.len() < 256 {
        bodies.push(input.bytes());
    }
    let mut glue = Glue::new();
    for (number, body) in (0u32..).zip(&bodies) {
        let place = Place { buffer: number, start: 0 };
        let mut push = glue.push(7u8, &limits, body, place);
        if matches!(push, Ok(Push::EndsRun)) {
            write(&glue.take().expect("a run that ends was begun"), &bodies, &limits);
            push = glue.push(7, &limits, body, place);
            assert!(!matches!(push, Ok(Push::EndsRun)), "nothing is left that could end");
        }
        if matches!(push, Ok(Push::Complete)) {
            write(&glue.take().expect("a run that is complete was begun"), &bodies, &limits);
        }
    }
    if let Some(run) = glue.take() {
        write(&run, &bodies, &limits);
    }
}

pub(crate) fn write(run: &Run<'_, u8>, bodies: &[&[u8]], limits: &GlueLimits) -> Vec<u8> {
    let (mut payload, mut len, mut writes) = (Vec::new(), 0, 0);
    let bytes = |span: Span| &bodies[span.buffer as usize][span.range()];
    run.emit(bytes, |write| {
        let mut frame = write.headers.to_vec();
        for span in write.payload {
            frame.extend_from_slice(bytes(*span));
            payload.extend_from_slice(bytes(*span));
        }
        check(&write.vnet, &frame, limits);
        (len, writes) = (len + frame.len() - write.headers.len(), writes + 1);
    });
    assert_eq!(len + run.headers().len(), run.frame_len());
    assert!(writes == 1 || writes == run.segments());
    payload
}

/// PROTOCOL 8: type, size and offsets fit the frame, and our own tap was granted them.
fn check(vnet: &VnetHeader, frame: &[u8], limits: &GlueLimits) {
    if vnet.flags == 0 {
        return assert_eq!(*vnet, VnetHeader::default());
    }
    assert_eq!(vnet.flags, VnetHeader::NEEDS_CSUM);
    assert!(limits.offloads.has(Offloads::CSUM));
    let layout = Layout::parse(frame).expect("a frame");
    let (ip, l4) = (layout.ip.expect("IP"), layout.l4().expect("TCP or UDP"));
    let tcp = ip.protocol == 6;
    assert!(frame.len() - usize::from(ip.offset) <= 65_535);
    assert_eq!((vnet.csum_start, vnet.hdr_len), (l4.offset, l4.header_end));
    assert_eq!(vnet.csum_offset, if tcp { 16 } else { 6 });
    if vnet.gso_type == 0 {
        return assert_eq!(vnet.gso_size, 0);
    }
    let (size, payload) = (usize::from(vnet.gso_size), frame.len() - usize::from(l4.header_end));
    let overhead = usize::from(l4.header_end - ip.offset);
    assert!(size >= 1 && size + overhead <= usize::from(limits.inner_mtu) && size < payload);
    assert!(tcp || payload <= size * usize::from(limits.uso_segments));
    let (gso, needed) = match (tcp, ip.version == IpVersion::V6) {
        (true, false) => (Gso::Tcp4, Offloads::TSO4),
        (true, true) => (Gso::Tcp6, Offloads::TSO6),
        (false, false) => (Gso::Udp, Offloads::USO4),
        (false, true) => (Gso::Udp, Offloads::USO6),
    };
    assert!(limits.offloads.has(needed));
    assert_eq!(vnet.gso_type & !VnetHeader::GSO_ECN, gso as u8);
    assert!(vnet.gso_type & VnetHeader::GSO_ECN == 0 || limits.offloads.has(Offloads::TSO_ECN));
}

pub(crate) fn batches() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (vnet, frame) in superframe::superframe_samples() {
        let limits = CutLimits { max_body: 1400, inner_mtu: 1500 };
        let cut = Cut::new(&vnet, &frame, limits, 1).expect("it can be cut");
        let bodies: Vec<Vec<u8>> = superframe::bodies(&cut).iter().map(|b| with_length(b)).collect();
        for offloads in 0..OFFLOADS.len() {
            let offloads = u8::try_from(offloads).expect("few");
            seeds.push([&[offloads, 0x05, 0xdc, 63], &bodies.concat()[..]].concat());
        }
    }
    seeds
}
