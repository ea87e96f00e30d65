//! Frames that do not fit the path to a host: who may not be cut is told so, as from the gateway, by ICMP (RFC 1191, RFC 8201).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use weft_api::id::Mac;

use super::answer::{ethernet, ipv6_icmp};
use super::{Headers, Memory, Table};
use crate::frame::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IpVersion};
use crate::offload::checksum::Sum;

/// IPv6 packets of this length pass every link, in whatever way (RFC 8200 5).
const IPV6_LEAST: usize = 1280;
/// An answer is no longer than this (RFC 1812 4.3.2.3, RFC 4443 2.4).
const IPV4_ANSWER: usize = 576;
const IPV6_ANSWER: usize = 1280;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ICMP_LEN: usize = 8;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;
const TTL: u8 = 64;

/// What becomes of a frame that is too long for the path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TooBig {
    /// It travels in fragments of ours.
    Cut,
    /// Nothing: its sender was told often enough.
    Drop,
    /// Nothing: its sender is told by this frame, to be written into the tap.
    Tell(Vec<u8>),
}

/// Decides over a frame of our own tap of which the path to its one host takes only `room` bytes.
pub fn too_big(
    table: &Table,
    memory: &mut Memory,
    headers: &Headers<'_>,
    room: usize,
    now: Duration,
) -> TooBig {
    let Some(packet) = Packet::of(headers, room) else { return TooBig::Cut };
    let is_same = |ip: &&IpAddr| ip.is_ipv4() == packet.source.is_ipv4();
    let Some(gateway) = table.gateways.iter().find(is_same) else { return TooBig::Cut };
    if !memory.tell_too_big(headers.source, now) {
        return TooBig::Drop;
    }
    packet.answer(headers.source, *gateway).map_or(TooBig::Cut, TooBig::Tell)
}

/// A packet whose sender wants to be told.
struct Packet<'f> {
    source: IpAddr,
    bytes: &'f [u8],
    /// What its sender shall keep to.
    mtu: usize,
}

impl<'f> Packet<'f> {
    /// `None`: it may be cut, or nobody is told of such packets (RFC 1122 3.2.2, RFC 4443 2.4).
    fn of(headers: &Headers<'f>, room: usize) -> Option<Self> {
        let Headers { layout, frame, destination, .. } = *headers;
        let ip = layout.ip.filter(|_| layout.vlan_tags == 0 && !destination.is_group())?;
        let bytes = frame.get(usize::from(ip.offset)..)?;
        let source = layout.source_ip(frame).filter(|ip| !ip.is_unspecified() && !ip.is_multicast())?;
        let icmp = bytes.get(usize::from(ip.header_len)).copied();
        let fits = room.checked_sub(ETHERNET_LEN)?;
        let (mtu, tells) = match ip.version {
            IpVersion::V4 => {
                let is_error = ip.protocol == PROTOCOL_ICMP && matches!(icmp, Some(3..=5 | 11 | 12));
                let [flags, offset] = *bytes.get(6..8)?.first_chunk()?;
                (fits, flags & 0x40 != 0 && flags & 0x1f == 0 && offset == 0 && !is_error)
            }
            IpVersion::V6 => {
                let is_error = ip.protocol == PROTOCOL_ICMPV6 && icmp.is_none_or(|kind| kind < 128);
                (fits.max(IPV6_LEAST), !is_error)
            }
        };
        (tells && bytes.len() > mtu).then_some(Self { source, bytes, mtu })
    }

    fn answer(&self, to: Mac, gateway: IpAddr) -> Option<Vec<u8>> {
        let mtu = u16::try_from(self.mtu).ok()?;
        let first = |most: usize| &self.bytes[..self.bytes.len().min(most)];
        match (gateway, self.source) {
            (IpAddr::V4(gateway), IpAddr::V4(source)) => {
                let mut icmp = vec![UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0];
                icmp.extend(mtu.to_be_bytes());
                icmp.extend(first(IPV4_ANSWER - IPV4_LEN - ICMP_LEN));
                Some(ipv4_icmp(ethernet(to, Mac::GATEWAY, ETHERTYPE_IPV4), gateway, source, icmp))
            }
            (IpAddr::V6(gateway), IpAddr::V6(source)) => {
                let mut icmp = vec![PACKET_TOO_BIG, 0, 0, 0, 0, 0];
                icmp.extend(mtu.to_be_bytes());
                icmp.extend(first(IPV6_ANSWER - IPV6_LEN - ICMP_LEN));
                Some(ipv6_icmp(ethernet(to, Mac::GATEWAY, ETHERTYPE_IPV6), gateway, source, icmp))
            }
            _ => None,
        }
    }
}

