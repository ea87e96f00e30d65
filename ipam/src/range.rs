//! Ranges of a network: read and checked before anything is decided, so that the kernel and Docker never see a bad one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// A range cannot be a network's.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RangeError {
    /// No CIDR at all.
    #[error("\"{0}\" is not a range: write an address and a prefix length, such as 10.40.0.0/16")]
    Malformed(String),
    /// Bits are set behind the prefix.
    #[error("{given} has bits set behind its prefix: write {canonical}")]
    NotCanonical {
        /// As it was written.
        given: IpNet,
        /// As it is meant, presumably.
        canonical: IpNet,
    },
    /// An IPv4 range in the clothes of IPv6 (RFC 4291 2.5.5.2).
    #[error("{0} is a range of IPv4-mapped addresses: write the IPv4 range itself, such as 10.40.0.0/16")]
    Mapped(IpNet),
    /// No room for a gateway and a container.
    #[error("{range} is too small for a gateway and a container: use /{largest_prefix} or a shorter prefix")]
    TooSmall {
        /// The range.
        range: IpNet,
        /// The longest prefix that has room.
        largest_prefix: u8,
    },
    /// It touches addresses that no container can have.
    #[error(
        "{range} touches {reserved}, which is reserved for {purpose}: use a private range such as 10.40.0.0/16 or fd00:40::/64"
    )]
    Reserved {
        /// The range.
        range: IpNet,
        /// What it touches.
        reserved: IpNet,
        /// What that is for.
        purpose: &'static str,
    },
}

/// Reads a range as a person writes it, and checks it.
pub fn parse(text: &str) -> Result<IpNet, RangeError> {
    let range =
        text.trim().parse::<IpNet>().map_err(|_| RangeError::Malformed(text.chars().take(80).collect()))?;
    check(range)?;
    Ok(range)
}

/// Whether the range can be a network's.
pub fn check(range: IpNet) -> Result<(), RangeError> {
    if let IpNet::V6(v6) = range
        && MAPPED.contains(&v6)
    {
        return Err(RangeError::Mapped(range));
    }
    if range.trunc() != range {
        return Err(RangeError::NotCanonical { given: range, canonical: range.trunc() });
    }
    if let Some(&(reserved, purpose)) = RESERVED.iter().find(|(reserved, _)| overlap(*reserved, range)) {
        return Err(RangeError::Reserved { range, reserved, purpose });
    }
    let largest_prefix = range.max_prefix_len() - 2;
    if range.prefix_len() > largest_prefix {
        return Err(RangeError::TooSmall { range, largest_prefix });
    }
    Ok(())
}

/// The address of every host's bridge: the first after the network's own.
#[must_use]
pub fn gateway(range: IpNet) -> IpAddr {
    address(range, first(range) + 1)
}

/// Whether two ranges share an address.
#[must_use]
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Whether a machine's route keeps a range from being used there: a default route, which overlaps everything, does not.
#[must_use]
pub fn blocked_by_route(range: IpNet, route: IpNet) -> bool {
    route.prefix_len() > 0 && overlap(range, route)
}

/// Never a container's: the network's own address (in IPv6 the routers' anycast, RFC 4291 2.6.1) and IPv4's broadcast.
#[must_use]
pub fn is_reserved(range: IpNet, address: IpAddr) -> bool {
    address == range.network() || (address.is_ipv4() && address == range.broadcast())
}

/// The first address of a range as a number.
pub(crate) fn first(range: IpNet) -> u128 {
    bits(range.network())
}

/// How many bits of a range are free: 2 to this power is its size.
pub(crate) fn host_bits(range: IpNet) -> u8 {
    range.max_prefix_len() - range.prefix_len()
}

