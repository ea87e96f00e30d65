//! What is said while a host joins (PROTOCOL 1), and what the joiner believes of it: nothing but what the mesh key signed.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use weft_api::id::{HostKey, MeshId, MeshKey};
use weft_api::request::Admitted;
use weft_api::roster::{MeshRecord, RosterRecord, Standing};
use weft_api::sign::Signed;
use weft_api::succession::{Chain, Succession};
use weft_api::token::Token;

/// Who the asked member is; the first message, before the joiner says anything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Introduction {
    /// The key that the mesh began with.
    pub mesh_key: MeshKey,
    /// From that key to the one that signs the roster now.
    pub successions: Vec<Signed<Succession>>,
    /// The asked member's record.
    pub record: Signed<RosterRecord>,
}

/// Why the asked host is not believed to be a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Doubt {
    /// It is in another mesh than the token.
    #[error("it belongs to mesh {0}")]
    WrongMesh(MeshId),
    /// Its roster record is not signed by the mesh key, not its own, or says that it was removed.
    #[error("{0}")]
    NotProven(&'static str),
}

impl Introduction {
    /// The roster record of the member that has proven `key` in the handshake, and the mesh keys that lead to its signature.
    pub fn check(&self, key: HostKey, token: &Token) -> Result<(RosterRecord, Chain), Doubt> {
        let theirs = self.mesh_key.id();
        if theirs != token.mesh {
            return Err(Doubt::WrongMesh(theirs));
        }
        let chain = Chain::verify(self.mesh_key, &self.successions)
            .map_err(|_| Doubt::NotProven("its mesh key is no successor of the one that the token pins"))?;
        let record = self
            .record
            .verify(&chain.current().0)
            .map_err(|_| Doubt::NotProven("its record is not signed by the mesh key"))?;
        if record.mesh != token.mesh {
            Err(Doubt::NotProven("its record is of another mesh"))
        } else if record.key != key {
            Err(Doubt::NotProven("its record is another host's"))
        } else if record.standing != Standing::Member {
            Err(Doubt::NotProven("it was removed"))
        } else {
            Ok((record, chain))
        }
    }
}

