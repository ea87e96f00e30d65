//! The secrets of one connection, from the exporter and then from fresh X25519 keys, and the keys that seal its envelopes
//! (PROTOCOL 2).

use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use weft_api::id::{HostId, MeshId};
use weft_api::roster::Cipher;
use weft_router::seal::{Chain, Direction, OpenKey, SealKey};

/// What the exporter of a connection is asked for.
pub const EXPORTER_LABEL: &[u8] = b"weft data v1";

/// The chain stays: the next one is made from it.
pub struct Secrets {
    chain: Chain,
    /// Of our offer, until it is answered.
    private: Option<EphemeralPrivateKey>,
    /// The public half of our latest.
    public: [u8; 32],
}

impl Secrets {
    /// The context that the exporter is asked with.
    #[must_use]
    pub fn context(mesh: MeshId, dialler: HostId, listener: HostId) -> Vec<u8> {
        [&mesh.0[..], &dialler.0, &listener.0].concat()
    }

    /// Of what the exporter gave.
    #[must_use]
    pub fn first(exported: &[u8; 32]) -> Self {
        Self { chain: Chain::first(exported), private: None, public: [0; 32] }
    }

    /// A fresh X25519 key, whose public half is to be offered.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn offer(&mut self) -> Result<(), Unspecified> {
        self.private = Some(self.refresh()?);
        Ok(())
    }

    /// The public half of our latest X25519 key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The next chain, from the peer's public key and ours; the one before, and the private key, are gone.
    ///
    /// # Errors
    /// A point of small order, which no honest host has (RFC 7748 6.1).
    pub fn advance(&mut self, theirs: &[u8; 32]) -> Result<(), Unspecified> {
        let private = match self.private.take() {
            Some(private) => private,
            None => self.refresh()?,
        };
        let theirs = UnparsedPublicKey::new(&X25519, theirs);
        self.chain = agree_ephemeral(private, theirs, Unspecified, |secret| {
            Ok(self.chain.next(secret.try_into().map_err(|_| Unspecified)?))
        })?;
        Ok(())
    }

    /// What this host seals with, which has dialled (`ours`) or was dialled.
    #[must_use]
    pub fn seal_key(&self, cipher: Cipher, ours: bool) -> SealKey {
        self.chain.seal_key(cipher, direction(ours))
    }

    /// What this host opens with.
    #[must_use]
    pub fn open_key(&self, cipher: Cipher, ours: bool) -> OpenKey {
        self.chain.open_key(cipher, direction(!ours))
    }

    fn refresh(&mut self) -> Result<EphemeralPrivateKey, Unspecified> {
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())?;
        self.public.copy_from_slice(private.compute_public_key()?.as_ref());
        Ok(private)
    }
}

fn direction(from_dialler: bool) -> Direction {
    if from_dialler { Direction::FromDialler } else { Direction::FromListener }
}
