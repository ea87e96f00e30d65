//! Merged UDP frames, segmented again, are what was merged.

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_oneof, proptest};

use super::pieces::{GLUE, bodies, receive, resegment};
use super::superframe::Spec;
use crate::offload::{Cut, CutLimits, Merge, Offer, VnetHeader};

/// A frame of one of a few flows, its checksum open, as our tap gives it.
#[derive(Clone, Debug)]
struct Small {
    is_v6: bool,
    vlan_tags: u8,
    is_tcp: bool,
    flow: u8,
    id: u16,
    len: usize,
}

impl Small {
    fn frame(&self) -> (VnetHeader, Vec<u8>) {
        let Small { is_v6, vlan_tags, is_tcp, id, len, .. } = *self;
        let spec = Spec {
            vlan_tags,
            is_v6,
            is_tcp,
            ip_options: 0,
            tcp_options: 0,
            psh_fin_cwr_ece: [false; 4],
            sequence: 1,
            id,
            len: len.max(1),
            gso_size: 60_000,
        };
        let (mut vnet, mut frame) = spec.superframe();
        (vnet.gso_type, vnet.gso_size) = (0, 0);
        frame[5] = self.flow;
        (vnet, frame)
    }
}

fn any_batch() -> impl Strategy<Value = Vec<Small>> {
    let sameness =
        (any::<bool>(), prop_oneof![Just(0u8), 0..2u8], prop::sample::select(vec![1usize, 64, 700]));
    let frame = (0..20u8, any::<u16>());
    let first_id = prop::sample::select(vec![0u16, 5, u16::MAX - 20]);
    (sameness, first_id, any::<bool>(), prop::collection::vec(frame, 1..200)).prop_map(
        |((is_v6, vlan_tags, len), first_id, is_counting, odd)| {
            let frame = |(number, (odd, other)): (usize, (u8, u16))| {
                let id = if is_counting { first_id.wrapping_add(number as u16) } else { first_id };
                let usual = Small { is_v6, vlan_tags, is_tcp: false, flow: 0, id, len };
                match odd {
                    0 => Small { len: usize::from(other) % 1000, ..usual },
                    1 => Small { flow: 1, ..usual },
                    2 => Small { is_tcp: true, ..usual },
                    3 => Small { id: other, ..usual },
                    4 => Small { is_v6: !is_v6, ..usual },
                    _ => usual,
                }
            };
            odd.into_iter().enumerate().map(frame).collect()
        },
    )
}

/// Runs a batch through; each superframe or frame that comes out.
fn merge(batch: &[(VnetHeader, Vec<u8>)]) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut merge = Merge::new();
    let mut out = Vec::new();
    for (vnet, frame) in batch {
        let mut offer = merge.offer(vnet, frame);
        if offer == Offer::Flush {
            out.extend(merge.take().map(|merged| (merged.vnet, merged.frame.to_vec())));
            offer = merge.offer(vnet, frame);
        }
        assert_ne!(offer, Offer::Flush, "nothing is held");
        if offer == Offer::Pass {
            assert!(merge.is_empty());
            out.push((*vnet, frame.clone()));
        }
    }
    out.extend(merge.take().map(|merged| (merged.vnet, merged.frame.to_vec())));
    assert!(merge.is_empty());
    out
}

/// The frames with all checksums; ids of zero that segmentation counts up are cleared, see [`Merge`].
fn finished(frames: Vec<(VnetHeader, Vec<u8>)>, keeps_ids: bool) -> Vec<Vec<u8>> {
    let mut segments: Vec<_> = frames.into_iter().flat_map(|(vnet, frame)| resegment(vnet, frame)).collect();
    for segment in segments.iter_mut().filter(|_| !keeps_ids) {
        let ip = if segment[12] == 0x81 { 18 } else { 14 };
        if segment[ip] == 0x45 {
            segment[ip + 4..ip + 6].fill(0);
            segment[ip + 10..ip + 12].fill(0);
        }
    }
    segments
}

proptest! {
    #[test]
    fn merged_and_segmented_is_what_went_in(batch in any_batch()) {
        let keeps_ids = batch.iter().all(|small| small.id != 0);
        let batch: Vec<_> = batch.iter().map(Small::frame).collect();
        let merged = merge(&batch);
        prop_assert!(merged.len() <= batch.len());
        let mut carried = Vec::new();
        for (vnet, frame) in &merged {
            if !vnet.is_superframe() {
                carried.push((*vnet, frame.clone()));
                continue;
            }
            let cut = Cut::new(vnet, frame, CutLimits { max_body: 1400, inner_mtu: 1500 }, 1).unwrap();
            carried.extend(receive(&GLUE, &bodies(&cut)));
        }
        let expected = finished(batch, keeps_ids);
        prop_assert!(finished(merged, keeps_ids) == expected);
        prop_assert!(finished(carried, keeps_ids) == expected);
    }
}

fn small(id: u16, len: usize) -> Small {
    Small { is_v6: false, vlan_tags: 0, is_tcp: false, flow: 0, id, len }
}

#[test]
fn a_train_of_one_flow_becomes_one_superframe() {
    let batch: Vec<_> = (0..100).map(|id| small(id, if id == 99 { 10 } else { 64 }).frame()).collect();
    let merged = merge(&batch);
    assert_eq!(merged.len(), 1);
    let (vnet, frame) = &merged[0];
    assert_eq!((vnet.gso_type, vnet.gso_size, frame.len()), (5, 64, 42 + 99 * 64 + 10));
    let zeros: Vec<_> = (0..100).map(|_| small(0, 64).frame()).collect();
    assert_eq!(merge(&zeros).len(), 1);
}

#[test]
fn what_segmentation_would_not_restore_is_not_merged() {
    let count = |frames: &[(VnetHeader, Vec<u8>)]| merge(frames).len();
    let change = |at: usize, value: u8| {
        let (vnet, mut frame) = small(2, 64).frame();
        frame[at] = value;
        [small(1, 64).frame(), (vnet, frame)]
    };
    assert_eq!(count(&[small(1, 64).frame(), small(2, 64).frame()]), 1);
    assert_eq!(count(&[small(1, 64).frame(), small(3, 64).frame()]), 2);
    assert_eq!(count(&[small(1, 64).frame(), small(1, 64).frame()]), 2);
    assert_eq!(count(&[small(1, 64).frame(), small(2, 65).frame()]), 2);
    assert_eq!(count(&[small(1, 64).frame(), small(2, 63).frame(), small(3, 63).frame()]), 2);
    for at in [0, 6, 12, 15, 16, 17, 19, 20, 22, 24, 26, 30, 34, 36, 38] {
        assert_eq!(count(&change(at, 0x77)), 2, "byte {at}");
    }
    let mut computed = [small(1, 64).frame(), small(2, 64).frame()];
    computed[1].0.flags = 0;
    assert_eq!(count(&computed), 2);
    let mut trailer = [small(1, 64).frame(), small(2, 62).frame()];
    trailer[1].1.push(0);
    assert_eq!(count(&trailer), 2);
    let mut fragments = [small(0, 64).frame(), small(0, 64).frame()];
    fragments.iter_mut().for_each(|(_, frame)| frame[20] = 0);
    assert_eq!(count(&fragments), 2, "zero ids without DF");
}
