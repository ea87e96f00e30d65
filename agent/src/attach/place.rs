//! Where an endpoint is that weft itself made; it stands in the endpoint where Docker's id of a network would.

use std::fmt;
use std::str::FromStr;

use weft_api::id::NetworkId;

use crate::state::ledger::Endpoint;

/// What this host is called in lists, as a user of a network.
pub const HOST_NAME: &str = "(host)";

/// Where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On this host itself.
    Host,
    /// In the network namespace with this number.
    Namespace(u64),
    /// On its way into a namespace. After a crash it is nowhere.
    OnItsWay,
}

impl Place {
    /// Where an endpoint is; `None`: Docker made it.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        endpoint.docker_network.parse().ok()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("weft:host"),
            Self::Namespace(inode) => write!(f, "weft:netns:{inode}"),
            Self::OnItsWay => f.write_str("weft:making"),
        }
    }
}

impl FromStr for Place {
    type Err = ();

    /// Docker's ids are hexadecimal: none is a place.
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("weft:").ok_or(())? {
            "host" => Ok(Self::Host),
            "making" => Ok(Self::OnItsWay),
            other => {
                let inode = other.strip_prefix("netns:").ok_or(())?;
                inode.parse().map(Self::Namespace).map_err(drop)
            }
        }
    }
}

/// The endpoint id of this host's own place on a network, the same after every start; its first 12 characters name the veth.
#[must_use]
pub fn host_endpoint(network: NetworkId) -> String {
    format!("host{network}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_router_io::bridge::host_ifname;

    use super::*;

    proptest! {
        #[test]
        fn places_go_round(inode: u64) {
            for place in [Place::Host, Place::Namespace(inode), Place::OnItsWay] {
                prop_assert_eq!(place.to_string().parse(), Ok(place));
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,80}") {
            let _ = text.parse::<Place>();
        }
    }

    #[test]
    fn this_hosts_endpoint_names_a_veth() {
        assert_eq!(host_ifname(&host_endpoint(NetworkId(0x2a))).unwrap(), "wvehost0000002a");
        assert_eq!("0a".repeat(32).parse::<Place>(), Err(()), "Docker's ids are no places");
    }
}
