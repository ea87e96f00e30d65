//! The mesh key in a file for another host, under a passphrase: Argon2id (RFC 9106 4, its second recommendation: 64 MiB, three
//! passes, four lanes), then AES-256-GCM. Every file has a salt, and so a key, of its own; the nonce is zero.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;
use weft_api::id::MeshId;
use weft_api::sign::SigningKey;
use zeroize::Zeroizing;

/// First line of the file; another one is not read.
const HEAD: &str = "weft mesh key 1";
/// A shorter passphrase is refused: the file may lie around for years.
pub const MIN_PASSPHRASE: usize = 12;

const SALT: usize = 16;
const SEED: usize = 32;
const TAG: usize = 16;
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 4;

/// Why a mesh key cannot be put into a file or taken out of it.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SealedError {
    /// Easily guessed.
    #[error("the passphrase is too short: take at least {MIN_PASSPHRASE} characters")]
    ShortPassphrase,
    /// Not a file of ours, or of another version.
    #[error("this is no mesh key of weft (its first line is not \"{HEAD}\"): weft mesh key export makes one")]
    NotAKey,
    /// Cut off or changed.
    #[error("the mesh key's file is damaged ({0}): copy it again, whole")]
    Damaged(&'static str),
    /// For another mesh.
    #[error("the file holds the key of another mesh ({0}) than this host's")]
    OtherMesh(MeshId),
    /// It does not open.
    #[error("the mesh key does not open: the passphrase is wrong, or the file was changed")]
    WrongPassphrase,
    /// The passphrase's function refuses.
    #[error(
        "the passphrase cannot be used: this machine lacks the memory (64 MiB) or gives no random numbers"
    )]
    Machine,
}

/// The text of the file.
pub fn seal(key: &SigningKey, mesh: MeshId, passphrase: &str) -> Result<String, SealedError> {
    if passphrase.chars().count() < MIN_PASSPHRASE {
        return Err(SealedError::ShortPassphrase);
    }
    let mut salt = [0; SALT];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| SealedError::Machine)?;
    let mut sealed = key.seed().to_vec();
    let head = head(mesh);
    under(passphrase, &salt)?
        .seal_in_place_append_tag(nonce(), Aad::from(head.as_bytes()), &mut sealed)
        .map_err(|_| SealedError::Machine)?;
    Ok(format!("{head}{}\n", hex(&[&salt[..], &sealed].concat())))
}

/// The key in such a text, for this mesh.
pub fn open(text: &str, mesh: MeshId, passphrase: &str) -> Result<SigningKey, SealedError> {
    let mut lines = text.lines().map(str::trim);
    if lines.next() != Some(HEAD) {
        return Err(SealedError::NotAKey);
    }
    let id = lines.next().and_then(|line| line.strip_prefix("mesh "));
    let id: MeshId =
        id.and_then(|id| id.parse().ok()).ok_or(SealedError::Damaged("its second line names no mesh"))?;
    if id != mesh {
        return Err(SealedError::OtherMesh(id));
    }
    let bytes =
        lines.next().and_then(unhex).ok_or(SealedError::Damaged("its third line is no hexadecimal"))?;
    let Some((salt, sealed)) = bytes.split_first_chunk::<SALT>().filter(|(_, s)| s.len() == SEED + TAG)
    else {
        return Err(SealedError::Damaged("its third line is too short or too long"));
    };
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let seed = under(passphrase, salt)?
        .open_in_place(nonce(), Aad::from(head(mesh).as_bytes()), &mut sealed)
        .map_err(|_| SealedError::WrongPassphrase)?;
    let seed: [u8; SEED] = (&*seed).try_into().map_err(|_| SealedError::WrongPassphrase)?;
    Ok(SigningKey::from_seed(seed))
}

fn head(mesh: MeshId) -> String {
    format!("{HEAD}\nmesh {mesh}\n")
}

fn under(passphrase: &str, salt: &[u8; SALT]) -> Result<LessSafeKey, SealedError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).map_err(|_| SealedError::Machine)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .map_err(|_| SealedError::Machine)?;
    let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| SealedError::Machine)?;
    Ok(LessSafeKey::new(key))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.len() > 1024 {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESH: MeshId = MeshId([3; 32]);
    const PASSPHRASE: &str = "correct horse battery";

    #[test]
    fn a_key_comes_out_under_its_passphrase_only() {
        let key = SigningKey::from_seed([7; 32]);
        let text = seal(&key, MESH, PASSPHRASE).unwrap();
        assert!(!text.contains(&hex(key.seed())));
        assert_eq!(open(&text, MESH, PASSPHRASE).unwrap().seed(), key.seed());
        let error = |text: &str, mesh, passphrase| open(text, mesh, passphrase).err();
        assert_eq!(error(&text, MESH, "correct horse batteri"), Some(SealedError::WrongPassphrase));
        assert_eq!(error(&text, MeshId([4; 32]), PASSPHRASE), Some(SealedError::OtherMesh(MESH)));
        let changed = text.replacen(&MESH.to_string(), &MeshId([4; 32]).to_string(), 1);
        assert_eq!(error(&changed, MeshId([4; 32]), PASSPHRASE), Some(SealedError::WrongPassphrase));
        assert!(matches!(error(&text[..text.len() - 3], MESH, PASSPHRASE), Some(SealedError::Damaged(_))));
        assert_eq!(seal(&key, MESH, "short").err(), Some(SealedError::ShortPassphrase));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(?s).{0,300}", third in ".{0,40}") {
            prop_assert!(open(&text, MESH, PASSPHRASE).is_err());
            let framed = format!("{}{third}", head(MESH));
            prop_assert!(open(&framed, MESH, PASSPHRASE).is_err());
        }
    }
}
