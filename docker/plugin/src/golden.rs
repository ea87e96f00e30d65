//! Every call that Engine 20.10.24 made of a logging plugin while networks and containers came and went, as it was
//! sent, and what we read in it.

use crate::{
    CreateEndpoint, CreateNetwork, DockerId, EndpointRef, Incoming, Join, Pool, PoolId, Request,
    RequestAddress, RequestPool, Response, receive,
};
use ipnet::IpNet;
use serde::Deserialize;
use weft_api::id::{Mac, NetworkId};

#[derive(Deserialize)]
struct Call {
    when: String,
    method: String,
    body: String,
}

fn calls() -> Vec<Call> {
    include_str!("../golden/engine-20.10.24.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What was asked while this went on.
fn asked(when: &str) -> Vec<Request> {
    let read = |call: Call| match receive(&call.method, call.body.as_bytes()).unwrap() {
        Incoming::Asked(request) => Some(request),
        Incoming::Answered(_) => None,
    };
    calls().into_iter().filter(|call| call.when == when).filter_map(read).collect()
}

fn pool(range: &str) -> PoolId {
    PoolId { network: NetworkId(0xabcd), range: range.parse().unwrap() }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn docker(text: &str) -> DockerId {
    DockerId::new(text).unwrap()
}

const APP: &str = "7daa2c290d9ff22f71e54e9cf13ff34dc5b4f1d682db21d248f475f734d9ccf1";
const V6: &str = "2a7e972d8407e12225cb675424bd801bd86c0a67d72234412bdb25b3ddb0081c";

#[test]
fn a_network_with_all_options() {
    let requests = asked("create_net");
    assert_eq!(
        requests,
        [
            Request::RequestPool(RequestPool {
                network: Some(NetworkId(0xabcd)),
                range: Some(net("10.32.0.0/16")),
                sub_range: None,
                v6: false,
            }),
            Request::RequestAddress(RequestAddress {
                pool: pool("10.32.0.0/16"),
                address: Some("10.32.0.1".parse().unwrap()),
                gateway: true,
            }),
            Request::CreateNetwork(CreateNetwork {
                docker: docker(APP),
                network: Some(NetworkId(0xabcd)),
                pools: vec![Pool { range: net("10.32.0.0/16"), gateway: Some("10.32.0.1".parse().unwrap()) }],
                internal: false,
                ipv6: false,
                mtu: Some(1340),
            }),
        ]
    );
}

#[test]
fn the_first_calls_need_nobody() {
    let first: Vec<_> =
        calls().into_iter().take(4).map(|c| receive(&c.method, c.body.as_bytes()).unwrap()).collect();
    assert_eq!(
        first,
        [
            Incoming::Answered(Response::Implements),
            Incoming::Answered(Response::NetworkCapabilities),
            Incoming::Answered(Response::IpamCapabilities),
            Incoming::Answered(Response::AddressSpaces),
        ]
    );
}

#[test]
fn a_network_typed_by_a_person() {
    let requests = asked("create_plain");
    let nothing = RequestPool { network: None, range: None, sub_range: None, v6: false };
    assert_eq!(requests[0], Request::RequestPool(nothing));
    assert!(matches!(&requests[1], Request::CreateNetwork(c) if c.network.is_none() && c.mtu.is_none()));
}

#[test]
fn addresses_of_another_ipam_driver_are_refused() {
    let call = calls().into_iter().find(|call| call.when == "create_foreign").unwrap();
    let refusal = receive(&call.method, call.body.as_bytes()).unwrap_err();
    assert!(refusal.to_string().contains("add --ipam-driver weft"), "{refusal}");
}

#[test]
fn two_families_and_no_way_out() {
    let requests = asked("create_v6_internal");
    assert_eq!(requests.len(), 5);
    let Request::CreateNetwork(network) = &requests[4] else { panic!("{requests:?}") };
    assert_eq!(network.docker, docker(V6));
    assert!(network.internal && network.ipv6);
    assert_eq!(
        network.pools.iter().map(|p| p.range).collect::<Vec<_>>(),
        [net("10.34.0.0/16"), net("fd77::/64")]
    );
    let requests = asked("run_v6");
    let Request::CreateEndpoint(endpoint) = &requests[2] else { panic!("{requests:?}") };
    assert_eq!(endpoint.addresses, [net("10.32.0.4/16"), net("fd77::5/64")]);
    assert!(matches!(requests[4..], [Request::EndpointOperInfo(_), Request::EndpointOperInfo(_)]));
}

#[test]
fn a_container_comes_and_goes() {
    let at = EndpointRef {
        network: docker(APP),
        endpoint: docker("4cef99700c6283c0993f005ca89fc7d1c628cf7d052a270e3fc7d5e650f6bb34"),
    };
    assert_eq!(
        asked("run"),
        [
            Request::RequestAddress(RequestAddress {
                pool: pool("10.32.0.0/16"),
                address: None,
                gateway: false
            }),
            Request::CreateEndpoint(CreateEndpoint {
                at: at.clone(),
                addresses: vec![net("10.32.0.2/16")],
                mac: None
            }),
            Request::Join(Join { at: at.clone(), sandbox: "/var/run/docker/netns/591eb0dd29fb".into() }),
        ]
    );
    assert_eq!(
        asked("stop"),
        [
            Request::Leave(at.clone()),
            Request::DeleteEndpoint(at),
            Request::ReleaseAddress { pool: pool("10.32.0.0/16"), address: "10.32.0.2".parse().unwrap() },
        ]
    );
}

#[test]
fn chosen_addresses() {
    let requests = asked("run_ip");
    assert!(
        matches!(&requests[0], Request::RequestAddress(r) if r.address == Some("10.32.0.50".parse().unwrap()) && !r.gateway)
    );
    let requests = asked("mac");
    let mac = Mac([2, 0, 0, 0, 0, 0x99]);
    assert!(matches!(&requests[1], Request::CreateEndpoint(e) if e.mac == Some(mac)));
    let requests = asked("aux");
    assert!(
        matches!(&requests[0], Request::RequestPool(p) if p.sub_range == Some(net("10.40.4.0/24")) && p.network.is_none())
    );
}

#[test]
fn a_network_goes() {
    let gone = asked("netrm");
    assert!(matches!(
        gone[..3],
        [Request::ReleaseAddress { .. }, Request::ReleasePool(_), Request::DeleteNetwork(_)]
    ));
}
