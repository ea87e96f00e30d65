//! The API as hosts and people use it: what is answered, and that every refusal says what is wrong and what to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::desk::{Desk, host, id, key, wish};
use proptest::prelude::*;
use serde_json::{Value, json};
use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::{MeshId, NetworkId, TokenId};
use weft_api::network::Network;
use weft_api::request::{Admitted, Caller, Goodbye};
use weft_api::roster::Standing;
use weft_api::token::Token;

const ADMIN: Caller = Caller::Admin;

#[tokio::test]
async fn a_host_joins_and_gets_the_signed_roster() {
    let desk = Desk::new();
    let token = desk.token(json!({})).await;
    let mut changes = desk.controller.changes();
    changes.mark_unchanged();
    let (status, answer) = desk.join(&token, 2, "h2").await;
    assert_eq!(status, 200);
    assert!(changes.has_changed().unwrap());
    let admitted: Admitted = serde_json::from_value(answer).unwrap();
    let mesh_key = host(200).public();
    assert_eq!(admitted.mesh.verify(&mesh_key).unwrap().name, "quiet-fox");
    let roster: Vec<_> = admitted.roster.iter().map(|r| r.verify(&mesh_key).unwrap()).collect();
    let names: BTreeSet<_> = roster.iter().map(|r| (r.name.as_str(), r.key, r.roles.founder)).collect();
    assert_eq!(names, BTreeSet::from([("h1", key(1), true), ("h2", key(2), false)]));
    let (_, tokens) = desk.admin("GET", "/v1/tokens", Value::Null).await;
    assert_eq!(tokens[0]["used_by"], json!(["h2"]));
    assert_eq!(tokens[0]["expires"], 1_800_086_400);
}

#[tokio::test]
async fn the_same_key_gets_the_same_answer_whatever_became_of_the_token() {
    let desk = Desk::new();
    let token = desk.token(json!({"once": true, "valid_secs": 60})).await;
    let first = desk.join(&token, 2, "h2").await;
    desk.wait(61);
    let sequence = *desk.controller.changes().borrow();
    assert_eq!(desk.join(&token, 2, "h2").await, first);
    let desk = desk.reopen();
    assert_eq!(desk.join(&token, 2, "other-name").await, first);
    assert_eq!(*desk.controller.changes().borrow(), sequence);
}

#[tokio::test]
async fn a_bad_token_is_refused_by_its_own_sentence() {
    let desk = Desk::new();
    let via = Caller::Member(id(1));
    let refused = async |body: Value, status: u16| desk.refused(via, "POST", "/v1/join", body, status).await;

    let once = desk.token(json!({"once": true})).await;
    assert_eq!(desk.join(&once, 2, "h2").await.0, 200);
    let said = refused(wish(&once, 3, "h3"), 403).await;
    assert!(
        said.contains("good for one host and h2 has used it") && said.contains("weft token new"),
        "{said}"
    );

    let short = desk.token(json!({"valid_secs": 60})).await;
    desk.wait(60 + 3 * 3600);
    let said = refused(wish(&short, 3, "h3"), 403).await;
    assert!(said.contains("expired 3 h ago") && said.contains("weft token new"), "{said}");

    let removed = desk.token(json!({})).await;
    let (status, _) = desk.admin("DELETE", &format!("/v1/tokens/{}", removed.id), Value::Null).await;
    assert_eq!(status, 204);
    assert!(refused(wish(&removed, 3, "h3"), 403).await.contains("was removed: make a new one"));

    let unknown = Token { id: TokenId([7; 16]), ..removed.clone() };
    assert!(refused(wish(&unknown, 3, "h3"), 404).await.contains("this mesh has no token"));

    let good = desk.token(json!({})).await;
    let guessed = Token { seed: [1; 32], ..good.clone() };
    assert!(refused(wish(&guessed, 3, "h3"), 403).await.contains("not signed with the token's key"));

    let elsewhere = Token { mesh: MeshId([5; 32]), ..good.clone() };
    assert!(refused(wish(&elsewhere, 3, "h3"), 403).await.contains("another mesh than \"quiet-fox\""));

    let said = refused(wish(&good, 3, "H2"), 409).await;
    assert!(said.contains("host named \"H2\" already") && said.contains("--name, such as H2-2"), "{said}");
    assert!(refused(wish(&good, 3, "h 3"), 400).await.contains("cannot be a host's name: use"));
    assert!(
        refused(json!({"wish": {"bytes": [1], "signature": []}}), 400)
            .await
            .contains("another version of weft")
    );
    assert!(refused(json!({"wish": 7}), 400).await.contains("cannot be read"));

    assert_eq!(desk.join(&good, 3, "h3").await.0, 200);
    assert_eq!(desk.controller.roster().len(), 3);
}