/// The mesh, this host's own record and the mesh keys, if the answer admits it; else what is wrong with it. `introduced`: the
/// mesh keys that the asked member knows; the signer may know a later one.
pub fn check_admitted(
    admitted: &Admitted,
    mesh_key: MeshKey,
    introduced: &Chain,
    own_key: HostKey,
    token: &Token,
) -> Result<(MeshRecord, RosterRecord, Chain), &'static str> {
    let chain = Chain::verify(mesh_key, &admitted.successions)
        .ok()
        .filter(|chain| chain.continues(introduced))
        .ok_or("its mesh keys are not those of the member that was asked")?;
    let signer = chain.current().0;
    let mesh = admitted.mesh.verify(&signer).map_err(|_| "its mesh record is not signed by the mesh key")?;
    if mesh.mesh != token.mesh {
        return Err("its mesh record is of another mesh");
    }
    let own = admitted
        .roster
        .iter()
        .filter(|r| r.peek().is_ok_and(|r| r.key == own_key))
        .filter_map(|r| r.verify(&signer).ok())
        .find(|r| r.mesh == token.mesh && r.standing == Standing::Member);
    own.map(|own| (mesh, own, chain)).ok_or("its roster does not have this host")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::error::ApiError;
    use weft_api::id::TokenId;
    use weft_api::roster::{Cipher, Roles};
    use weft_api::sign::SigningKey;
    use weft_api::token::JoinWish;

    use super::*;

    proptest! {
        #[test]
        fn any_introduction_wish_or_answer_is_read_without_panic(bytes: Vec<u8>) {
            let _ = postcard::from_bytes::<Introduction>(&bytes);
            let _ = postcard::from_bytes::<Signed<JoinWish>>(&bytes).map(|w| w.peek());
            let _ = postcard::from_bytes::<Result<Admitted, ApiError>>(&bytes);
        }
    }

    fn keys() -> (SigningKey, SigningKey) {
        (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]))
    }

    fn token() -> Token {
        Token { id: TokenId([0; 16]), seed: [3; 32], mesh: MeshKey(keys().0.public()).id() }
    }

    fn member() -> RosterRecord {
        RosterRecord {
            mesh: token().mesh,
            key: HostKey(keys().1.public()),
            name: "h2".into(),
            roles: Roles::default(),
            serial: 1,
            standing: Standing::Member,
            under: weft_api::roster::Under::default(),
        }
    }

    #[test]
    fn a_member_that_cannot_prove_itself_is_not_believed() {
        let ((mesh, host), good) = (keys(), member());
        let check = |record: &RosterRecord, signer: &SigningKey, mesh: &SigningKey, key| {
            let mesh_key = MeshKey(mesh.public());
            Introduction { mesh_key, successions: Vec::new(), record: signer.sign(record) }
                .check(key, &token())
                .map(|(record, _)| record)
        };
        assert_eq!(check(&good, &mesh, &mesh, good.key), Ok(good.clone()));
        let other = MeshKey(host.public()).id();
        assert_eq!(check(&good, &host, &host, good.key), Err(Doubt::WrongMesh(other)));
        let refused =
            |record: &RosterRecord, signer: &SigningKey, key| match check(record, signer, &mesh, key) {
                Err(Doubt::NotProven(why)) => why,
                other => panic!("{other:?}"),
            };
        assert_eq!(refused(&good, &host, good.key), "its record is not signed by the mesh key");
        assert_eq!(refused(&good, &mesh, HostKey([9; 32])), "its record is another host's");
        let gone = RosterRecord { standing: Standing::Removed, ..good.clone() };
        assert_eq!(refused(&gone, &mesh, good.key), "it was removed");
        let foreign = RosterRecord { mesh: other, ..good.clone() };
        assert_eq!(refused(&foreign, &mesh, good.key), "its record is of another mesh");
    }

    #[test]
    fn an_answer_that_does_not_admit_this_host_is_not_believed() {
        let ((mesh, host), own) = (keys(), member());
        let record = MeshRecord { mesh: token().mesh, name: "m".into(), cipher: Cipher::Aegis128L };
        let check = |signer: &SigningKey, record: &MeshRecord, roster: Vec<Signed<RosterRecord>>| {
            let admitted = Admitted { mesh: signer.sign(record), successions: Vec::new(), roster };
            let mesh_key = MeshKey(mesh.public());
            check_admitted(&admitted, mesh_key, &Chain::new(mesh_key), own.key, &token())
                .map(|(mesh, own, _)| (mesh, own))
        };
        let good = vec![host.sign(&own), mesh.sign(&own)];
        assert_eq!(check(&mesh, &record, good.clone()), Ok((record.clone(), own.clone())));
        assert_eq!(check(&host, &record, good.clone()), Err("its mesh record is not signed by the mesh key"));
        let foreign = MeshRecord { mesh: MeshKey(host.public()).id(), ..record.clone() };
        assert_eq!(check(&mesh, &foreign, good), Err("its mesh record is of another mesh"));
        let gone = mesh.sign(&RosterRecord { standing: Standing::Removed, ..own.clone() });
        for roster in [vec![], vec![host.sign(&own)], vec![gone]] {
            assert_eq!(check(&mesh, &record, roster), Err("its roster does not have this host"));
        }
    }

    #[test]
    fn a_token_of_the_first_key_is_good_under_a_later_one() {
        let ((first, host), own) = (keys(), member());
        let (next, last, mesh_key) =
            (SigningKey::from_seed([5; 32]), SigningKey::from_seed([6; 32]), MeshKey(first.public()));
        let succession = |by: &SigningKey, number, key: &SigningKey| {
            by.sign(&Succession { mesh: token().mesh, number, key: MeshKey(key.public()), carried: 0 })
        };
        let chain = vec![succession(&first, 1, &next), succession(&next, 2, &last)];
        let check = |signer: &SigningKey, successions: &[Signed<Succession>]| {
            Introduction { mesh_key, successions: successions.to_vec(), record: signer.sign(&own) }
                .check(own.key, &token())
        };
        let (_, introduced) = check(&next, &chain[..1]).unwrap();
        assert_eq!(introduced.current(), MeshKey(next.public()));
        assert!(check(&last, &chain).is_ok() && check(&first, &[]).is_ok());
        for (signer, chain) in [
            (&first, &chain[..]),
            (&next, &chain[..]),
            (&last, &chain[1..]),
            (&host, &[succession(&host, 1, &host)][..]),
        ] {
            assert!(matches!(check(signer, chain), Err(Doubt::NotProven(_))), "{chain:?}");
        }
        let admitted = |signer: &SigningKey, successions: &[Signed<Succession>]| {
            let mesh = MeshRecord { mesh: token().mesh, name: "m".into(), cipher: Cipher::Aegis128L };
            let roster = vec![signer.sign(&own)];
            let admitted = Admitted { mesh: signer.sign(&mesh), successions: successions.to_vec(), roster };
            check_admitted(&admitted, mesh_key, &introduced, own.key, &token())
                .map(|(_, _, chain)| chain.number())
        };
        assert_eq!(admitted(&next, &chain[..1]), Ok(1));
        assert_eq!(
            admitted(&last, &chain),
            Ok(2),
            "the signer knows a later key than the member that was asked"
        );
        let other = [succession(&first, 1, &last)];
        for (signer, chain) in [(&first, &[][..]), (&last, &other[..]), (&next, &[][..])] {
            assert_eq!(
                admitted(signer, chain),
                Err("its mesh keys are not those of the member that was asked")
            );
        }
        assert_eq!(admitted(&first, &chain[..1]), Err("its mesh record is not signed by the mesh key"));
    }
}
