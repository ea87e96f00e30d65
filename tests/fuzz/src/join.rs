//! Joining: what the asked member says, what the joiner says, what the signer answers.

use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{HostKey, MeshKey, TokenId};
use weft_api::request::Admitted;
use weft_api::roster::{Cipher, MeshRecord, RosterRecord};
use weft_api::sign::Signed;
use weft_api::succession::Chain;
use weft_api::token::{JoinWish, Token};
use weft_router::join::{Introduction, check_admitted};

use crate::cast::{HOSTS, carried_over, key, mesh, mesh_key, roster, roster_record, signer, succession};
use crate::input::{Input, with_length};

fn token() -> Token {
    Token { id: TokenId([4; 16]), seed: [3; 32], mesh: mesh() }
}

fn mesh_record() -> Signed<MeshRecord> {
    mesh_key().sign(&MeshRecord { mesh: mesh(), name: "m".into(), cipher: Cipher::Aegis128L })
}

fn is_ours(record: &RosterRecord) -> bool {
    (0..HOSTS).any(|n| *record == roster_record(n) || carried_over(n).peek().as_ref() == Ok(record))
}

/// Which host it is, then introduction, wish and answer, each after its length.
pub(crate) fn join(bytes: &[u8]) {
    let mut input = Input(bytes);
    let own = HostKey(key(usize::from(input.u8()) % HOSTS).public());
    let mut introduced = Chain::new(MeshKey(mesh_key().public()));
    if let Ok(introduction) = postcard::from_bytes::<Introduction>(input.bytes())
        && let Ok((record, chain)) = introduction.check(own, &token())
    {
        assert!(is_ours(&record) && record.key == own, "nobody signed {record:?}");
        assert!(chain.number() <= 2 && chain.current() == MeshKey(signer(chain.number()).public()));
        introduced = chain;
    }
    if let Ok(wish) = postcard::from_bytes::<Signed<JoinWish>>(input.bytes())
        && let Ok(wish) = wish.verify(&token().key().public())
    {
        assert_eq!((wish.mesh, wish.token), (mesh(), token().id), "nobody signed {wish:?}");
    }
    match postcard::from_bytes::<Result<Admitted, ApiError>>(input.bytes()) {
        Ok(Ok(admitted)) => {
            let first = MeshKey(mesh_key().public());
            if let Ok((mesh, record, chain)) = check_admitted(&admitted, first, &introduced, own, &token()) {
                assert!(chain.continues(&introduced));
                assert_eq!(mesh_record().peek(), Ok(mesh));
                assert!(is_ours(&record) && record.key == own, "nobody signed {record:?}");
            }
        }
        Ok(Err(error)) => drop(error.to_string()),
        Err(_) => {}
    }
}

pub(crate) fn exchanges() -> Vec<Vec<u8>> {
    fn encoded<T: serde::Serialize>(value: &T) -> Vec<u8> {
        with_length(&postcard::to_allocvec(value).expect("a message"))
    }
    let mesh_key = MeshKey(mesh_key().public());
    let introduction =
        encoded(&Introduction { mesh_key, successions: Vec::new(), record: roster()[2].clone() });
    let successions = vec![succession(1), succession(2)];
    let rotated =
        encoded(&Introduction { mesh_key, successions: successions.clone(), record: carried_over(2) });
    let wish = JoinWish { mesh: mesh(), token: token().id, key: HostKey(key(2).public()), name: "h2".into() };
    let wish = encoded(&token().key().sign(&wish));
    let answer: Result<Admitted, ApiError> =
        Ok(Admitted { mesh: mesh_record(), successions: Vec::new(), roster: roster().to_vec() });
    let mesh = signer(2).sign(&mesh_record().peek().expect("our own"));
    let later: Result<Admitted, ApiError> =
        Ok(Admitted { mesh, successions, roster: (0..HOSTS).map(carried_over).collect() });
    let refusal: Result<Admitted, ApiError> = Err(ApiError::new(ErrorKind::Forbidden, "the token was used"));
    let (answer, refusal, later) = (encoded(&answer), encoded(&refusal), encoded(&later));
    vec![
        [&[2][..], &introduction, &wish, &answer].concat(),
        [&[3][..], &introduction, &wish, &refusal].concat(),
        [&[2][..], &rotated, &wish, &later].concat(),
        [&[2][..], &introduction, &wish, &later].concat(),
        [&[2][..], &introduction[..2], &wish, &answer].concat(),
    ]
}
