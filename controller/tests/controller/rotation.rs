//! A new mesh key: what it signs, what the old one signs no more, and how another signer comes by it.

use serde_json::json;
use tempfile::TempDir;
use weft_api::id::MeshKey;
use weft_api::request::{Admitted, Caller};
use weft_api::roster::{RosterRecord, Standing};
use weft_api::sign::SigningKey;
use weft_api::succession::Chain;
use weft_controller::{Controller, ControllerKeys, OpenError, signing_key, system_clock};

use crate::desk::{Desk, host, key, keys};

fn next(n: u8) -> SigningKey {
    SigningKey::from_seed([n; 32])
}

fn roster(of: &Controller) -> Vec<RosterRecord> {
    let first = MeshKey(keys(200).mesh_key.public());
    let signer = Chain::verify(first, &of.successions()).unwrap().current();
    of.roster().iter().map(|signed| signed.verify(&signer.0).unwrap()).collect()
}

fn record(of: &Controller, n: u8) -> RosterRecord {
    roster(of).into_iter().find(|r| r.key == key(n)).unwrap()
}

/// Host 2 signs too; its own directory.
fn second(founder: &Desk) -> (TempDir, Controller) {
    let dir = TempDir::new().unwrap();
    let mesh = founder.controller.mesh().peek().unwrap();
    let keys = ControllerKeys { host_key: host(2), ..keys(200) };
    let (chain, known) = (founder.controller.successions(), roster(&founder.controller));
    let signer = Controller::appoint(dir.path(), keys, mesh, chain, known, system_clock()).unwrap();
    founder.controller.hear(&roster(&signer), &[]).unwrap();
    (dir, signer)
}

#[tokio::test]
async fn the_new_key_signs_everything_again_and_old_tokens_stay_good() {
    let founder = Desk::new();
    founder.member(2).await;
    founder.member(3).await;
    let (status, _) = founder.admin("DELETE", "/v1/hosts/h3", json!(null)).await;
    assert_eq!(status, 204);
    let token = founder.token(json!({})).await;
    let before = roster(&founder.controller);
    let mut changes = founder.controller.changes();
    changes.mark_unchanged();
    let made = founder.controller.rotate(next(201)).unwrap();
    assert_eq!((made.number, made.key, made.signers.len()), (1, MeshKey(next(201).public()), 0));
    assert!(changes.has_changed().unwrap());
    let succession = founder.controller.successions()[0].verify(&keys(200).mesh_key.public()).unwrap();
    assert_eq!((succession.number, succession.key, succession.carried), (1, made.key, 3));
    for (old, new) in before.iter().zip(roster(&founder.controller)) {
        assert_eq!((new.serial, new.under.key, new.under.carried), (old.serial + 1, 1, true));
        assert_eq!((&new.key, new.standing, new.roles), (&old.key, old.standing, old.roles));
        assert!(new.rank() > old.rank());
    }
    assert_eq!(founder.controller.mesh().verify(&made.key.0).unwrap().name, "quiet-fox");
    let (status, answer) = founder.join(&token, 4, "h4").await;
    assert_eq!(status, 200, "{answer}");
    let admitted: Admitted = serde_json::from_value(answer).unwrap();
    let chain = Chain::verify(MeshKey(keys(200).mesh_key.public()), &admitted.successions).unwrap();
    assert_eq!((chain.mesh(), admitted.roster.len()), (token.mesh, 4));
    assert!(admitted.roster.iter().all(|signed| signed.verify(&chain.current().0).is_ok()));
    assert!(!record(&founder.controller, 4).under.carried, "it came under the new key");
    assert_eq!(founder.controller.hear(&before, &[]).unwrap(), 0, "what the old key has signed is older");
}

