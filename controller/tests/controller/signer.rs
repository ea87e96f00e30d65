//! Another signer: it admits and removes, decides nothing, and the founder takes over what it has done.

use serde_json::json;
use tempfile::TempDir;
use weft_api::request::Caller;
use weft_api::roster::{MeshRecord, RosterRecord, Standing};
use weft_controller::{Controller, ControllerKeys, OpenError};

use crate::desk::{Desk, host, id, key, keys};

fn roster(of: &Controller) -> Vec<RosterRecord> {
    let mesh_key = keys(200).mesh_key.public();
    of.roster().iter().map(|signed| signed.verify(&mesh_key).unwrap()).collect()
}

fn keys_of(n: u8) -> ControllerKeys {
    ControllerKeys { host_key: host(n), ..keys(200) }
}

fn record(of: &Controller, n: u8) -> Option<RosterRecord> {
    roster(of).into_iter().find(|r| r.key == key(n))
}

#[tokio::test]
async fn another_signer_admits_and_removes_and_the_founder_takes_it_over() {
    let founder = Desk::new();
    founder.member(2).await;
    founder.member(3).await;
    let network = founder.network(json!({"name": "app", "subnets": ["10.50.0.0/24"]})).await;
    let want = json!({"network": network["id"], "range": "10.50.0.0/24", "have": []});
    let (status, granted) = founder.ask(Caller::Member(id(3)), "POST", "/v1/blocks", want).await;
    assert_eq!(status, 200, "{granted}");
    let decided = founder.controller.decisions().len();

    let dir = TempDir::new().unwrap();
    let clock = weft_controller::system_clock();
    let mesh: MeshRecord = founder.controller.mesh().peek().unwrap();
    let made =
        Controller::appoint(dir.path(), keys_of(2), mesh, vec![], roster(&founder.controller), clock.clone());
    drop(made.unwrap());
    assert!(matches!(
        Controller::open(dir.path(), keys_of(3), clock.clone()),
        Err(OpenError::OtherHost { .. })
    ));
    let signer = Controller::open(dir.path(), keys_of(2), clock).unwrap();
    assert!(!signer.decides() && founder.controller.decides());
    let mut second = Desk::new();
    second.controller = signer.clone();
    let (status, _) = second.admin("POST", "/v1/networks", json!({"name": "other"})).await;
    assert_eq!(status, 404, "it decides nothing");
    signer.set_addresses(vec!["192.0.2.2:6783".parse().unwrap()]).unwrap();
    second.member(4).await;
    let (status, _) = second.admin("DELETE", "/v1/hosts/h3", json!(null)).await;
    assert_eq!(status, 204);
    second.refused(Caller::Admin, "DELETE", "/v1/hosts/h1", json!(null), 409).await;
    assert!(signer.decisions().is_empty());

    let heard = founder.controller.hear(&roster(&signer), &[]).unwrap();
    assert_eq!(heard, 4, "h2 signs, h3 is gone, h4 is there, a block is back");
    assert!(record(&founder.controller, 2).unwrap().roles.signer);
    assert_eq!(record(&founder.controller, 3).unwrap().standing, Standing::Removed);
    assert_eq!(record(&founder.controller, 4).unwrap().standing, Standing::Member);
    assert_eq!(founder.controller.decisions().len(), decided, "no key more");
    let returned = founder.controller.decisions().iter().filter(|d| d.peek().unwrap().body.is_none()).count();
    assert_eq!(returned, 1);
    assert_eq!(founder.controller.hear(&roster(&signer), &[]).unwrap(), 0, "once");
    let (status, _) = founder.admin("DELETE", "/v1/hosts/h2", json!(null)).await;
    assert_eq!(status, 204, "a signer that decides nothing can be removed");
    let strangers = Controller::appoint(
        TempDir::new().unwrap().path(),
        keys_of(9),
        founder.controller.mesh().peek().unwrap(),
        vec![],
        roster(&founder.controller),
        weft_controller::system_clock(),
    );
    assert!(strangers.is_err(), "no member");
}