#[tokio::test]
async fn a_removed_host_stays_out_and_its_blocks_return() {
    let desk = Desk::new();
    let token = desk.token(json!({})).await;
    assert_eq!(desk.join(&token, 2, "h2").await.0, 200);
    let app: Network = serde_json::from_value(desk.network(json!({"name": "app"})).await).unwrap();
    let want = json!({"network": app.id, "range": app.subnets[0].range, "have": []});
    let member = Caller::Member(id(2));
    let (_, granted) = desk.ask(member, "POST", "/v1/blocks", want.clone()).await;
    assert_eq!(granted, json!({"blocks": ["10.32.0.0/26"]}));

    assert_eq!(desk.admin("DELETE", "/v1/hosts/h2", Value::Null).await.0, 204);
    let said = desk.refused(ADMIN, "DELETE", "/v1/hosts/h2", Value::Null, 404).await;
    assert!(said.contains("no host named \"h2\"") && said.contains("weft hosts"), "{said}");
    let said = desk.refused(member, "POST", "/v1/blocks", want.clone(), 403).await;
    assert!(said.contains("no member"), "{said}");
    let said = desk.refused(Caller::Member(id(1)), "POST", "/v1/join", wish(&token, 2, "h2"), 403).await;
    assert!(said.contains("final for its key") && said.contains("weft leave"), "{said}");
    assert_eq!(desk.join(&token, 3, "h2").await.0, 200);

    let gone =
        desk.controller.decisions().iter().map(|d| d.verify(&host(1).public()).unwrap()).any(|d| {
            d.key == DecisionKey::Block(app.id, "10.32.0.0/26".parse().unwrap()) && d.body.is_none()
        });
    assert!(gone, "the block has a tombstone");
    let (_, granted) = desk.ask(Caller::Member(id(3)), "POST", "/v1/blocks", want).await;
    assert_eq!(granted, json!({"blocks": ["10.32.0.0/26"]}));
    let records = desk.controller.roster();
    let removed =
        records.iter().map(|r| r.verify(&host(200).public()).unwrap()).find(|r| r.key == key(2)).unwrap();
    assert_eq!((removed.standing, removed.serial), (Standing::Removed, 2));
}

#[tokio::test]
async fn the_founder_cannot_be_removed() {
    let desk = Desk::new();
    let said = desk.refused(ADMIN, "DELETE", "/v1/hosts/h1", Value::Null, 409).await;
    assert!(said.starts_with("h1 founded the mesh") && said.contains("weft leave --force"), "{said}");
    let said = desk.refused(ADMIN, "DELETE", &format!("/v1/hosts/{}", id(1)), Value::Null, 409).await;
    assert!(said.starts_with("h1 founded the mesh"), "{said}");
}

