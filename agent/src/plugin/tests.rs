//! Docker's calls, byte for byte as it sends them, on a plugin whose kernel is made up.

mod clients;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{Mac, NetworkId};
use weft_api::network::Network;
use weft_api::request::{HoldRange, RangeHeld};
use weft_router_io::bridge::{BridgeError, container_ifname};

use super::{Plugin, Wires};
use crate::book::NoBlock;
use crate::book::tests::{Bench, NET, RANGE, ip, view};

/// Remembers what it was told to make.
#[derive(Clone, Default)]
struct Bridges(Arc<Mutex<Made>>);

#[derive(Default)]
struct Made {
    bridges: BTreeSet<NetworkId>,
    veths: BTreeSet<String>,
    hangs: bool,
}

impl Wires for Bridges {
    async fn ensure_bridge(&self, network: &Network) -> Result<(), BridgeError> {
        self.0.lock().unwrap().bridges.insert(network.id);
        Ok(())
    }

    async fn create_veth(
        &self,
        network: NetworkId,
        endpoint: &str,
        _: Mac,
        _: u16,
    ) -> Result<String, BridgeError> {
        if self.0.lock().unwrap().hangs {
            std::future::pending::<()>().await;
        }
        let mut made = self.0.lock().unwrap();
        if !made.bridges.contains(&network) {
            return Err(BridgeError::NoLink { name: network.bridge_name() });
        }
        made.veths.insert(endpoint.into());
        container_ifname(endpoint)
    }

    async fn delete_veth(&self, endpoint: &str) -> Result<bool, BridgeError> {
        Ok(self.0.lock().unwrap().veths.remove(endpoint))
    }
}

/// Who decides: gives one range, and is away for another.
fn hold(wish: HoldRange) -> Pin<Box<dyn Future<Output = Result<RangeHeld, ApiError>> + Send>> {
    let range = wish.range.unwrap_or_else(|| "10.33.0.0/16".parse().unwrap());
    let held = RangeHeld { network: NetworkId(7), range, gateway: "10.33.0.1".parse().unwrap() };
    let away = ApiError::new(ErrorKind::Unavailable, "h1 decides and cannot be asked");
    Box::pin(std::future::ready(if wish.range.is_none() { Ok(held) } else { Err(away) }))
}

struct Docker {
    plugin: Arc<Plugin<Bridges>>,
    bridges: Bridges,
    bench: Bench,
}

impl Docker {
    fn new(blocks: &[(u8, u8)]) -> Self {
        Self::on(Bench::new(blocks), Bridges::default())
    }

    fn on(bench: Bench, bridges: Bridges) -> Self {
        let plugin = Arc::new(Plugin::new(Arc::clone(&bench.book), bridges.clone(), Arc::new(hold)));
        Self { plugin, bridges, bench }
    }

    /// The process dies and comes back; the kernel keeps what it has.
    fn crash(self, blocks: &[(u8, u8)]) -> Self {
        let Self { plugin, bridges, bench } = self;
        drop(plugin);
        Self::on(bench.crash(blocks), bridges)
    }

    async fn call(&self, method: &str, body: Value) -> Value {
        let answer = super::answer(&self.plugin, method, body.to_string().as_bytes()).await;
        let bytes = answer.map_or_else(|refusal| refusal.to_body(), |response| response.to_body());
        serde_json::from_slice(&bytes).unwrap()
    }

    /// The sentence of a refusal.
    async fn refused(&self, method: &str, body: Value) -> String {
        self.call(method, body).await["Err"].as_str().expect("a refusal").to_owned()
    }

    async fn make_network(&self) {
        let options = json!({"weft.network": "00000001"});
        let pool = self
            .call("IpamDriver.RequestPool", json!({"AddressSpace": "weft", "Pool": RANGE, "SubPool": "", "Options": options, "V6": false}))
            .await;
        assert_eq!(pool["PoolID"], POOL);
        assert_eq!(pool["Data"]["com.docker.network.gateway"], "10.32.0.1/24");
        let gateway = self
            .call("IpamDriver.RequestAddress", json!({"PoolID": POOL, "Address": "10.32.0.1", "Options": {"RequestAddressType": "com.docker.network.gateway"}}))
            .await;
        assert_eq!(gateway["Address"], "10.32.0.1/24");
        let data =
            [json!({"AddressSpace": "weft", "Pool": RANGE, "Gateway": "10.32.0.1/24", "AuxAddresses": {}})];
        let made = json!({"NetworkID": network_id(), "IPv4Data": data, "IPv6Data": [], "Options": {"com.docker.network.generic": options}});
        assert_eq!(self.call("NetworkDriver.CreateNetwork", made).await, json!({}));
    }

