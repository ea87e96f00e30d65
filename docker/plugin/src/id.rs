//! Names that cross the protocol: Docker's own ids, and the pool ids that we give it.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;
use weft_api::id::NetworkId;

/// Docker's id of a network, an endpoint or a sandbox: 64 hexadecimal digits from a real engine, but any text up to
/// [`DockerId::MAX`] of letters, digits, `-` and `_` is taken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DockerId(String);

impl DockerId {
    /// The longest id, in bytes.
    pub const MAX: usize = 128;

    /// An id as Docker writes it; `None` if it cannot be one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        ((1..=Self::MAX).contains(&text.len()) && text.bytes().all(allowed)).then(|| Self(text.to_owned()))
    }

    /// As Docker writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DockerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What RequestPool gives Docker and Docker gives back with every address: `NETWORK/RANGE`, as in
/// `0000002a/10.32.0.0/16`. It says everything, so that no table of pools has to survive a restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PoolId {
    /// The network.
    pub network: NetworkId,
    /// One of its ranges.
    pub range: IpNet,
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.range)
    }
}

/// A pool id that we never gave.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("\"{0}\" is not a pool of weft: remove the Docker network and let weft make it again")]
pub struct PoolIdError(String);

impl FromStr for PoolId {
    type Err = PoolIdError;

    fn from_str(text: &str) -> Result<Self, PoolIdError> {
        let wrong = || PoolIdError(text.chars().take(80).collect());
        let (network, range) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self {
            network: network.parse().map_err(|_| wrong())?,
            range: range.parse().map_err(|_| wrong())?,
        })
    }
}