#[tokio::test]
async fn a_goodbye_counts_by_its_own_signature() {
    let desk = Desk::new();
    desk.member(2).await;
    desk.member(3).await;
    let mesh = desk.controller.mesh().verify(&host(200).public()).unwrap().mesh;
    let bye = Goodbye { key: key(2), mesh };
    let forged = json!(host(3).sign(&bye));
    let carried_by = Caller::Member(id(3));
    let said = desk.refused(carried_by, "POST", "/v1/goodbye", forged, 403).await;
    assert!(said.contains("not signed by the host that leaves"), "{said}");
    let elsewhere = json!(host(2).sign(&Goodbye { mesh: MeshId([4; 32]), ..bye.clone() }));
    desk.refused(carried_by, "POST", "/v1/goodbye", elsewhere, 403).await;
    let true_one = json!(host(2).sign(&bye));
    for _ in 0..2 {
        assert_eq!(desk.ask(carried_by, "POST", "/v1/goodbye", true_one.clone()).await.0, 204);
    }
    let said = desk.refused(
        carried_by,
        "POST",
        "/v1/goodbye",
        json!(host(9).sign(&Goodbye { key: key(9), mesh })),
        403,
    );
    assert!(said.await.contains("no member"));
}

#[tokio::test]
async fn tokens_are_listed_removed_and_bounded() {
    let desk = Desk::new();
    for valid in [0u64, 366 * 86_400] {
        let said = desk.refused(ADMIN, "POST", "/v1/tokens", json!({"valid_secs": valid}), 400).await;
        assert!(said.contains("choose 1 s to 365 days with --expires"), "{said}");
    }
    let said = desk.refused(ADMIN, "DELETE", "/v1/tokens/zz", Value::Null, 404).await;
    assert!(said.contains("no token zz") && said.contains("weft token ls"), "{said}");
    for _ in 0..256 {
        desk.token(json!({"valid_secs": 60})).await;
    }
    let said = desk.refused(ADMIN, "POST", "/v1/tokens", json!({}), 409).await;
    assert!(said.contains("256 valid tokens") && said.contains("weft token rm"), "{said}");
    desk.wait(60);
    let token = desk.token(json!({})).await;
    let (_, tokens) = desk.admin("GET", "/v1/tokens", Value::Null).await;
    assert_eq!(tokens.as_array().unwrap().len(), 1);
    let start = &token.id.to_string()[..6];
    assert_eq!(desk.admin("DELETE", &format!("/v1/tokens/{start}"), Value::Null).await.0, 204);
    assert_eq!(desk.admin("GET", "/v1/tokens", Value::Null).await.1, json!([]));
}

#[tokio::test]
async fn the_mesh_is_full_at_its_limit() {
    let desk = Desk::new();
    let token = desk.token(json!({})).await;
    for n in 2..=32 {
        assert_eq!(desk.join(&token, n, &format!("h{n}")).await.0, 200);
    }
    let said = desk.refused(Caller::Member(id(1)), "POST", "/v1/join", wish(&token, 33, "h33"), 409).await;
    assert!(said.contains("32 hosts") && said.contains("weft host rm"), "{said}");
}

#[tokio::test]
async fn a_network_gets_the_first_range_in_nobodys_way() {
    let desk = Desk::new();
    desk.member(2).await;
    let routes = ["0.0.0.0/0", "10.32.0.0/16", "10.33.5.0/24"].map(|r| r.parse().unwrap()).to_vec();
    desk.controller.observe(id(2), routes, BTreeMap::new());
    desk.controller.observe(id(99), vec!["10.34.0.0/16".parse().unwrap()], BTreeMap::new());
    let app = desk.network(json!({"name": "app", "ipv6": true})).await;
    assert_eq!(app["subnets"][0], json!({"range": "10.34.0.0/16", "gateway": "10.34.0.1"}));
    assert!(app["subnets"][1]["range"].as_str().unwrap().starts_with("fd"));
    assert_eq!((&app["mtu"], &app["internal"]), (&json!(1340), &json!(false)));
    let db =
        desk.network(json!({"name": "db", "subnets": ["fd00:7::/64"], "mtu": 1384, "internal": true})).await;
    assert_eq!(db["subnets"][0]["range"], "10.35.0.0/16");
    assert_eq!(db["subnets"][1], json!({"range": "fd00:7::/64", "gateway": "fd00:7::1"}));
    assert_ne!(app["id"], db["id"]);
}

