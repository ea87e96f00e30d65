//! What the plugin does to the kernel, behind a trait, so that its answers are tested without one.

use std::future::Future;

use weft_api::id::{Mac, NetworkId};
use weft_api::network::Network;
use weft_router_io::bridge::{BridgeError, Bridges};

/// Bridges and veths.
pub trait Wires: Clone + Send + Sync + 'static {
    /// The bridge of the network is there, as it must be.
    fn ensure_bridge(&self, network: &Network) -> impl Future<Output = Result<(), BridgeError>> + Send;

    /// Makes the veth of an endpoint, replacing an old one; the name of the container's side.
    fn create_veth(
        &self,
        network: NetworkId,
        endpoint: &str,
        mac: Mac,
        mtu: u16,
    ) -> impl Future<Output = Result<String, BridgeError>> + Send;

    /// Removes the veth of an endpoint; false if there was none.
    fn delete_veth(&self, endpoint: &str) -> impl Future<Output = Result<bool, BridgeError>> + Send;
}

impl Wires for Bridges {
    async fn ensure_bridge(&self, network: &Network) -> Result<(), BridgeError> {
        Self::ensure_bridge(self, network).await
    }

    async fn create_veth(
        &self,
        network: NetworkId,
        endpoint: &str,
        mac: Mac,
        mtu: u16,
    ) -> Result<String, BridgeError> {
        Self::create_veth(self, network, endpoint, mac, mtu).await
    }

    async fn delete_veth(&self, endpoint: &str) -> Result<bool, BridgeError> {
        Self::delete_veth(self, endpoint).await
    }
}
