//! Facts: what a host says of itself. Signed by it, versioned by it, changed by nobody else (DESIGN rule 1, PROTOCOL 6).
//! The mesh carries items as opaque (key, value) bytes; [`Item`] is what they say.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{HostId, Mac, MeshId, NetworkId};
use crate::sign::{Record, Signed, SigningKey};

/// Orders a host's own facts: the boot counter on its disk, then a sequence within the boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct FactVersion {
    /// Rises each time the process starts.
    pub boot: u64,
    /// Rises with each change.
    pub sequence: u64,
}

/// What a host signs: its whole set of items by their hash, so that a change travels as the items that differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FactHead {
    /// The mesh that it is said in.
    pub mesh: MeshId,
    /// Who says it, and whose key signs it.
    pub owner: HostId,
    /// Newer replaces older.
    pub version: FactVersion,
    /// [`Items::digest`].
    pub items: [u8; 32],
}

impl Record for FactHead {
    const DOMAIN: &'static str = "weft fact 1";
}

/// Everything that one host publishes, whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FactRecord {
    /// Signed by the owner.
    pub head: Signed<FactHead>,
    /// What it says; hashes to what the head says.
    pub items: Items,
}

impl FactRecord {
    /// Signed by the owner's key.
    #[must_use]
    pub fn sign(key: &SigningKey, mesh: MeshId, owner: HostId, version: FactVersion, items: Items) -> Self {
        let head = key.sign(&FactHead { mesh, owner, version, items: items.digest() });
        Self { head, items }
    }
}

/// Encoded [`Item`]s in one piece of memory, as they are hashed, stored and sent: each a length (16, big endian) and its bytes,
/// sorted, without repeats. Clones are the same memory. Of a peer they may be anything: [`Items::hold`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Items(Arc<[u8]>);

/// The first byte of an encoded [`Item::Endpoint`] and [`Item::Group`], so that others need not be decoded to be passed over.
const ENDPOINT: u8 = 3;
const GROUP: u8 = 5;

impl Items {
    /// Sorted and without repeats. An item is cut at 65,535 bytes.
    #[must_use]
    pub fn new(mut items: Vec<Vec<u8>>) -> Self {
        items.sort();
        items.dedup();
        items.iter().map(Vec::as_slice).collect()
    }

    /// Each item. Ends where the bytes are none.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk()?;
            let (item, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = tail;
            Some(item)
        })
    }

    /// Each item that this version understands.
    pub fn decoded(&self) -> impl Iterator<Item = Item> {
        self.iter().filter_map(Item::decode)
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contain(&self, item: &Item) -> bool {
        let encoded = item.encode();
        self.iter().any(|item| item == encoded)
    }

    /// The endpoints among them.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.decoded_of(ENDPOINT).filter_map(|item| match item {
            Item::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        })
    }

    /// The multicast groups of a network among them.
    pub fn groups(&self, of: NetworkId) -> impl Iterator<Item = IpAddr> {
        self.decoded_of(GROUP).filter_map(move |item| match item {
            Item::Group { network, group } if network == of => Some(group),
            _ => None,
        })
    }

    fn decoded_of(&self, first: u8) -> impl Iterator<Item = Item> {
        self.iter().filter(move |item| item.first() == Some(&first)).filter_map(Item::decode)
    }

    /// Whether they are well formed, sorted, without repeats, and within the bounds of a record.
    #[must_use]
    pub fn hold(&self) -> bool {
        let whole = self.iter().map(|i| 2 + i.len()).sum::<usize>() == self.0.len();
        whole
            && self.iter().count() <= MAX_ITEMS
            && self.iter().all(|i| i.len() <= MAX_ITEM_LEN)
            && self.iter().is_sorted_by(|a, b| a < b)
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        hash
    }

    /// Bytes of all items and their lengths.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

impl<'a> FromIterator<&'a [u8]> for Items {
    /// In the order given.
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(items: I) -> Self {
        let mut bytes = Vec::new();
        for item in items {
            let length = u16::try_from(item.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&item[..usize::from(length)]);
        }
        Self(bytes.into())
    }
}

impl Serialize for Items {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0[..].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Vec::deserialize(deserializer)?.into()))
    }
}

impl std::fmt::Debug for Items {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Items({} bytes)", self.0.len())
    }
}

/// A record with more items than this is refused.
pub const MAX_ITEMS: usize = 8192;

