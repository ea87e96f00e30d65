//! Facts: what a host says of itself. Signed by it, versioned by it, changed by nobody else (DESIGN rule 1, PROTOCOL 6).
//! The mesh carries items as opaque (key, value) bytes; [`Item`] is what they say.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{HostId, Mac, MeshId, NetworkId};
use crate::sign::Record;

/// Orders a host's own facts: the boot counter on its disk, then a sequence within the boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct FactVersion {
    /// Rises each time the process starts.
    pub boot: u64,
    /// Rises with each change.
    pub sequence: u64,
}

/// Everything that one host publishes, whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FactRecord {
    /// The mesh that it is said in.
    pub mesh: MeshId,
    /// Who says it, and whose key signs it.
    pub owner: HostId,
    /// Newer replaces older.
    pub version: FactVersion,
    /// Encoded [`Item`]s, sorted, without repeats; at most [`MAX_ITEMS`], each at most [`MAX_ITEM_LEN`] bytes.
    pub items: Vec<Vec<u8>>,
}

impl Record for FactRecord {
    const DOMAIN: &'static str = "weft fact 1";
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
}
