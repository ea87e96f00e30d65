//! A doubt whether the path in use still works: since when, and from when on every other path is asked.

use std::time::Duration;

use super::super::Path;
use super::super::connection::SUSPECT_INTERVAL;

#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    pub(super) since: Duration,
    /// Where the peer has sent from: asked before the others.
    pub(super) first: Option<Path>,
    /// When the others are asked.
    pub(super) all: Duration,
}

impl Doubt {
    /// It has not answered for long.
    pub(super) fn that_it_is_silent(now: Duration) -> Self {
        Self { since: now, first: None, all: now }
    }

    /// The peer sends from elsewhere. Asking everybody would be heard there as a move, and so on.
    pub(super) fn that_it_moved(now: Duration, to: Path) -> Self {
        Self { since: now, first: Some(to), all: now + SUSPECT_INTERVAL }
    }

    /// It has no chance to answer: another is taken at once.
    pub(super) fn that_it_is_gone(now: Duration) -> Self {
        Self { since: now.saturating_sub(SUSPECT_INTERVAL), first: None, all: now }
    }
}