    async fn address(&self) -> Value {
        self.call("IpamDriver.RequestAddress", json!({"PoolID": POOL, "Address": "", "Options": null})).await
    }
}

const POOL: &str = "00000001/10.32.0.0/24";

fn network_id() -> String {
    "d".repeat(64)
}

fn endpoint() -> Value {
    json!({"NetworkID": network_id(), "EndpointID": "e".repeat(64)})
}

fn connecting(address: &str) -> Value {
    let mut endpoint = endpoint();
    endpoint["Interface"] = json!({"Address": address, "AddressIPv6": "", "MacAddress": ""});
    endpoint["Options"] = json!({});
    endpoint
}

fn joining() -> Value {
    let mut endpoint = endpoint();
    endpoint["SandboxKey"] = "/var/run/docker/netns/0123456789ab".into();
    endpoint["Options"] = json!({});
    endpoint
}

#[tokio::test]
async fn a_network_without_a_name_gets_a_range() {
    let docker = Docker::new(&[(0, 1)]);
    let plain = json!({"AddressSpace": "weft", "Pool": "", "SubPool": "", "Options": null, "V6": false});
    let pool = docker.call("IpamDriver.RequestPool", plain).await;
    assert_eq!(pool["PoolID"], "00000007/10.33.0.0/16");
    let aux = json!({"PoolID": pool["PoolID"], "Address": "10.33.0.9", "Options": null});
    assert!(docker.refused("IpamDriver.RequestAddress", aux).await.contains("--aux-address"));
    let made = |range: &str, options: Value| {
        let data = [json!({"AddressSpace": "weft", "Pool": range, "Gateway": "10.33.0.1/16"})];
        json!({"NetworkID": network_id(), "IPv4Data": data, "Options": {"com.docker.network.generic": options}})
    };
    let wrong = made("10.33.0.0/16", json!({"weft.mtu": "9000"}));
    assert!(docker.refused("NetworkDriver.CreateNetwork", wrong).await.contains("9000"));
    let stray = made("10.55.0.0/16", json!({}));
    assert!(docker.refused("NetworkDriver.CreateNetwork", stray).await.contains("10.55.0.0/16"));
    let right = made("10.33.0.0/16", json!({"weft.mtu": "1300"}));
    assert_eq!(docker.call("NetworkDriver.CreateNetwork", right).await, json!({}));
    assert!(docker.bench.book.is_coming(NetworkId(7)));
    let docker = docker.crash(&[(0, 1)]);
    assert!(docker.bench.book.is_coming(NetworkId(7)), "what Docker was told is on the disk");
    // Docker has not heard it, and the person tries again: what comes of the first try is nobody's.
    docker.call("IpamDriver.RequestPool", json!({"AddressSpace": "weft", "Pool": "", "Options": null})).await;
    let mut again = made("10.33.0.0/16", json!({}));
    again["NetworkID"] = "f".repeat(64).into();
    assert_eq!(docker.call("NetworkDriver.CreateNetwork", again).await, json!({}));
    assert_eq!(docker.bench.book.docker_ids(NetworkId(7)), ["f".repeat(64)]);
    assert_eq!(
        docker.call("NetworkDriver.DeleteNetwork", json!({"NetworkID": "f".repeat(64)})).await,
        json!({})
    );
    assert!(docker.bench.book.absent().is_empty(), "the mesh never knew it");
}

