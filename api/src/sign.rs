//! Ed25519 signatures over records. A [`Signed`] keeps the very bytes that were signed, so that every host stores and
//! passes on what the signer wrote, whatever version of the record it understands.

use std::marker::PhantomData;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A record was not what its signer signed, or could not be read.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SignatureError {
    /// The signature does not fit the bytes and the key.
    #[error("the signature does not match")]
    Forged,
    /// The signature fits, but the bytes are no record of this kind.
    #[error("the signed bytes are not a record of this kind")]
    Unreadable,
}

/// The domain of a record: signed in front of its bytes, so that no record passes for one of another kind.
pub trait Record: Serialize + DeserializeOwned {
    /// Domain separation, such as `weft roster 1`.
    const DOMAIN: &'static str;
}

/// An Ed25519 key pair made from a 32-byte seed.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
}

impl SigningKey {
    /// The key pair of a seed. Every seed is a valid one.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .expect("any 32 bytes are an Ed25519 seed (RFC 8032 5.1.5)");
        Self { pair, seed }
    }

    /// The seed, to be stored; handle as a secret.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        key
    }

    /// Signs bytes as they are.
    #[must_use]
    pub fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
        signature
    }

    /// Signs a record under its domain.
    #[must_use]
    pub fn sign<T: Record>(&self, record: &T) -> Signed<T> {
        let bytes = postcard::to_allocvec(record).expect("records are plain data and always encode");
        let signature = self.sign_bytes(&framed::<T>(&bytes)).to_vec();
        Signed { bytes, signature, kind: PhantomData }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// Checks a signature over bytes as they are.
pub fn verify_bytes(key: &[u8; 32], bytes: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
    UnparsedPublicKey::new(&ED25519, key).verify(bytes, signature).map_err(|_| SignatureError::Forged)
}

/// A record's bytes and a signature over them; the record itself comes out of [`Signed::verify`] only.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    bytes: Vec<u8>,
    signature: Vec<u8>,
    #[serde(skip)]
    kind: PhantomData<fn() -> T>,
}

impl<T: Record> Signed<T> {
    /// The record, if `key` signed it.
    pub fn verify(&self, key: &[u8; 32]) -> Result<T, SignatureError> {
        self.verify_by(key, |key, bytes, signature| verify_bytes(key, bytes, signature).is_ok())
    }

    /// The record, if `check` finds that `key` signed it: (key, framed bytes, signature) -> whether.
    pub fn verify_by(
        &self,
        key: &[u8; 32],
        check: impl FnOnce(&[u8; 32], &[u8], &[u8]) -> bool,
    ) -> Result<T, SignatureError> {
        if !check(key, &framed::<T>(&self.bytes), &self.signature) {
            return Err(SignatureError::Forged);
        }
        self.peek()
    }

    /// The record, unverified: only to learn which key it claims, before [`Signed::verify`].
    pub fn peek(&self) -> Result<T, SignatureError> {
        postcard::from_bytes(&self.bytes).map_err(|_| SignatureError::Unreadable)
    }

    /// The signed bytes, for ordering and hashing.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), signature: self.signature.clone(), kind: PhantomData }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.signature == other.signature
    }
}

impl<T> Eq for Signed<T> {}

impl<T> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({} bytes)", self.bytes.len())
    }
}

fn framed<T: Record>(bytes: &[u8]) -> Vec<u8> {
    [T::DOMAIN.as_bytes(), &[0], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Note(String);
    impl Record for Note {
        const DOMAIN: &'static str = "note";
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Bill(String);
    impl Record for Bill {
        const DOMAIN: &'static str = "bill";
    }

    #[test]
    fn a_record_verifies_under_its_own_key_and_kind_only() {
        let key = SigningKey::from_seed([7; 32]);
        let signed = key.sign(&Note("hello".into()));
        assert_eq!(signed.verify(&key.public()), Ok(Note("hello".into())));
        assert_eq!(signed.verify(&SigningKey::from_seed([8; 32]).public()), Err(SignatureError::Forged));
        let as_bill: Signed<Bill> = postcard::from_bytes(&postcard::to_allocvec(&signed).unwrap()).unwrap();
        assert_eq!(as_bill.verify(&key.public()), Err(SignatureError::Forged));
    }

    #[test]
    fn a_changed_byte_is_a_forgery() {
        let key = SigningKey::from_seed([7; 32]);
        let mut signed = key.sign(&Note("hello".into()));
        for i in 0..signed.bytes.len() {
            signed.bytes[i] ^= 1;
            assert_eq!(signed.verify(&key.public()), Err(SignatureError::Forged));
            signed.bytes[i] ^= 1;
        }
    }
}
