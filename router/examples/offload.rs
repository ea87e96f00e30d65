//! What the bookkeeping of offload costs, without crypto and system calls: nanoseconds per superframe and per frame.
//! `cargo run --release -p weft-router --example offload`

use std::hint::black_box;
use std::time::Instant;

use weft_router::frame::Layout;
use weft_router::offload::checksum::Sum;
use weft_router::offload::{
    Cut, CutLimits, Glue, GlueLimits, Merge, Offer, Offloads, Place, Push, VnetHeader,
};

const ROUNDS: u32 = 20_000;
const LIMITS: CutLimits = CutLimits { max_body: 1420, inner_mtu: 1340 };
const GLUE: GlueLimits = GlueLimits { inner_mtu: 1340, offloads: Offloads::ALL, uso_segments: 128 };

fn main() {
    let (vnet, frame) = superframe(64_000, 1288);
    let cut = Cut::new(&vnet, &frame, LIMITS, 1).expect("a superframe");
    let bodies: Vec<Vec<u8>> = cut.pieces().map(|piece| body(&cut, &piece)).collect();
    println!("{} bytes in {} pieces", frame.len(), bodies.len());

    let mut out = vec![0; bodies[0].len() * bodies.len()];
    measure("cut, heads written, per superframe", 1, || {
        let cut = Cut::new(&vnet, black_box(&frame), LIMITS, 1).expect("a superframe");
        let stride = cut.head_len() + 1288;
        for (piece, to) in cut.pieces().zip(out.chunks_mut(stride)) {
            cut.write_head(&piece, to);
            black_box(cut.payload(&piece));
        }
    });
    let mut glue = Glue::new();
    measure("glue and header put right, per superframe", 1, || {
        for (number, body) in bodies.iter().enumerate() {
            let place = Place { buffer: number as u32, start: 0 };
            let push = glue.push(0, &GLUE, black_box(body), place).expect("a good piece");
            assert_ne!(push, Push::EndsRun);
        }
        let run = glue.take().expect("a run");
        run.emit(
            |_| &[],
            |write| {
                black_box(write.vnet.to_bytes());
            },
        );
    });
    measure("parse headers, per frame", 1, || {
        black_box(Layout::parse(black_box(&frame)));
    });
    measure("checksum of 64 KB", 1, || {
        black_box(Sum::of(black_box(&frame)).folded());
    });
    let small: Vec<_> = (0..64).map(udp).collect();
    let mut merge = Merge::new();
    measure("merge of 64-byte UDP, per frame", 64, || {
        for (vnet, frame) in &small {
            assert_eq!(merge.offer(vnet, black_box(frame)), Offer::Taken);
        }
        black_box(merge.take());
    });
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn measure(what: &str, per: u32, mut work: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| work());
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(ROUNDS * per));
    }
    println!("{what}: {best:.1} ns");
}

fn body(cut: &Cut<'_>, piece: &weft_router::offload::Piece) -> Vec<u8> {
    let mut body = vec![0; cut.head_len()];
    cut.write_head(piece, &mut body);
    body.extend_from_slice(cut.payload(piece));
    body
}

fn superframe(payload: usize, gso_size: u16) -> (VnetHeader, Vec<u8>) {
    let mut tcp = etherparse::TcpHeader::new(1, 2, 3, 4);
    tcp.ack = true;
    tcp.options = [1u8; 12].into();
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.tcp_header(tcp).write(&mut frame, &vec![7; payload]).expect("fits");
    let vnet = VnetHeader { flags: 1, gso_type: 1, hdr_len: 66, gso_size, csum_start: 34, csum_offset: 16 };
    (vnet, frame)
}

fn udp(id: u16) -> (VnetHeader, Vec<u8>) {
    let mut ip = etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2])
        .expect("fits");
    ip.identification = id;
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()));
    builder.udp(1, 2).write(&mut frame, &[7; 64]).expect("fits");
    (VnetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..VnetHeader::default() }, frame)
}
