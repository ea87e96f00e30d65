//! Tokens: made, counted and removed. Of each only the public key is kept, so that nobody can join with what is stored here.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use weft_api::id::{HostKey, TokenId};

use crate::event::Event;
use crate::refusal::Refusal;
use crate::state::State;

/// So many tokens are kept; at this number the expired ones are removed, and if there is none a new one is refused.
pub const MAX_TOKENS: usize = 256;

/// The longest that a token can be valid: a year.
pub const MAX_VALID_SECS: u64 = 365 * 86_400;

/// How long a token is valid unless asked otherwise: a day.
pub const DEFAULT_VALID_SECS: u64 = 86_400;

/// A token, without its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Wishes are signed with this key's other half.
    pub key: [u8; 32],
    /// Unix seconds.
    pub expires: u64,
    /// Good for one host only.
    pub once: bool,
    /// Who joined by it.
    pub used_by: BTreeSet<HostKey>,
}

impl State {
    pub(crate) fn new_token(
        &self,
        now: u64,
        id: TokenId,
        key: [u8; 32],
        once: bool,
        valid_secs: Option<u64>,
    ) -> Result<Vec<Event>, Refusal> {
        self.mesh().ok_or(Refusal::NoMesh)?;
        let valid = valid_secs.unwrap_or(DEFAULT_VALID_SECS);
        if valid == 0 || valid > MAX_VALID_SECS {
            return Err(Refusal::TokenLifetime(valid));
        }
        let mut events = Vec::new();
        if self.tokens.len() >= MAX_TOKENS {
            let expired = self.tokens.iter().filter(|(_, token)| token.expires <= now);
            events.extend(expired.map(|(id, _)| Event::TokenRemoved(*id)));
            if events.is_empty() {
                return Err(Refusal::TooManyTokens);
            }
        }
        events.push(Event::TokenMade { id, key, expires: now.saturating_add(valid), once });
        Ok(events)
    }

    /// `text`: the id, or so much of its beginning that it is the only one.
    pub(crate) fn remove_token(&self, text: &str) -> Result<Vec<Event>, Refusal> {
        let shown = || text.chars().take(40).collect::<String>();
        let mut meant = self.tokens.keys().filter(|id| !text.is_empty() && id.to_string().starts_with(text));
        match (meant.next(), meant.next()) {
            (Some(id), None) => Ok(vec![Event::TokenRemoved(*id)]),
            (Some(_), Some(_)) => Err(Refusal::AmbiguousToken(shown())),
            (None, _) => match self.removed_tokens.iter().find(|id| id.to_string() == text) {
                Some(_) => Ok(Vec::new()),
                None => Err(Refusal::UnknownToken(shown())),
            },
        }
    }

    pub(crate) fn find_token(&self, id: TokenId) -> Result<&Token, Refusal> {
        self.tokens.get(&id).ok_or_else(|| {
            if self.removed_tokens.contains(&id) {
                Refusal::RemovedToken(id)
            } else {
                Refusal::UnknownToken(id.to_string())
            }
        })
    }
}

/// A length of time in words, rounded down.
pub(crate) fn span(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7200 => format!("{} min", secs / 60),
        7200..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}
