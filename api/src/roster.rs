//! The roster: which host keys are members of the mesh, each record signed by the mesh key by itself (PROTOCOL 1). Merged key by
//! key: the later mesh key, then `removed`, which is final, else the higher serial, ties by bytes; so two signers cannot fork it.

use serde::{Deserialize, Serialize};

use crate::id::{HostKey, MeshId};
use crate::sign::Record;

/// What a member may do beside carrying traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Roles {
    /// Made the mesh.
    pub founder: bool,
    /// May sign decisions.
    pub controller: bool,
    /// Holds the mesh key: may admit and remove members.
    pub signer: bool,
}

/// In or out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    /// A member.
    Member,
    /// Was a member; final for this key.
    Removed,
}

/// One host's place in the mesh.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RosterRecord {
    /// The mesh that this record belongs to.
    pub mesh: MeshId,
    /// The host.
    pub key: HostKey,
    /// The host's name, unique among members, a DNS label.
    pub name: String,
    /// What it may do.
    pub roles: Roles,
    /// Rises with each new record of the same key.
    pub serial: u64,
    /// In or out.
    pub standing: Standing,
    /// Which mesh key signs it.
    pub under: Under,
}

/// The mesh key that signs a roster record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Under {
    /// Its number: 0 is the first, n the one of [`crate::succession::Succession`] n.
    pub key: u32,
    /// The host had a record before that key came: one of those that the succession counts.
    pub carried: bool,
}

impl RosterRecord {
    /// The higher one replaces the lower: the later mesh key, then `removed`, then the serial.
    #[must_use]
    pub fn rank(&self) -> (u64, u64) {
        (u64::from(self.under.key) << 1 | u64::from(self.standing == Standing::Removed), self.serial)
    }
}

impl Record for RosterRecord {
    const DOMAIN: &'static str = "weft roster 1";
}

/// What every member of a mesh agrees on; signed by the mesh key, given to a host when it joins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MeshRecord {
    /// The mesh.
    pub mesh: MeshId,
    /// Its name for people, such as `quiet-fox`.
    pub name: String,
    /// The AEAD that seals envelopes.
    pub cipher: Cipher,
}

impl Record for MeshRecord {
    const DOMAIN: &'static str = "weft mesh 1";
}

/// AEAD suites of the envelope, chosen once for a mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cipher {
    /// AEGIS-128L with a 128-bit tag (CFRG draft); the default where the CPU has AES instructions.
    #[serde(rename = "aegis-128l")]
    Aegis128L,
    /// AES-256-GCM (NIST SP 800-38D).
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439); the default without AES instructions.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Cipher {
    /// Every suite, in the order of preference.
    pub const ALL: [Self; 3] = [Self::Aegis128L, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// The name that people type and read.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aegis128L => "aegis-128l",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

impl std::fmt::Display for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Cipher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|c| c.name() == text)
            .ok_or_else(|| format!("\"{text}\" is no cipher: aegis-128l, aes-256-gcm or chacha20-poly1305"))
    }
}
