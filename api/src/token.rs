//! The token: text that lets a host join one mesh. It pins the mesh key, so that any member can be asked to join and none can
//! steal it (PROTOCOL 1): `weft1-` and base32 of id, seed, SHA-256 of the mesh key, and a checksum.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{HostKey, MeshId, TokenId};
use crate::sign::{Record, SigningKey};

const PREFIX: &str = "weft1-";
const BODY: usize = 16 + 32 + 32;
const CHECKSUM: usize = 4;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567"; // RFC 4648 6, lower case

/// What the text of a token says.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Which token it is, at the signer.
    pub id: TokenId,
    /// Seed of the key that signs the wish to join.
    pub seed: [u8; 32],
    /// The mesh it is for.
    pub mesh: MeshId,
}

/// A token's text cannot be read.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Does not start like one.
    #[error("this is no weft token: it must begin with \"weft1-\" (make one with: weft token new)")]
    NotAToken,
    /// Too short or too long.
    #[error("the token is {0}: copy it again, whole")]
    Length(&'static str),
    /// A character that never occurs.
    #[error("the token has the character {0:?}, which none has: copy it again, whole")]
    Character(char),
    /// The checksum is wrong.
    #[error("the token is garbled (its checksum does not fit): copy it again, whole")]
    Garbled,
}

impl Token {
    /// The key that signs the wish to join.
    #[must_use]
    pub fn key(&self) -> SigningKey {
        SigningKey::from_seed(self.seed)
    }

    /// Reads the text, surrounding white space aside.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::NotAToken)?;
        let bytes = base32_decode(body)?;
        match bytes.len().cmp(&(BODY + CHECKSUM)) {
            std::cmp::Ordering::Less => return Err(TokenError::Length("too short")),
            std::cmp::Ordering::Greater => return Err(TokenError::Length("too long")),
            std::cmp::Ordering::Equal => {}
        }
        let (body, checksum) = bytes.split_at(BODY);
        if digest(&SHA256, body).as_ref()[..CHECKSUM] != *checksum {
            return Err(TokenError::Garbled);
        }
        let mut token = Self { id: TokenId([0; 16]), seed: [0; 32], mesh: MeshId([0; 32]) };
        token.id.0.copy_from_slice(&body[..16]);
        token.seed.copy_from_slice(&body[16..48]);
        token.mesh.0.copy_from_slice(&body[48..]);
        Ok(token)
    }

    /// The text to hand to a person. Not `Display`, so that no log line shows it by accident.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut bytes = [&self.id.0[..], &self.seed, &self.mesh.0].concat();
        let checksum = digest(&SHA256, &bytes);
        bytes.extend_from_slice(&checksum.as_ref()[..CHECKSUM]);
        format!("{PREFIX}{}", base32_encode(&bytes))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

/// The wish to join, signed by the token's key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinWish {
    /// Into which mesh.
    pub mesh: MeshId,
    /// By which token.
    pub token: TokenId,
    /// Who wants to join.
    pub key: HostKey,
    /// Under which name.
    pub name: String,
}

impl Record for JoinWish {
    const DOMAIN: &'static str = "weft join 1";
}

fn base32_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut acc, mut bits) = (0u32, 0);
    for &byte in bytes {
        acc = (acc << 8 | u32::from(byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(acc >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(acc << (5 - bits) & 31) as usize]));
    }
    text
}

fn base32_decode(text: &str) -> Result<Vec<u8>, TokenError> {
    if text.len() > 256 {
        return Err(TokenError::Length("too long"));
    }
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut acc, mut bits) = (0u32, 0);
    for c in text.chars() {
        let value = u8::try_from(c.to_ascii_lowercase())
            .ok()
            .and_then(|c| ALPHABET.iter().position(|&a| a == c))
            .ok_or(TokenError::Character(c))?;
        acc = (acc << 5 | u32::try_from(value).unwrap_or(0)) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((acc >> bits & 0xff) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_goes_round(id: [u8; 16], seed: [u8; 32], mesh: [u8; 32]) {
            let token = Token { id: TokenId(id), seed, mesh: MeshId(mesh) };
            prop_assert_eq!(Token::parse(&token.reveal()), Ok(token));
        }

        #[test]
        fn a_changed_character_is_noticed(at in 6usize..140, to in "[a-z2-7]") {
            let token = Token { id: TokenId([1; 16]), seed: [2; 32], mesh: MeshId([3; 32]) };
            let mut text = token.reveal();
            if at < text.len() - 1 && text[at..=at] != *to {
                text.replace_range(at..=at, &to);
                prop_assert_eq!(Token::parse(&text), Err(TokenError::Garbled));
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let _ = Token::parse(&text);
            let _ = Token::parse(&format!("weft1-{text}"));
        }
    }
}