#[tokio::test]
async fn after_a_crash_the_file_says_which_key_counts() {
    let founder = Desk::new();
    founder.member(2).await;
    let Desk { dir, controller, .. } = founder;
    let open = |mesh_key| {
        let keys = ControllerKeys { mesh_key, host_key: host(1) };
        Controller::open(dir.path(), keys, system_clock())
    };
    drop(controller);
    assert_eq!(signing_key(dir.path()).unwrap(), None);
    assert!(matches!(open(next(201)), Err(OpenError::Store(_))), "it has signed nothing yet");
    let controller = open(keys(200).mesh_key).unwrap();
    controller.rotate(next(201)).unwrap();
    let said = controller.roster();
    drop(controller);
    assert_eq!(signing_key(dir.path()).unwrap(), Some(MeshKey(next(201).public())));
    assert!(matches!(open(keys(200).mesh_key), Err(OpenError::OtherKey { .. })));
    let controller = open(next(201)).unwrap();
    assert_eq!(controller.roster(), said, "byte for byte");
    assert_eq!(controller.rotate(next(202)).unwrap().number, 2);
    drop(controller);
    assert!(open(next(202)).unwrap().signs());
}

#[tokio::test]
async fn another_signer_signs_nothing_until_it_has_the_new_key() {
    let founder = Desk::new();
    for n in [2, 3, 5] {
        founder.member(n).await;
    }
    let (dir, signer) = second(&founder);
    let mut desk = Desk::new();
    desk.controller = signer;
    let token = desk.token(json!({})).await;
    // The founder hears of neither.
    let (status, _) = desk.join(&token, 4, "h4").await;
    assert_eq!(status, 200);
    let (status, _) = desk.admin("DELETE", "/v1/hosts/h3", json!(null)).await;
    assert_eq!(status, 204);
    let made = founder.controller.rotate(next(201)).unwrap();
    assert_eq!(made.signers.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["h2"]);
    assert!(!record(&founder.controller, 2).roles.signer);

    assert!(desk.controller.signs());
    desk.controller.hear(&roster(&founder.controller), &[]).unwrap();
    assert!(!desk.controller.signs());
    assert!(desk.controller.rotate(next(203)).is_err());
    for (method, path) in [("POST", "/v1/tokens"), ("DELETE", "/v1/hosts/h5")] {
        let said = desk.refused(Caller::Admin, method, path, json!({}), 409).await;
        assert!(said.contains("old mesh key") && said.contains("weft mesh key import"), "{said}");
    }
    let (status, _) = desk.join(&token, 6, "h6").await;
    assert_eq!(status, 409);
    assert!(roster(&desk.controller).iter().all(|r| r.key == key(4)), "the rest is the new key's to sign");

    let Desk { controller, .. } = desk;
    drop(controller);
    let keys_of = |mesh_key| ControllerKeys { mesh_key, host_key: host(2) };
    let old = Controller::open(dir.path(), keys_of(keys(200).mesh_key), system_clock()).unwrap();
    assert!(!old.signs(), "it starts, and signs nothing");
    drop(old);
    let (chain, known) = (founder.controller.successions(), roster(&founder.controller));
    for _ in 0..2 {
        // Cut off and done again.
        let again =
            Controller::renew(dir.path(), keys_of(next(201)), chain.clone(), known.clone(), system_clock());
        drop(again.unwrap());
    }
    let signer = Controller::open(dir.path(), keys_of(next(201)), system_clock()).unwrap();
    assert!(signer.signs() && record(&signer, 2).roles.signer);
    let gone = record(&signer, 3);
    assert_eq!((gone.standing, gone.under.carried), (Standing::Removed, true), "removed is final");
    let new = record(&signer, 4);
    assert_eq!((new.standing, new.under.key, new.under.carried), (Standing::Member, 1, false));
    founder.controller.hear(&roster(&signer), &[]).unwrap();
    let of = |of: &Controller| {
        let mut all = roster(of);
        all.sort_by_key(|r| r.key);
        all
    };
    assert_eq!(of(&founder.controller), of(&signer), "the founder takes it over");
    let mut desk = Desk::new();
    desk.controller = signer;
    let (status, _) = desk.join(&token, 6, "h6").await;
    assert_eq!(status, 200, "its tokens are good again");
}
