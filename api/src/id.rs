//! Identifiers: small, `Copy`, and never confusable with each other.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An identifier was not written as it must be.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("\"{text}\" is not a {what}: {expected}")]
pub struct ParseIdError {
    /// What was meant to be read.
    pub what: &'static str,
    /// What was given.
    pub text: String,
    /// How it should look.
    pub expected: &'static str,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let wrong = || ParseIdError { what: $what, text: text.chars().take(80).collect(), expected: $expected };
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(wrong());
                }
                let mut bytes = [0; $len];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(d).map(Self)
                }
            }
        }
    };
}

hex_id!(
    /// A host's Ed25519 public key: who the host is.
    HostKey, 32, "host key", "64 hexadecimal digits"
);
hex_id!(
    /// The first 8 bytes of SHA-256 of a host's key; how relays and facts name it. A roster refuses a record that collides.
    HostId, 8, "host id", "16 hexadecimal digits"
);
hex_id!(
    /// The mesh's Ed25519 public key, which signs the roster.
    MeshKey, 32, "mesh key", "64 hexadecimal digits"
);
hex_id!(
    /// SHA-256 of the mesh key; pinned by every token.
    MeshId, 32, "mesh id", "64 hexadecimal digits"
);
hex_id!(
    /// Names a token without giving it away.
    TokenId, 16, "token id", "32 hexadecimal digits"
);
hex_id!(
    /// Chosen anew each time a host's process starts: tells a restart from a lost link.
    BootId, 16, "boot id", "32 hexadecimal digits"
);

impl HostKey {
    /// The short name of this key.
    #[must_use]
    pub fn id(&self) -> HostId {
        let hash = digest(&SHA256, &self.0);
        let mut id = [0; 8];
        id.copy_from_slice(&hash.as_ref()[..8]);
        HostId(id)
    }
}

impl MeshKey {
    /// The beginning of its hash, for people to compare.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        HostKey(self.0).id().to_string()
    }

    /// The id of the mesh that this key signs for.
    #[must_use]
    pub fn id(&self) -> MeshId {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        MeshId(id)
    }
}

/// A network's number in every frame chunk; given by the controller, never reused while a tombstone of it exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId(pub u32);

impl NetworkId {
    /// The Linux bridge of this network, `wft-XXXXXXXX`.
    #[must_use]
    pub fn bridge_name(self) -> String {
        format!("wft-{self}")
    }

    /// The tap of this network, `wtp-XXXXXXXX`.
    #[must_use]
    pub fn tap_name(self) -> String {
        format!("wtp-{self}")
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NetworkId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError {
            what: "network id",
            text: text.chars().take(80).collect(),
            expected: "8 hexadecimal digits",
        };
        if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u32::from_str_radix(text, 16).map(Self).map_err(|_| wrong())
    }
}

impl Serialize for NetworkId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
    }
}

impl<'de> Deserialize<'de> for NetworkId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
        } else {
            u32::deserialize(d).map(Self)
        }
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The gateway's address on every network and every host (anycast): it never enters the mesh.
    pub const GATEWAY: Self = Self([0x02, 0x77, 0x65, 0x66, 0x74, 0x01]);

    /// The stable address of an endpoint: `02:42` and the IPv4 octets.
    #[must_use]
    pub fn of_ipv4(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The stable address of an endpoint that has IPv6 only: `06:42` and the last four octets.
    #[must_use]
    pub fn of_ipv6(ip: Ipv6Addr) -> Self {
        let o = ip.octets();
        Self([0x06, 0x42, o[12], o[13], o[14], o[15]])
    }

    /// Group bit set: broadcast or multicast.
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError {
            what: "MAC address",
            text: text.chars().take(80).collect(),
            expected: "six hexadecimal pairs such as 02:42:0a:20:00:02",
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 6]>::deserialize(d).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bridge_names_fit_an_interface_name() {
        assert_eq!(NetworkId(0xdead_beef).bridge_name(), "wft-deadbeef");
        assert!(NetworkId(u32::MAX).tap_name().len() < 16);
    }

    #[test]
    fn mac_of_an_address() {
        assert_eq!(Mac::of_ipv4(Ipv4Addr::new(10, 32, 0, 2)).to_string(), "02:42:0a:20:00:02");
    }

    proptest! {
        #[test]
        fn text_goes_round(key: [u8; 32], mac: [u8; 6], net: u32) {
            prop_assert_eq!(HostKey(key).to_string().parse(), Ok(HostKey(key)));
            prop_assert_eq!(Mac(mac).to_string().parse(), Ok(Mac(mac)));
            prop_assert_eq!(NetworkId(net).to_string().parse(), Ok(NetworkId(net)));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}") {
            let _ = text.parse::<HostKey>();
            let _ = text.parse::<Mac>();
            let _ = text.parse::<NetworkId>();
        }
    }
}