#[tokio::test]
async fn the_range_of_a_network_is_that_network() {
    let docker = Docker::new(&[(0, 1)]);
    let pool = json!({"AddressSpace": "weft", "Pool": RANGE, "SubPool": "", "Options": null, "V6": false});
    assert_eq!(docker.call("IpamDriver.RequestPool", pool).await["PoolID"], POOL);
    let data = [json!({"AddressSpace": "weft", "Pool": RANGE, "Gateway": "10.32.0.1/24"})];
    let mut made = json!({"NetworkID": network_id(), "IPv4Data": data, "Options": {"com.docker.network.internal": true}});
    assert!(docker.refused("NetworkDriver.CreateNetwork", made.clone()).await.contains("--internal"));
    made["Options"] = json!({});
    assert_eq!(docker.call("NetworkDriver.CreateNetwork", made.clone()).await, json!({}));
    assert_eq!(docker.bench.book.docker_ids(NET), [network_id()]);
    let gone = json!({"NetworkID": network_id()});
    let own = docker.bench.book.at_work(Some(NET));
    assert_eq!(docker.call("NetworkDriver.DeleteNetwork", gone.clone()).await, json!({}));
    drop(own);
    assert!(docker.bench.book.absent().is_empty(), "our own doing");
    assert_eq!(docker.call("NetworkDriver.CreateNetwork", made.clone()).await, json!({}));
    assert_eq!(docker.call("NetworkDriver.DeleteNetwork", gone).await, json!({}));
    assert_eq!(docker.bench.book.absent().get(&NET), Some(&false), "not on this host, but the mesh's");
    assert!(docker.bench.book.networks_here().is_empty());
    let docker = docker.crash(&[(0, 1)]);
    assert!(docker.bench.book.networks_here().is_empty());
    assert_eq!(docker.call("NetworkDriver.CreateNetwork", made).await, json!({}));
    assert_eq!(docker.bench.book.networks_here().len(), 1, "made again, it is here again");
}

#[tokio::test]
async fn a_container_comes_and_goes() {
    let docker = Docker::new(&[(0, 1)]);
    docker.make_network().await;
    assert_eq!(docker.address().await["Address"], "10.32.0.2/24");
    let created = docker.call("NetworkDriver.CreateEndpoint", connecting("10.32.0.2/24")).await;
    assert_eq!(created["Interface"]["MacAddress"], "02:42:0a:20:00:02");
    let joined = docker.call("NetworkDriver.Join", joining()).await;
    assert_eq!(joined["InterfaceName"], json!({"SrcName": "wvceeeeeeeeeeee", "DstPrefix": "eth"}));
    assert!(joined.get("Gateway").is_none(), "Docker adds docker_gwbridge");
    assert_eq!(docker.bench.book.endpoints().len(), 1);
    assert_eq!(docker.call("NetworkDriver.Leave", endpoint()).await, json!({}));
    assert_eq!(docker.call("NetworkDriver.DeleteEndpoint", endpoint()).await, json!({}));
    assert!(docker.bridges.0.lock().unwrap().veths.is_empty());
    let release = json!({"PoolID": POOL, "Address": "10.32.0.2"});
    assert_eq!(docker.call("IpamDriver.ReleaseAddress", release).await, json!({}));
    assert_eq!(docker.address().await["Address"], "10.32.0.2/24");
}

#[tokio::test]
async fn a_crash_between_any_two_calls_loses_nothing() {
    let blocks = [(0, 1)];
    let docker = Docker::new(&blocks);
    docker.make_network().await;
    let docker = docker.crash(&blocks);
    assert_eq!(docker.address().await["Address"], "10.32.0.2/24");
    let docker = docker.crash(&blocks);
    let created = docker.call("NetworkDriver.CreateEndpoint", connecting("10.32.0.2/24")).await;
    assert_eq!(created["Interface"]["MacAddress"], "02:42:0a:20:00:02");
    let docker = docker.crash(&blocks);
    let joined = docker.call("NetworkDriver.Join", joining()).await;
    assert_eq!(joined["InterfaceName"]["SrcName"], "wvceeeeeeeeeeee");
    let docker = docker.crash(&blocks);
    assert_eq!(docker.address().await["Address"], "10.32.0.3/24", "no address twice");
    assert_eq!(docker.bench.book.endpoints().len(), 1);
}

#[tokio::test]
async fn a_chosen_mac_is_not_answered() {
    let docker = Docker::new(&[(0, 1)]);
    docker.make_network().await;
    docker.address().await;
    let mut wish = connecting("10.32.0.2/24");
    wish["Interface"]["MacAddress"] = "02:00:00:00:00:05".into();
    assert_eq!(docker.call("NetworkDriver.CreateEndpoint", wish).await["Interface"], json!({}));
    assert_eq!(docker.bench.book.endpoints()[0].mac, Mac([2, 0, 0, 0, 0, 5]));
}

