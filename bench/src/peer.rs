//! Who is measured: each peer joins two containers on two hosts, all in the same shape:
//! container - veth - bridge - (tap or device of the peer) - underlay, MTU 1500.

mod fastd;
mod plain;
mod tinc;
mod weft;

use std::{fmt, str::FromStr};

use weft_lab::Lab;

use crate::ends::Ends;

/// Everybody, in the order of the table.
pub const ALL: [Peer; 8] = [
    Peer::Veth,
    Peer::Fastd,
    Peer::Tinc,
    Peer::Vxlan,
    Peer::Weft,
    Peer::WeftOneLane,
    Peer::WeftRelay,
    Peer::WeftAes256,
];

/// Somebody who joins two containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The underlay itself, bridged: what the machine could do.
    Veth,
    /// Kernel VXLAN, not encrypted.
    Vxlan,
    /// fastd, tap, aes128-gcm.
    Fastd,
    /// tinc 1.0, switch mode.
    Tinc,
    /// weft as `weft init` makes it.
    Weft,
    /// weft with AES-256-GCM.
    WeftAes256,
    /// weft with one lane, however many processors there are.
    WeftOneLane,
    /// weft between two hosts that only a third one reaches.
    WeftRelay,
}

/// A peer that is up; dropping it removes everything.
#[derive(Debug)]
pub struct Up {
    /// The containers.
    pub ends: Ends,
    // The processes of the peer and of the containers die with their hosts.
    _lab: Lab,
}

impl Peer {
    /// Its name on the command line and in the results.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Veth => "veth",
            Peer::Vxlan => "vxlan",
            Peer::Fastd => "fastd",
            Peer::Tinc => "tinc",
            Peer::Weft => "weft",
            Peer::WeftAes256 => "weft-aes256",
            Peer::WeftOneLane => "weft-one-lane",
            Peer::WeftRelay => "weft-relay",
        }
    }

    /// What a reader of the table should know about it.
    pub fn about(self) -> &'static str {
        match self {
            Peer::Veth => "the underlay itself as a bridge port: nothing added",
            Peer::Vxlan => "in the kernel, no encryption",
            Peer::Fastd => "userspace, tap mode, aes128-gcm",
            Peer::Tinc => "userspace, 1.0, switch mode, aes-128-cbc and sha1",
            Peer::Weft => "default suite, real Docker containers",
            Peer::WeftAes256 => "AES-256-GCM, real Docker containers",
            Peer::WeftOneLane => "default suite, `weft up --lanes 1`",
            Peer::WeftRelay => "default suite, through a third host: the two do not reach each other",
        }
    }

    /// Programs of other people that must be installed.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Peer::Fastd => &["fastd"],
            Peer::Tinc => &["tincd"],
            Peer::Veth | Peer::Vxlan => &[],
            Peer::Weft | Peer::WeftAes256 | Peer::WeftOneLane | Peer::WeftRelay => &["dockerd", "docker"],
        }
    }

    /// Is it us?
    pub fn ours(self) -> bool {
        matches!(self, Peer::Weft | Peer::WeftAes256 | Peer::WeftOneLane | Peer::WeftRelay)
    }

    /// Brings the hosts up, and the peer on them.
    pub fn up(self) -> anyhow::Result<Up> {
        let hosts = if self == Peer::WeftRelay { 3 } else { 2 };
        let lab = Lab::builder().hosts(hosts).engines(self.ours()).up()?;
        let ends = match self {
            Peer::Veth => plain::veth(&lab)?,
            Peer::Vxlan => plain::vxlan(&lab)?,
            Peer::Fastd => fastd::up(&lab)?,
            Peer::Tinc => tinc::up(&lab)?,
            Peer::Weft => weft::up(&lab, &[], &[])?,
            Peer::WeftAes256 => weft::up(&lab, &["--cipher", "aes-256-gcm"], &[])?,
            Peer::WeftOneLane => weft::up(&lab, &[], &["--lanes", "1"])?,
            Peer::WeftRelay => weft::relayed(&lab)?,
        };
        Ok(Up { ends, _lab: lab })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(name: &str) -> Result<Peer, String> {
        ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|p| p.name()).collect();
            format!("no peer `{name}`: choose among {}", names.join(" "))
        })
    }
}
