//! Multicast groups: who of this host listens to what (IGMP, RFC 2236 and RFC 3376; MLD, RFC 2710 and RFC 3810), learnt as a
//! snooping switch does (RFC 4541) from what containers answer to the queries of [`query`].

mod memberships;
mod query;
mod report;

use std::net::{IpAddr, Ipv4Addr};

pub use memberships::{MAX_GROUPS, MAX_GROUPS_OF_A_NETWORK, Memberships};
pub use report::{Heard, heard};

/// In place of a group: everything that is sent to any. A host says so while it does not know, while it has more groups than
/// it may name, and while there is a multicast router among its containers.
pub const EVERY_GROUP: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Whether frames to `group` go only where it is listened to. Not those that every host must hear (224.0.0.0/24 and ff02::1,
/// RFC 4541 2.1.2 and 3), nor neighbour discovery's groups, of which each IPv6 address has one.
#[must_use]
pub fn is_followed(group: IpAddr) -> bool {
    const SOLICITED_NODE: [u8; 13] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
    match group {
        IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        IpAddr::V6(group) => {
            let octets = group.octets();
            let all_nodes = octets[..2] == [0xff, 2] && octets[2..15] == [0; 13] && octets[15] == 1;
            // Scopes 0 and 1 never leave their host (RFC 4291 2.7).
            let leaves = octets[1] & 0xf > 1;
            group.is_multicast() && leaves && !all_nodes && octets[..13] != SOLICITED_NODE
        }
    }
}

#[cfg(test)]
mod tests;