#[tokio::test]
async fn what_is_unknown_is_gone_already() {
    let docker = Docker::new(&[]);
    for (method, body) in [
        ("NetworkDriver.Leave", endpoint()),
        ("NetworkDriver.DeleteEndpoint", endpoint()),
        ("NetworkDriver.DeleteNetwork", json!({"NetworkID": network_id()})),
        ("IpamDriver.ReleaseAddress", json!({"PoolID": POOL, "Address": "10.32.0.77"})),
        ("IpamDriver.ReleasePool", json!({"PoolID": POOL})),
        ("IpamDriver.ReleasePool", json!({"PoolID": "what is this"})),
    ] {
        assert_eq!(docker.call(method, body).await, json!({}), "{method}");
    }
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let docker = Docker::new(&[(0, 1), (4, 2)]);
    let plain =
        json!({"AddressSpace": "weft", "Pool": "10.44.0.0/16", "SubPool": "", "Options": {}, "V6": false});
    assert!(docker.refused("IpamDriver.RequestPool", plain).await.contains("h1 decides"));
    let sub = json!({"AddressSpace": "weft", "Pool": "10.44.0.0/16", "SubPool": "10.44.4.0/24"});
    assert!(docker.refused("IpamDriver.RequestPool", sub).await.contains("--ip-range"));
    let unknown = json!({"AddressSpace": "weft", "Pool": RANGE, "Options": {"weft.network": "000000ff"}});
    assert!(docker.refused("IpamDriver.RequestPool", unknown).await.contains("weft network ls"));
    let other =
        json!({"AddressSpace": "weft", "Pool": "10.99.0.0/16", "Options": {"weft.network": "00000001"}});
    assert!(docker.refused("IpamDriver.RequestPool", other).await.contains("10.32.0.0/24"));
    let elsewhere = json!({"PoolID": POOL, "Address": "10.32.0.5", "Options": null});
    assert!(docker.refused("IpamDriver.RequestAddress", elsewhere).await.contains("host h2"));
    assert!(
        docker
            .refused("NetworkDriver.CreateEndpoint", connecting("10.32.0.2/24"))
            .await
            .contains("remove it")
    );
    assert!(docker.refused("NetworkDriver.Join", joining()).await.contains("eeeeeeeeeeee"));
}

#[tokio::test]
async fn a_container_waits_for_a_block_that_is_on_its_way() {
    let docker = Docker::new(&[]);
    let book = Arc::clone(&docker.bench.book);
    let coming = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        book.learn(Arc::new(view(&[(8, 1)])));
    });
    assert_eq!(docker.address().await["Address"], "10.32.0.8/24");
    coming.await.unwrap();
}

#[tokio::test]
async fn a_container_does_not_wait_for_a_block_that_was_refused() {
    let docker = Docker::new(&[]);
    let refusal = NoBlock { why: "all of it is given out".into(), decided: true };
    docker.bench.book.no_block(NET, RANGE.parse().unwrap(), Some(refusal));
    let start = std::time::Instant::now();
    let said = docker.refused("IpamDriver.RequestAddress", json!({"PoolID": POOL, "Address": ""})).await;
    assert!(said.contains("network app is full") && said.contains("given out"), "{said}");
    assert!(start.elapsed() < Duration::from_millis(1000));
}

#[tokio::test]
async fn a_kernel_that_hangs_does_not_hang_docker() {
    let docker = Docker::new(&[(0, 1)]);
    docker.make_network().await;
    docker.address().await;
    docker.call("NetworkDriver.CreateEndpoint", connecting("10.32.0.2/24")).await;
    docker.bridges.0.lock().unwrap().hangs = true;
    let start = std::time::Instant::now();
    assert!(docker.refused("NetworkDriver.Join", joining()).await.contains("within 2 s"));
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn many_at_once_get_an_address_each() {
    let docker = Docker::new(&[(0, 1), (8, 1), (12, 1), (16, 1), (20, 1)]);
    let asked: Vec<_> = (0..18)
        .map(|_| {
            let plugin = Arc::clone(&docker.plugin);
            let body = json!({"PoolID": POOL, "Address": ""}).to_string();
            tokio::spawn(
                async move { super::answer(&plugin, "IpamDriver.RequestAddress", body.as_bytes()).await },
            )
        })
        .collect();
    let mut given = BTreeSet::new();
    for answer in asked {
        let body: Value = serde_json::from_slice(&answer.await.unwrap().unwrap().to_body()).unwrap();
        assert!(given.insert(body["Address"].as_str().unwrap().to_owned()), "{body}");
    }
    assert!(docker.bench.book.free(NET, ip("10.32.0.2")).unwrap());
}
