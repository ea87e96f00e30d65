//! Bodies that Docker does not send, and the bytes of every answer.

use proptest::prelude::*;
use weft_api::id::{Mac, NetworkId};

use super::{Incoming, PoolId, Refusal, Request, Response, receive};

const METHODS: &[&str] = &[
    "Plugin.Activate",
    "NetworkDriver.GetCapabilities",
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.EndpointOperInfo",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.DiscoverNew",
    "NetworkDriver.DiscoverDelete",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
    "NetworkDriver.AllocateNetwork",
    "NetworkDriver.FreeNetwork",
    "IpamDriver.GetCapabilities",
    "IpamDriver.GetDefaultAddressSpaces",
    "IpamDriver.RequestPool",
    "IpamDriver.ReleasePool",
    "IpamDriver.RequestAddress",
    "IpamDriver.ReleaseAddress",
];

fn refused(method: &str, body: &str) -> String {
    receive(method, body.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_mistyped_option_is_named() {
    let sentence = refused(
        "NetworkDriver.CreateNetwork",
        r#"{"NetworkID":"ab","Options":{"com.docker.network.generic":{"weft.netwrok":"1"}}}"#,
    );
    assert!(sentence.contains("\"weft.netwrok\""), "{sentence}");
    let sentence = refused("IpamDriver.RequestPool", r#"{"Options":{"weft.size":"1"}}"#);
    assert!(sentence.contains("\"weft.size\""), "{sentence}");
    let sentence = refused("IpamDriver.RequestPool", r#"{"Options":{"weft.network":"app"}}"#);
    assert!(sentence.contains("8 hexadecimal digits"), "{sentence}");
}

#[test]
fn options_that_are_not_known_are_named() {
    for (method, body) in [
        ("IpamDriver.RequestPool", r#"{"Options":{"foo":"bar"}}"#),
        (
            "NetworkDriver.CreateNetwork",
            r#"{"NetworkID":"ab","Options":{"com.docker.network.generic":{"foo":"bar"},"com.docker.network.later":1}}"#,
        ),
    ] {
        assert!(refused(method, body).contains("\"foo\""), "{method}");
    }
    let both = r#"{"NetworkID":"ab","Options":{"com.docker.network.generic":{"weft.mtu":"1300","com.docker.network.driver.mtu":"1300"}}}"#;
    assert!(refused("NetworkDriver.CreateNetwork", both).contains("give one of them"));
    let body = br#"{"Pool":null,"SubPool":null,"V6":null,"Options":null}"#;
    assert!(matches!(receive("IpamDriver.RequestPool", body), Ok(Incoming::Asked(Request::RequestPool(_)))));
    let body = br#"{"NetworkID":"ab","Options":null,"IPv4Data":null,"IPv6Data":null}"#;
    assert!(matches!(receive("NetworkDriver.CreateNetwork", body), Ok(Incoming::Asked(_))));
}

#[test]
fn what_cannot_be_ours_is_let_go_of_without_a_word() {
    for (method, body) in [
        ("IpamDriver.ReleasePool", r#"{"PoolID":"LocalDefault/10.0.0.0/8"}"#),
        ("IpamDriver.ReleaseAddress", r#"{"PoolID":"x","Address":"y"}"#),
        ("NetworkDriver.DeleteNetwork", "{}"),
        ("NetworkDriver.Leave", r#"{"NetworkID":"../..","EndpointID":""}"#),
        ("NetworkDriver.DeleteEndpoint", ""),
    ] {
        assert_eq!(receive(method, body.as_bytes()), Ok(Incoming::Answered(Response::Done)), "{method}");
    }
}

#[test]
fn sentences_for_people() {
    assert!(
        refused("IpamDriver.RequestPool", r#"{"Pool":"10.32.0.9/16"}"#).contains("did you mean 10.32.0.0/16")
    );
    assert!(refused("NetworkDriver.AllocateNetwork", "{}").contains("swarm"));
    assert!(refused("NetworkDriver.Frobnicate", "{}").contains("Frobnicate"));
    assert!(refused("NetworkDriver.Join", "{").contains("cannot be read"));
    assert!(refused("NetworkDriver.Join", "{}").contains("no network"));
    let long = "x".repeat(super::MAX_BODY + 1);
    assert!(refused("NetworkDriver.Join", &long).contains("leave out the option"));
}

#[test]
fn bodies() {
    let pool = PoolId { network: NetworkId(0xabcd), range: "10.32.0.0/16".parse().unwrap() };
    let gateway = "10.32.0.1".parse().unwrap();
    for (response, body) in [
        (Response::Done, "{}"),
        (Response::Implements, r#"{"Implements":["NetworkDriver","IpamDriver"]}"#),
        (Response::NetworkCapabilities, r#"{"ConnectivityScope":"global","Scope":"local"}"#),
        (Response::IpamCapabilities, r#"{"RequiresMACAddress":false,"RequiresRequestReplay":false}"#),
        (
            Response::AddressSpaces,
            r#"{"GlobalDefaultAddressSpace":"weft-global","LocalDefaultAddressSpace":"weft"}"#,
        ),
        (
            Response::Pool { pool, gateway },
            r#"{"Data":{"com.docker.network.gateway":"10.32.0.1/16"},"Pool":"10.32.0.0/16","PoolID":"0000abcd/10.32.0.0/16"}"#,
        ),
        (Response::Address("10.32.0.2/16".parse().unwrap()), r#"{"Address":"10.32.0.2/16","Data":{}}"#),
        (
            Response::Endpoint(Some(Mac([2, 0x42, 10, 32, 0, 2]))),
            r#"{"Interface":{"MacAddress":"02:42:0a:20:00:02"}}"#,
        ),
        (Response::Endpoint(None), r#"{"Interface":{}}"#),
        (Response::OperInfo, r#"{"Value":{}}"#),
        (
            Response::Join { interface: "wvc4cef99700c62".into() },
            r#"{"InterfaceName":{"DstPrefix":"eth","SrcName":"wvc4cef99700c62"}}"#,
        ),
    ] {
        assert_eq!(String::from_utf8(response.to_body()).unwrap(), format!("{body}\n"));
    }
    assert_eq!(Refusal::new("no").to_body(), b"{\"Err\":\"no\",\"Error\":\"no\"}\n");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(method in prop::sample::select(METHODS), body: Vec<u8>) {
        let _ = receive(method, &body);
    }

    #[test]
    fn any_json_is_read_without_panic(
        method in prop::sample::select(METHODS),
        key in prop::sample::select(&["Pool", "PoolID", "Address", "Options", "Interface", "IPv4Data", "NetworkID", "V6"][..]),
        value in prop::sample::select(&["null", "1", "true", "[]", "{}", "[{}]", "[null]", "\"x\"", "{\"a\":{\"b\":[]}}"][..]),
        text in ".{0,40}",
    ) {
        let _ = receive(method, format!("{{\"{key}\":{value}}}").as_bytes());
        let body = serde_json::json!({"PoolID": text, "Address": text, "Pool": text, "NetworkID": text, "EndpointID": text});
        let _ = receive(method, body.to_string().as_bytes());
    }

    #[test]
    fn pool_ids_go_round(network: u32, a: [u8; 4], len in 0u8..=32) {
        let range = ipnet::IpNet::new(a.into(), len).unwrap().trunc();
        let pool = PoolId { network: NetworkId(network), range };
        prop_assert_eq!(pool.to_string().parse(), Ok(pool));
    }

    #[test]
    fn refusals_are_short_json(sentence in ".{0,2000}") {
        let refusal = Refusal::new(sentence);
        prop_assert!(refusal.to_string().len() <= Refusal::MAX);
        let json: serde_json::Value = serde_json::from_slice(&refusal.to_body()).unwrap();
        prop_assert_eq!(json["Err"].as_str().unwrap(), refusal.to_string());
    }
}