#[tokio::test]
async fn a_bad_network_is_refused_and_nothing_changes() {
    let desk = Desk::new();
    desk.member(2).await;
    desk.network(json!({"name": "app", "subnets": ["10.40.0.0/16"]})).await;
    desk.controller.observe(id(2), vec!["10.50.0.0/15".parse().unwrap()], BTreeMap::new());
    let before = desk.controller.decisions();
    let bad = [
        (
            json!({"name": "b", "subnets": ["10.41.0.0"]}),
            400,
            "\"10.41.0.0\" is not a range: write an address and a prefix",
        ),
        (json!({"name": "b", "subnets": ["10.41.0.0/40"]}), 400, "is not a range"),
        (json!({"name": "b", "subnets": ["10.41.0.1/16"]}), 400, "behind its prefix: write 10.41.0.0/16"),
        (
            json!({"name": "b", "subnets": ["10.41.0.0/31"]}),
            400,
            "too small for a gateway and a container: use /30",
        ),
        (json!({"name": "b", "subnets": ["224.0.0.0/16"]}), 400, "reserved for multicast"),
        (json!({"name": "b", "subnets": ["127.0.0.0/16"]}), 400, "reserved for loopback"),
        (json!({"name": "b", "subnets": ["fe80::/64"]}), 400, "reserved for link-local"),
        (json!({"name": "b", "subnets": ["::ffff:10.0.0.0/112"]}), 400, "write the IPv4 range itself"),
        (json!({"name": "b", "subnets": ["10.41.0.0/16", "10.42.0.0/16"]}), 400, "both IPv4 ranges"),
        (
            json!({"name": "b", "subnets": ["10.40.7.0/24"]}),
            409,
            "overlaps 10.40.0.0/16 of network app: choose another range",
        ),
        (json!({"name": "b", "subnets": ["10.51.0.0/16"]}), 409, "overlaps 10.50.0.0/15, a route of h2"),
        (
            json!({"name": "b", "mtu": 1279}),
            400,
            "too small, IPv6 needs 1280 (RFC 8200): choose 1280 to 1384",
        ),
        (
            json!({"name": "b", "mtu": 1500}),
            400,
            "do not fit one datagram on an underlay of 1500: choose 1280 to 1384",
        ),
        (json!({"name": "b", "mtu": 70000}), 400, "cannot be read"),
        (json!({"name": "App"}), 409, "has a network named \"app\" already: choose another name"),
        (json!({"name": "a b"}), 400, "cannot be a network's name: use"),
        (json!({"name": "host"}), 400, "Docker keeps for itself: choose another name"),
        (json!({}), 400, "missing field `name`"),
        (Value::Null, 400, "cannot be read"),
    ];
    for (body, status, words) in bad {
        let said = desk.refused(ADMIN, "POST", "/v1/networks", body, status).await;
        assert!(said.contains(words), "{said:?} lacks {words:?}");
    }
    desk.controller.observe(
        id(2),
        vec!["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
            .into_iter()
            .map(|r| r.parse().unwrap())
            .collect(),
        BTreeMap::new(),
    );
    let said = desk.refused(ADMIN, "POST", "/v1/networks", json!({"name": "b"}), 409).await;
    assert!(
        said.contains("no IPv4 range of the default pool is free") && said.contains("--subnet"),
        "{said}"
    );
    assert_eq!(desk.controller.decisions(), before);
}

#[tokio::test]
async fn a_network_in_use_stays_and_an_unused_one_leaves_a_tombstone() {
    let desk = Desk::new();
    desk.member(2).await;
    let app: Network = serde_json::from_value(desk.network(json!({"name": "app"})).await).unwrap();
    let want = json!({"network": app.id, "range": app.subnets[0].range, "have": []});
    desk.ask(Caller::Member(id(2)), "POST", "/v1/blocks", want.clone()).await;
    desk.controller.observe(id(2), vec![], BTreeMap::from([(app.id, 2)]));
    let said = desk.refused(ADMIN, "DELETE", "/v1/networks/app", Value::Null, 409).await;
    assert!(said.contains("in use by 2 containers (2 on h2): stop or disconnect them first"), "{said}");
    desk.controller.observe(id(2), vec![], BTreeMap::from([(app.id, 0)]));
    assert_eq!(desk.ask(Caller::Member(id(2)), "DELETE", "/v1/networks/app", Value::Null).await.0, 204);
    let said = desk.refused(ADMIN, "DELETE", "/v1/networks/app", Value::Null, 404).await;
    assert!(said.contains("no network named \"app\": weft network ls"), "{said}");
    let said = desk.refused(Caller::Member(id(2)), "POST", "/v1/blocks", want, 404).await;
    assert!(said.contains("was removed"), "{said}");
    let decisions: Vec<_> =
        desk.controller.decisions().iter().map(|d| d.verify(&host(1).public()).unwrap()).collect();
    let gone = |key: DecisionKey| decisions.iter().any(|d| d.key == key && d.body.is_none());
    assert!(gone(DecisionKey::Network(app.id)));
    assert!(gone(DecisionKey::Block(app.id, "10.32.0.0/26".parse().unwrap())));
    let again: Network = serde_json::from_value(desk.network(json!({"name": "app"})).await).unwrap();
    assert_ne!(again.id, app.id);
}

#[tokio::test]
async fn the_block_of_a_wanted_address_is_given_unless_somebody_has_it() {
    let desk = Desk::new();
    desk.member(2).await;
    let net: Network =
        serde_json::from_value(desk.network(json!({"name": "app", "subnets": ["10.40.0.0/24"]})).await)
            .unwrap();
    let want =
        |address: &str| json!({"network": net.id, "range": "10.40.0.0/24", "have": [], "address": address});
    let (one, two) = (Caller::Member(id(1)), Caller::Member(id(2)));
    let granted = json!({"blocks": ["10.40.0.200/30"]});
    assert_eq!(desk.ask(one, "POST", "/v1/blocks", want("10.40.0.201")).await, (200, granted.clone()));
    assert_eq!(desk.ask(one, "POST", "/v1/blocks", want("10.40.0.202")).await, (200, granted));
    let said = desk.refused(two, "POST", "/v1/blocks", want("10.40.0.203"), 409).await;
    assert!(said.contains("10.40.0.200/30 is held by h1"), "{said}");
    desk.refused(two, "POST", "/v1/blocks", want("10.41.0.1"), 400).await;
    let lowest = json!({"network": net.id, "range": "10.40.0.0/24", "have": []});
    assert_eq!(desk.ask(two, "POST", "/v1/blocks", lowest).await.1, json!({"blocks": ["10.40.0.0/30"]}));
}

#[tokio::test]
async fn blocks_are_given_once_lowest_first_until_the_range_is_full() {
    let desk = Desk::new();
    desk.member(2).await;
    let net: Network =
        serde_json::from_value(desk.network(json!({"name": "app", "subnets": ["10.40.0.0/29"]})).await)
            .unwrap();
    let want = |have: &[&str]| json!({"network": net.id, "range": "10.40.0.0/29", "have": have});
    let (one, two) = (Caller::Member(id(1)), Caller::Member(id(2)));
    let first = json!({"blocks": ["10.40.0.0/30"]});
    assert_eq!(desk.ask(one, "POST", "/v1/blocks", want(&[])).await, (200, first.clone()));
    assert_eq!(desk.ask(one, "POST", "/v1/blocks", want(&[])).await, (200, first));
    let said = desk.refused(two, "POST", "/v1/blocks", want(&["10.40.0.0/30"]), 409).await;
    assert!(said.starts_with("h2 claims 10.40.0.0/30"), "{said}");
    assert_eq!(desk.ask(two, "POST", "/v1/blocks", want(&[])).await.1, json!({"blocks": ["10.40.0.4/30"]}));
    let said = desk.refused(one, "POST", "/v1/blocks", want(&["10.40.0.0/30"]), 409).await;
    assert!(said.contains("hold all blocks of 10.40.0.0/29") && said.contains("h2: 1"), "{said}");
    assert!(said.contains("larger --subnet"), "{said}");
    let elsewhere = json!({"network": net.id, "range": "10.41.0.0/29", "have": []});
    let said = desk.refused(one, "POST", "/v1/blocks", elsewhere, 400).await;
    assert!(said.contains("has no range 10.41.0.0/29: weft network inspect app"), "{said}");
    let nowhere = json!({"network": NetworkId(1), "range": "10.41.0.0/29", "have": []});
    desk.refused(one, "POST", "/v1/blocks", nowhere, 404).await;
    let said = desk.refused(ADMIN, "POST", "/v1/blocks", want(&[]), 403).await;
    assert!(said.contains("given to hosts, not to people"), "{said}");
    let owners: Vec<_> = desk
        .controller
        .decisions()
        .iter()
        .map(|d| d.verify(&host(1).public()).unwrap())
        .filter_map(|d| match d.body {
            Some(DecisionBody::Block { owner }) => Some(owner),
            _ => None,
        })
        .collect();
    assert_eq!(owners, [id(1), id(2)]);
}

#[tokio::test]
async fn strangers_and_giants_are_turned_away() {
    let desk = Desk::new();
    let stranger = Caller::Member(id(50));
    for (method, path) in
        [("GET", "/v1/tokens"), ("POST", "/v1/networks"), ("DELETE", "/v1/hosts/h1"), ("POST", "/v1/join")]
    {
        assert!(desk.refused(stranger, method, path, Value::Null, 403).await.contains("weft join"));
    }
    let long = "x".repeat(70_000);
    let request = axum::http::Request::post("/v1/networks")
        .extension(ADMIN)
        .body(axum::body::Body::from(long))
        .unwrap();
    let response = tower::ServiceExt::oneshot(desk.controller.routes(), request).await.unwrap();
    assert_eq!(response.status().as_u16(), 413);
    let nobody = axum::http::Request::get("/v1/tokens").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(desk.controller.routes(), nobody).await.unwrap();
    assert_eq!(response.status().as_u16(), 500);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever bytes come, the answer is one that the API has, and nothing is decided by accident.
    #[test]
    fn any_body_is_answered(
        path in prop::sample::select(vec!["/v1/networks", "/v1/tokens", "/v1/blocks", "/v1/join", "/v1/goodbye"]),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[{\\[]?\"(name|wish|subnets|bytes|network)\":[\\[\"{0-9a-f:./]{0,20}[}\\]\"]{0,3}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..90)
                .prop_map(|b| json!({"wish": {"bytes": b, "signature": b}, "bytes": b, "signature": b}).to_string().into_bytes()),
        ],
    ) {
        let desk = Desk::new();
        let before = desk.controller.decisions();
        let request = axum::http::Request::post(path)
            .extension(Caller::Member(id(1)))
            .body(axum::body::Body::from(body))
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let response = runtime.block_on(tower::ServiceExt::oneshot(desk.controller.routes(), request)).unwrap();
        let status = response.status().as_u16();
        // An empty object is a good wish for a token.
        prop_assert!([400, 403, 404].contains(&status) || (status == 200 && path == "/v1/tokens"), "{status}");
        prop_assert_eq!(desk.controller.decisions(), before);
    }
}
