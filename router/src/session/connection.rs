//! One connection with a peer, from the dial to the erasing of its keys, and its liveness: when to probe, when it is dead.

use std::net::SocketAddr;
use std::time::Duration;

use weft_api::id::BootId;

use super::dialling::DIAL_TIMEOUT;
use super::lanes::Lanes;
use super::mtu;
use super::peer::KEYS_LINGER;
use super::rekey::Epochs;
use super::{ConnectionId, Path};

/// The lower id probes so often.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// After so much silence it is suspect, at either end.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(2500);
/// A suspect is probed so often.
pub const SUSPECT_INTERVAL: Duration = Duration::from_millis(250);
/// After so much silence it is dead.
pub const DOWN_AFTER: Duration = Duration::from_millis(3500);
/// A connection whose echo has never come round is probed so often.
pub const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Ours, unanswered.
    Dialling,
    /// Both keys are proven; the peer's first message is awaited.
    Greeting,
    /// Envelopes can go both ways.
    Ready,
    /// Closed; what is under way may still be opened.
    Lingering,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub id: ConnectionId,
    /// Where its envelopes go.
    pub path: Path,
    pub ours: bool,
    pub replaces: bool,
    pub stage: Stage,
    /// When the stage began.
    pub since: Duration,
    /// Our keys and indexes.
    pub epochs: Epochs,
    /// The peer's index.
    pub theirs: Option<u32>,
    pub boot: Option<BootId>,
    /// The echo came round: envelopes pass both ways.
    pub confirmed: bool,
    /// It has not got fresh keys when it should.
    pub worn: bool,
    pub lanes: Lanes,
    /// The longest datagram that its path is said to pass, and whether to the end.
    pub size: (u16, bool),
    pub heard: Duration,
    /// A probe came before it could be answered.
    pub asked: bool,
    pub probed: Option<Duration>,
    /// The address that the peer was told that it is seen at.
    pub told: Option<SocketAddr>,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, path: Path, ours: bool, stage: Stage, now: Duration) -> Self {
        Self {
            id,
            path,
            ours,
            replaces: false,
            stage,
            since: now,
            epochs: Epochs::new(ours),
            theirs: None,
            boot: None,
            confirmed: false,
            worn: false,
            lanes: Lanes::default(),
            size: (mtu::floor(path), false),
            heard: now,
            asked: false,
            probed: None,
            told: None,
        }
    }

    pub(super) fn enter(&mut self, stage: Stage, now: Duration) {
        (self.stage, self.since, self.heard) = (stage, now, now);
    }

    /// Whether frames can go by it.
    pub(super) fn ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Whether envelopes are known to pass both ways.
    pub(super) fn works(&self) -> bool {
        self.ready() && self.confirmed
    }

    /// When its stage is over for want of news.
    pub(super) fn ends(&self) -> Duration {
        match self.stage {
            Stage::Dialling | Stage::Greeting => self.since + DIAL_TIMEOUT,
            Stage::Ready => self.heard + DOWN_AFTER,
            Stage::Lingering => self.since + KEYS_LINGER,
        }
    }

    /// When it must be probed next.
    pub(super) fn next_probe(&self, lower: bool) -> Option<Duration> {
        if !self.ready() {
            return None;
        }
        let after = |interval| self.probed.map_or(self.since, |probed| probed + interval);
        let suspect = (self.heard + SUSPECT_AFTER).max(after(SUSPECT_INTERVAL));
        let regular =
            after(if self.confirmed && !self.epochs.proving() { PROBE_INTERVAL } else { CONFIRM_INTERVAL });
        Some(if lower || self.epochs.proving() { regular.min(suspect) } else { suspect })
    }
}
