//! What is on the disk: everything that was answered, and a sentence where the file is not what was written.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use crate::desk::{Desk, founding, host, id, key, keys};
use proptest::prelude::*;
use serde_json::{Value, json};
use weft_api::decision::Decision;
use weft_api::request::Caller;
use weft_api::sign::SigningKey;
use weft_controller::{Controller, ControllerKeys, system_clock};

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let desk = Desk::new();
    desk.member(2).await;
    for n in 0..300 {
        desk.network(
            json!({"name": format!("n{n}"), "subnets": [format!("10.{}.{}.0/24", 100 + n / 200, n % 200)]}),
        )
        .await;
    }
    for n in 0..150 {
        assert_eq!(desk.admin("DELETE", &format!("/v1/networks/n{n}"), Value::Null).await.0, 204);
    }
    let before = (desk.controller.mesh(), desk.controller.roster(), desk.controller.decisions());
    let sequence = *desk.controller.changes().borrow();
    let desk = desk.reopen();
    assert_eq!((desk.controller.mesh(), desk.controller.roster(), desk.controller.decisions()), before);
    assert!(*desk.controller.changes().borrow() >= sequence);
    let mode = std::fs::metadata(desk.dir.path().join("controller.redb")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let desk = desk.reopen();
    assert_eq!(desk.controller.decisions(), before.2);
}

#[tokio::test]
async fn a_restored_backup_hears_what_it_had_said() {
    let desk = Desk::new();
    let file = desk.dir.path().join("controller.redb");
    let Desk { dir, controller, .. } = desk;
    drop(controller);
    let backup = std::fs::read(&file).unwrap();
    let open = || Controller::open(dir.path(), keys(200), system_clock()).unwrap();
    let controller = open();
    controller.set_addresses(vec!["192.0.2.7:6783".parse().unwrap()]).unwrap();
    let said = controller.decisions();
    let decisions = said.iter().map(|d| d.verify(&host(1).public()).unwrap());
    let roster: Vec<_> = controller.roster().iter().map(|r| r.verify(&host(200).public()).unwrap()).collect();
    // Another controller's words are not ours.
    let foreign = decisions.clone().map(|d| Decision { revision: d.revision + 1000, signer: key(3), ..d });
    let heard: Vec<_> = decisions.clone().chain(foreign).collect();
    drop(controller);
    std::fs::write(&file, backup).unwrap();
    let controller = open();
    assert_ne!(controller.decisions(), said);
    assert_eq!(controller.hear(&roster, &heard).unwrap(), 1);
    assert_eq!(controller.decisions(), said);
    assert_eq!(controller.hear(&roster, &heard).unwrap(), 0);
    drop(controller);
    assert_eq!(open().decisions(), said);
}

#[test]
fn a_file_that_does_not_fit_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("controller.redb");
    let said = |keys| Controller::open(dir.path(), keys, system_clock()).unwrap_err().to_string();
    assert!(said(keys(200)).contains("is missing, so this host cannot decide: put a copy of it back"));

    let open = Controller::found(dir.path(), keys(200), founding(), system_clock()).unwrap();
    assert!(said(keys(200)).contains("open in another process: is weft up running already?"));
    drop(open);
    let again = Controller::found(dir.path(), keys(200), founding(), system_clock()).unwrap_err().to_string();
    assert!(again.contains("exists already") && again.contains("weft leave --force"), "{again}");
    assert!(said(keys(201)).contains("belongs to another mesh"));
    let other_host = ControllerKeys { host_key: SigningKey::from_seed([77; 32]), ..keys(200) };
    assert!(said(other_host).contains("written by another host"));

    let whole = std::fs::read(&file).unwrap();
    for half in [&whole[..0], &whole[..100], &whole[..whole.len() / 2], &[0x55; 9000]] {
        std::fs::write(&file, half).unwrap();
        let said = said(keys(200));
        assert!(said.contains("half written or damaged") && said.contains("put a copy of it back"), "{said}");
    }
    std::fs::write(&file, &whole).unwrap();
    Controller::open(dir.path(), keys(200), system_clock()).unwrap();
}

#[test]
fn a_name_that_cannot_be_founds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let founding = weft_controller::Founding { host_name: "no such name".into(), ..founding() };
    let said = Controller::found(dir.path(), keys(200), founding, system_clock()).unwrap_err().to_string();
    assert!(said.contains("cannot be a host's name: use"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_block_is_granted_in_time() {
    let desk = Desk::new();
    let net = desk.network(json!({"name": "app"})).await;
    let mut have: Vec<Value> = Vec::new();
    let start = Instant::now();
    for _ in 0..200 {
        let want = json!({"network": net["id"], "range": "10.32.0.0/16", "have": have});
        let (status, answer) = desk.ask(Caller::Member(id(1)), "POST", "/v1/blocks", want).await;
        assert_eq!(status, 200, "{answer}");
        have = answer["blocks"].as_array().unwrap().clone();
    }
    assert_eq!(have.len(), 200);
    println!("a block takes {:?}, its write to the disk included", start.elapsed() / 200);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A damaged file is read or refused, never a panic.
    #[test]
    fn any_damage_is_survived(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40), cut in any::<prop::sample::Index>(), short: bool) {
        let dir = tempfile::tempdir().unwrap();
        drop(Controller::found(dir.path(), keys(200), founding(), system_clock()).unwrap());
        let file = dir.path().join("controller.redb");
        let mut bytes = std::fs::read(&file).unwrap();
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if short {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&file, &bytes).unwrap();
        let _ = Controller::open(dir.path(), keys(200), system_clock());
    }
}