/// An address as a number.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The number as an address of the same family as the range; it must be one that lies in the range.
pub(crate) fn address(range: IpNet, bits: u128) -> IpAddr {
    match range {
        IpNet::V4(_) => {
            // Numbers here are built from addresses of the range, so the upper bits are zero.
            #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address as a number has 32 bits")]
            IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
        }
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);

const RESERVED: [(IpNet, &str); 8] = [
    (v4(0, 0, 8), "\"this network\""),
    (v4(127, 0, 8), "loopback"),
    (v4(169, 254, 16), "link-local addresses"),
    (v4(224, 0, 4), "multicast"),
    (v4(240, 0, 4), "future use and broadcast"),
    (IpNet::V6(v6([0; 8], 8)), "loopback and embedded IPv4 addresses"),
    (IpNet::V6(v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10)), "link-local addresses"),
    (IpNet::V6(v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8)), "multicast"),
];

const fn v4(a: u8, b: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix))
}

const fn v6(s: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), prefix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn good_ranges_pass() {
        for text in [
            "10.32.0.0/16",
            "10.0.0.0/8",
            "192.168.7.4/30",
            "fd00:40::/64",
            "2001:db8::/126",
            "172.16.0.0/12",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_ranges_are_refused_with_what_to_do() {
        for text in ["", "10.32.0.0", "10.32.0/16", "10.32.0.0/33", "app", "fd00::/129"] {
            assert!(refusal(text).contains("is not a range: write an address and a prefix length"), "{text}");
        }
        assert_eq!(refusal("10.0.0.1/16"), "10.0.0.1/16 has bits set behind its prefix: write 10.0.0.0/16");
        assert!(refusal("::ffff:10.0.0.0/112").contains("write the IPv4 range itself"));
        for text in ["10.0.0.0/31", "10.0.0.7/32"] {
            assert!(
                refusal(text)
                    .ends_with("too small for a gateway and a container: use /30 or a shorter prefix")
            );
        }
        assert!(refusal("fd00::/127").ends_with("use /126 or a shorter prefix"));
        for (text, purpose) in [
            ("0.0.0.0/0", "this network"),
            ("0.1.0.0/16", "this network"),
            ("127.0.0.0/16", "loopback"),
            ("169.254.8.0/24", "link-local"),
            ("224.0.0.0/16", "multicast"),
            ("255.255.0.0/16", "future use"),
            ("128.0.0.0/1", "link-local"),
            ("::/64", "loopback"),
            ("fe80::/64", "link-local"),
            ("ff02::/64", "multicast"),
        ] {
            let said = refusal(text);
            assert!(said.contains(purpose) && said.contains("use a private range"), "{said}");
        }
    }

    #[test]
    fn the_gateway_is_the_first_usable() {
        assert_eq!(gateway("10.32.0.0/16".parse().unwrap()).to_string(), "10.32.0.1");
        assert_eq!(gateway("fd00:40::/64".parse().unwrap()).to_string(), "fd00:40::1");
    }

    #[test]
    fn a_default_route_blocks_nothing() {
        let range = "10.32.0.0/16".parse().unwrap();
        assert!(!blocked_by_route(range, "0.0.0.0/0".parse().unwrap()));
        assert!(blocked_by_route(range, "10.0.0.0/8".parse().unwrap()));
        assert!(blocked_by_route(range, "10.32.7.0/24".parse().unwrap()));
        assert!(!blocked_by_route(range, "10.33.0.0/16".parse().unwrap()));
        assert!(!blocked_by_route(range, "::/1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[0-9a-f:./]{0,40}|.{0,40}") {
            if let Ok(range) = parse(&text) {
                prop_assert!(range.contains(&gateway(range)));
                prop_assert!(!is_reserved(range, gateway(range)));
            }
        }

        #[test]
        fn overlap_is_sharing_an_address(a: u32, b: u32, p in 0u8..=32, q in 0u8..=32) {
            let range = |bits, prefix| IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(bits), prefix).unwrap().trunc());
            let (a, b) = (range(a, p), range(b, q));
            let shared = a.network().max(b.network()) <= a.broadcast().min(b.broadcast());
            prop_assert_eq!(overlap(a, b), shared);
        }
    }
}