/// A record with a longer item than this is refused.
pub const MAX_ITEM_LEN: usize = 1024;

/// At most this many routes of a host are published, nearest prefixes first; it is enough to see an overlap coming.
pub const MAX_ROUTES: usize = 256;

/// One thing that a host says of itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Item {
    /// Where it can be reached: port 6783 or the one it was given.
    Address(SocketAddr),
    /// A route of its machine, so that no network is put on top of it.
    Route(IpNet),
    /// It has this network: its bridge and tap are up.
    Network(NetworkId),
    /// A container on a network here.
    Endpoint(Endpoint),
    /// The version of weft that it runs.
    Version(String),
    /// Somebody here listens to a multicast group of this network; the group 0.0.0.0 stands for all.
    Group {
        /// The network.
        network: NetworkId,
        /// The group.
        group: IpAddr,
    },
    /// A link of its that is up, to a neighbour. It is believed when both ends say so.
    Neighbour {
        /// The other end.
        host: HostId,
        /// Its round trip, microseconds; 0 until it is known.
        rtt_us: u32,
        /// Probes of a hundred that did not come back.
        loss_percent: u8,
    },
    /// An address that others see it at.
    Seen(SocketAddr),
    /// The address of the endpoint with this MAC stands in Docker's own record of its container, so that it keeps it.
    Pinned(NetworkId, Mac),
}

impl Item {
    /// The bytes that go into a [`FactRecord`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("items are plain data and always encode")
    }

    /// Reads an item; `None` for what a newer version says.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

/// A container's place on a network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network.
    pub network: NetworkId,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The container's name, once Docker has told it; empty until then.
    pub container: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Item::decode(&bytes);
            if let Ok(items) = postcard::from_bytes::<Items>(&bytes) {
                let _ = (items.hold(), items.decoded().count());
            }
        }

        #[test]
        fn items_keep_what_they_are_made_of(items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..30)) {
            let made = Items::new(items.clone());
            prop_assert!(made.hold());
            prop_assert!(items.iter().all(|i| made.iter().any(|m| m == i)));
            prop_assert_eq!(made.iter().collect::<Items>(), made);
        }
    }

    #[test]
    fn items_go_round() {
        let item = Item::Endpoint(Endpoint {
            network: NetworkId(3),
            mac: Mac([2, 0x42, 10, 32, 0, 2]),
            addresses: vec!["10.32.0.2".parse().unwrap()],
            container: "web".into(),
        });
        assert_eq!(Item::decode(&item.encode()), Some(item));
    }

    #[test]
    fn items_of_a_kind_are_found_by_their_first_byte() {
        let endpoint = Endpoint {
            network: NetworkId(3),
            mac: Mac([2; 6]),
            addresses: Vec::new(),
            container: String::new(),
        };
        let group =
            |network| Item::Group { network: NetworkId(network), group: "239.1.1.1".parse().unwrap() };
        let said = [Item::Endpoint(endpoint.clone()), group(3), group(4), Item::Version("1".into())];
        let items = Items::new(said.iter().map(Item::encode).collect());
        assert!(items.endpoints().eq([endpoint]));
        assert!(items.groups(NetworkId(4)).eq(["239.1.1.1".parse::<IpAddr>().unwrap()]));
        assert!(said.iter().all(|item| items.contain(item)) && !items.contain(&group(5)));
        let bytes = postcard::to_allocvec(&items).unwrap();
        assert_eq!(postcard::from_bytes::<Items>(&bytes).as_ref(), Ok(&items));
    }

    #[test]
    fn what_breaks_the_order_or_the_bounds_does_not_hold() {
        let items = |items: &[&[u8]]| items.iter().copied().collect::<Items>();
        assert!(items(&[&[1], &[2]]).hold());
        assert!(!items(&[&[2], &[1]]).hold());
        assert!(!items(&[&[1], &[1]]).hold());
        assert!(!items(&[&[0; MAX_ITEM_LEN + 1]]).hold());
        assert!(!Items([0, 2, 1].into()).hold(), "ends within an item");
        assert!(!Items([0].into()).hold());
        let many: Vec<[u8; 4]> = (0..=MAX_ITEMS as u32).map(u32::to_be_bytes).collect();
        assert!(!many.iter().map(|i| &i[..]).collect::<Items>().hold());
    }
}