/// `frame` and an ICMP packet behind it, their checksums filled in.
fn ipv4_icmp(mut frame: Vec<u8>, source: Ipv4Addr, destination: Ipv4Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    let sum = Sum::of(&icmp).checksum();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![0x45, 0];
    ip.extend(((IPV4_LEN + icmp.len()) as u16).to_be_bytes());
    ip.extend([0, 0, 0, 0, TTL, PROTOCOL_ICMP, 0, 0]);
    ip.extend(source.octets());
    ip.extend(destination.octets());
    let sum = Sum::of(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend(icmp);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::id::NetworkId;

    use super::*;

    const NOW: Duration = Duration::from_secs(9);
    const SENDER: Mac = Mac([2, 0x42, 10, 33, 0, 2]);

    fn table() -> Table {
        let mut table = Table::new(NetworkId(1), 1340, Vec::new());
        table.gateways = vec!["10.33.0.1".parse().unwrap(), "fd33::1".parse().unwrap()];
        table
    }

    fn ipv4(len: usize, flags: u8, protocol: u8, icmp: u8) -> Vec<u8> {
        let mut frame = ethernet(Mac([2, 0x42, 10, 33, 0, 3]), SENDER, ETHERTYPE_IPV4);
        frame.extend([0x45, 0]);
        frame.extend((len as u16).to_be_bytes());
        frame.extend([0, 7, flags, 0, 64, protocol, 0, 0, 10, 33, 0, 2, 10, 33, 0, 3, icmp]);
        frame.resize(ETHERNET_LEN + len, 5);
        frame
    }

    fn ipv6(len: usize) -> Vec<u8> {
        let mut frame = ethernet(Mac([2, 0x42, 10, 33, 0, 3]), SENDER, ETHERTYPE_IPV6);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(((len - 40) as u16).to_be_bytes());
        frame.extend([17, 64]);
        frame.extend("fd33::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        frame.extend("fd33::3".parse::<std::net::Ipv6Addr>().unwrap().octets());
        frame.resize(ETHERNET_LEN + len, 5);
        frame
    }

    fn judge(frame: &[u8], room: usize) -> TooBig {
        too_big(&table(), &mut Memory::new(), &Headers::of(frame).unwrap(), room, NOW)
    }

    #[test]
    fn who_forbids_cutting_is_told_what_fits() {
        let sent = ipv4(1340, 0x40, 17, 0);
        let TooBig::Tell(answer) = judge(&sent, 1214) else { panic!() };
        assert_eq!(&answer[..6], &SENDER.0);
        assert_eq!(&answer[6..12], &Mac::GATEWAY.0);
        let ip = &answer[14..];
        assert_eq!(ip.len(), 576);
        assert_eq!(Sum::of(&ip[..20]).checksum(), 0, "a right checksum sums to nothing");
        assert_eq!(Sum::of(&ip[20..]).checksum(), 0);
        assert_eq!((&ip[12..16], &ip[16..20]), (&[10, 33, 0, 1][..], &[10, 33, 0, 2][..]));
        assert_eq!(&ip[20..22], &[3, 4]);
        assert_eq!(&ip[26..28], &1200u16.to_be_bytes());
        assert_eq!(&ip[28..], &sent[14..14 + 548]);
    }

    #[test]
    fn ipv6_is_told_so_unless_it_must_pass() {
        let sent = ipv6(1340);
        let TooBig::Tell(answer) = judge(&sent, 1314) else { panic!() };
        let ip = &answer[14..];
        assert_eq!(ip.len(), 1280);
        assert_eq!(&ip[40..42], &[2, 0]);
        assert_eq!(&ip[44..48], &1300u32.to_be_bytes());
        let pseudo = Sum::of(&ip[8..40]).and_u16(ip.len() as u16 - 40).and_u16(58);
        assert_eq!(pseudo.and(&ip[40..]).checksum(), 0);
        let TooBig::Tell(answer) = judge(&sent, 1193) else { panic!() };
        assert_eq!(&answer[14 + 44..14 + 48], &1280u32.to_be_bytes(), "never less");
        assert_eq!(judge(&ipv6(1280), 1193), TooBig::Cut);
    }

    #[test]
    fn what_may_be_cut_is_and_errors_are_not_answered() {
        assert_eq!(judge(&ipv4(1340, 0, 17, 0), 1214), TooBig::Cut);
        assert_eq!(judge(&ipv4(1340, 0x41, 17, 0), 1214), TooBig::Cut, "a later fragment");
        assert_eq!(judge(&ipv4(1340, 0x40, 1, 3), 1214), TooBig::Cut, "an error");
        assert!(matches!(judge(&ipv4(1340, 0x40, 1, 8), 1214), TooBig::Tell(_)), "a ping");
        let mut to_all = ipv4(1340, 0x40, 17, 0);
        to_all[0] = 0xff;
        assert_eq!(judge(&to_all, 1214), TooBig::Cut);
        let arp = [&ethernet(SENDER, SENDER, 0x0806)[..], &[0; 1300]].concat();
        assert_eq!(judge(&arp, 1214), TooBig::Cut);
    }

    #[test]
    fn nobody_is_told_too_often() {
        let (table, mut memory, sent) = (table(), Memory::new(), ipv4(1340, 0x40, 17, 0));
        let told = (0..10_000)
            .filter(|_| {
                let headers = Headers::of(&sent).unwrap();
                matches!(too_big(&table, &mut memory, &headers, 1214, NOW), TooBig::Tell(_))
            })
            .count();
        assert!((1..=100).contains(&told), "{told}");
    }

    proptest! {
        #[test]
        fn any_frame_is_judged_without_panic(frame in prop::collection::vec(any::<u8>(), 14..200), room in 0usize..200) {
            if let Ok(headers) = Headers::of(&frame) {
                let _ = too_big(&table(), &mut Memory::new(), &headers, room, NOW);
            }
        }
    }
}
