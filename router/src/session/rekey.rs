//! Fresh keys for a connection that stays (PROTOCOL 2): who begins, what is answered, when the old keys go. The keys themselves
//! are made by who carries the actions out: chain n+1 from chain n and two fresh X25519 keys, sent on the control stream.
//!
//! The dialler begins, so two rekeys never meet; the listener may ask. Each end opens with the next key before the other can
//! know it, so that nothing is lost; an end seals with it as soon as the other surely opens with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::peer::{KEYS_LINGER, Peer, Scene};
use super::{Action, ConnectionId, Why};
use crate::drop::DropReason;

/// The dialler replaces keys of this age.
pub const REKEY_AFTER: Duration = Duration::from_secs(10 * 60);
/// The listener asks for fresh keys so much later.
pub const REKEY_ASK_AFTER: Duration = Duration::from_secs(60);
/// A rekey that is not done after this has failed: another connection is dialled beside.
pub const REKEY_PATIENCE: Duration = Duration::from_secs(60);
/// Receive keys of one connection; an offer beyond is ignored (`RekeyTooSoon`).
pub const MAX_EPOCHS: usize = 16;

/// The dialler begins no rekey while it has so many receive keys, so that the listener never has too many.
const ENOUGH_EPOCHS: usize = MAX_EPOCHS - 2;

/// What the ends of a connection say about its keys, on the control stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Rekey {
    /// The listener wants this epoch.
    Ask(u32),
    /// The dialler begins an epoch.
    Offer(Share),
    /// The listener has made its keys, and opens with them.
    Answer(Share),
}

/// One end's half of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Share {
    /// The number of the epoch; that of the handshake is 0.
    pub epoch: u32,
    /// The session index under which the sender of this takes the epoch's envelopes.
    pub index: u32,
    /// A fresh X25519 public key (RFC 7748).
    pub public: [u8; 32],
}

/// The epochs of one connection.
#[derive(Debug)]
pub(super) struct Epochs {
    ours: bool,
    /// The newest that keys were made of.
    newest: u32,
    /// When.
    since: Duration,
    /// What envelopes may come under, the newest last.
    receives: Vec<Receive>,
    phase: Phase,
    /// Fresh keys are wanted, whatever the age of these.
    wanted: bool,
    /// The epoch that was asked for last.
    asked: u32,
    /// Since when the other end has to do something.
    waits: Option<Duration>,
}

#[derive(Debug)]
struct Receive {
    index: u32,
    ends: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Both ends seal with the newest.
    Settled,
    /// Ours: the next epoch is offered; envelopes of it will come under this index.
    Offered(u32),
    /// Ours: sealed with the newest, but nothing opened with it yet.
    Proving,
    /// Theirs: opened with the newest, and not sealed with it before the first authentic envelope; then towards this index.
    Answered(u32),
}

/// What must be done about a connection's keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Ask(u32),
    Offer {
        epoch: u32,
        index: u32,
    },
    Answer {
        offer: Share,
        index: u32,
    },
    /// The dialler's keys are complete.
    Complete {
        answer: Share,
        index: u32,
    },
    /// The listener seals with the newest key, towards this index.
    Seal(u32),
    /// The other end does not do its part.
    GiveUp,
}

impl Epochs {
    /// `ours`: we have dialled.
    pub(super) fn new(ours: bool) -> Self {
        Self {
            ours,
            newest: 0,
            since: Duration::ZERO,
            receives: Vec::new(),
            phase: Phase::Settled,
            wanted: false,
            asked: 0,
            waits: None,
        }
    }

    /// Envelopes of the handshake's own epoch may come under this index.
    pub(super) fn open(&mut self, now: Duration, index: u32) {
        self.since = now;
        self.receives.push(Receive { index, ends: None });
    }

    /// Whether there are keys.
    pub(super) fn any(&self) -> bool {
        !self.receives.is_empty()
    }

    /// Whether envelopes under this index are this connection's.
    pub(super) fn opens(&self, index: u32) -> bool {
        self.receives.iter().any(|r| r.index == index)
    }

    /// The indexes that envelopes may come under.
    pub(super) fn indexes(&self) -> impl Iterator<Item = u32> {
        self.receives.iter().map(|r| r.index)
    }

    /// When the newest keys were made.
    pub(super) fn since(&self) -> Duration {
        self.since
    }

    /// The other end does not know that the newest key is in use, unless it is probed.
    pub(super) fn proving(&self) -> bool {
        self.phase == Phase::Proving
    }

    /// Fresh keys as soon as can be.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// An authentic envelope came under this index.
    pub(super) fn heard(&mut self, now: Duration, index: u32) -> Option<Step> {
        if self.receives.last().is_none_or(|newest| newest.index != index) {
            return None;
        }
        let step = match self.phase {
            Phase::Proving => None,
            Phase::Answered(theirs) => Some(Step::Seal(theirs)),
            Phase::Settled | Phase::Offered(_) => return None,
        };
        (self.phase, self.waits) = (Phase::Settled, None);
        let (_, older) = self.receives.split_last_mut()?;
        older.iter_mut().for_each(|r| r.ends = Some(r.ends.unwrap_or(now + KEYS_LINGER)));
        step
    }

    /// What the other end says. An error that is out of turn ends the connection.
    pub(super) fn told(
        &mut self,
        now: Duration,
        said: Rekey,
        draw: impl FnOnce() -> u32,
    ) -> Result<Option<Step>, DropReason> {
        let next = self.newest + 1;
        match said {
            Rekey::Ask(epoch) if self.ours && epoch <= next => {
                if epoch < next || self.wanted || self.phase != Phase::Settled {
                    return Err(DropReason::RekeyIgnored);
                }
                self.wanted = true;
                Ok(None)
            }
            Rekey::Offer(offer) if !self.ours && offer.epoch == next && self.phase == Phase::Settled => {
                if self.receives.len() >= MAX_EPOCHS {
                    return Err(DropReason::RekeyTooSoon);
                }
                let index = draw();
                self.renew(now, index);
                (self.phase, self.waits) = (Phase::Answered(offer.index), Some(now));
                Ok(Some(Step::Answer { offer, index }))
            }
            Rekey::Answer(answer) if self.ours && answer.epoch == next => {
                let Phase::Offered(index) = self.phase else { return Err(DropReason::RekeyOutOfTurn) };
                self.renew(now, index);
                self.phase = Phase::Proving;
                Ok(Some(Step::Complete { answer, index }))
            }
            _ => Err(DropReason::RekeyOutOfTurn),
        }
    }

    /// An index whose key has been replaced for long enough; call it until there is none.
    pub(super) fn expired(&mut self, now: Duration) -> Option<u32> {
        let at = self.receives.iter().position(|r| r.ends.is_some_and(|ends| ends <= now))?;
        Some(self.receives.remove(at).index)
    }

    /// What is due on a connection that works; call it until there is nothing.
    pub(super) fn due(&mut self, now: Duration, draw: impl FnOnce() -> u32) -> Option<Step> {
        if self.waits.is_some_and(|since| since + REKEY_PATIENCE <= now) {
            self.waits = None;
            return Some(Step::GiveUp);
        }
        if self.begins().is_none_or(|at| at > now) {
            return None;
        }
        let next = self.newest + 1;
        self.waits = Some(now);
        self.asked = next;
        if !self.ours {
            return Some(Step::Ask(next));
        }
        let index = draw();
        self.phase = Phase::Offered(index);
        Some(Step::Offer { epoch: next, index })
    }

    /// When a key expires, and when something is due if the connection works.
    pub(super) fn next_wake(&self, works: bool) -> Option<Duration> {
        let erase = self.receives.iter().filter_map(|r| r.ends).min();
        let patience = self.waits.map(|since| since + REKEY_PATIENCE);
        let due = [patience, self.begins()].into_iter().flatten().min();
        [erase, due.filter(|_| works)].into_iter().flatten().min()
    }

    /// When the next rekey is begun, or asked for.
    fn begins(&self) -> Option<Duration> {
        if self.phase != Phase::Settled || self.asked > self.newest || self.receives.len() >= ENOUGH_EPOCHS {
            return None;
        }
        let old = self.since + REKEY_AFTER + if self.ours { Duration::ZERO } else { REKEY_ASK_AFTER };
        Some(if self.wanted { self.since } else { old })
    }

    fn renew(&mut self, now: Duration, index: u32) {
        self.newest += 1;
        (self.since, self.wanted) = (now, false);
        self.receives.push(Receive { index, ends: None });
    }
}

impl Peer {
    /// Fresh keys for the session in use.
    pub(super) fn want_fresh_keys(&mut self) {
        let used = self.used;
        self.connections.iter_mut().filter(|c| Some(c.id) == used).for_each(|c| c.epochs.want());
    }

    /// A lane has sealed enough with the key for this index of the peer.
    pub(super) fn worn(&mut self, theirs: u32) {
        let worn = self.connections.iter_mut().filter(|c| c.theirs == Some(theirs));
        worn.for_each(|c| c.epochs.want());
    }

    /// An authentic envelope came under this index.
    pub(super) fn proven(&mut self, scene: &mut Scene<'_>, index: u32) {
        let Some(connection) = self.by_index(index).filter(|c| c.ready()) else { return };
        let (id, step) = (connection.id, connection.epochs.heard(scene.now, index));
        if let Some(step) = step {
            self.take_step(scene, id, step);
        }
    }

    /// The peer says something about the keys of a connection.
    pub(super) fn rekey(&mut self, scene: &mut Scene<'_>, id: ConnectionId, said: Rekey) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id && c.ready()) else { return };
        match connection.epochs.told(scene.now, said, || scene.indexes.draw()) {
            Ok(Some(step)) => self.take_step(scene, id, step),
            Ok(None) => {}
            Err(reason) => {
                scene.act(Action::Count(reason));
                if reason == DropReason::RekeyOutOfTurn {
                    self.end(scene, id, Why::Garbled);
                    self.choose(scene);
                }
            }
        }
    }

    /// Begins, gives up and erases what is due.
    pub(super) fn rekey_due(&mut self, scene: &mut Scene<'_>) {
        for connection in &mut self.connections {
            while let Some(index) = connection.epochs.expired(scene.now) {
                scene.actions.push(Action::EraseReceive(connection.id, index));
            }
        }
        let working: Vec<ConnectionId> =
            self.connections.iter().filter(|c| c.works()).map(|c| c.id).collect();
        for id in working {
            while let Some(connection) = self.connections.iter_mut().find(|c| c.id == id)
                && let Some(step) = connection.epochs.due(scene.now, || scene.indexes.draw())
            {
                self.take_step(scene, id, step);
            }
        }
    }

    fn take_step(&mut self, scene: &mut Scene<'_>, id: ConnectionId, step: Step) {
        let host = self.host;
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else { return };
        let path = connection.path;
        match step {
            Step::Ask(epoch) => scene.act(Action::AskRekey(id, epoch)),
            Step::Offer { epoch, index } => scene.act(Action::OfferKeys(id, epoch, index)),
            Step::Answer { offer, index } => {
                scene.act(Action::NextChain(id, offer.public));
                scene.act(Action::InstallReceive(id, host, index));
                scene.act(Action::AnswerKeys(id, offer.epoch, index));
            }
            Step::Complete { answer, index } => {
                scene.act(Action::NextChain(id, answer.public));
                scene.act(Action::InstallReceive(id, host, index));
                connection.theirs = Some(answer.index);
                scene.act(Action::InstallSend(id, host, answer.index, path));
                self.ask(scene, id, path); // So that the peer hears of the key that is sealed with.
            }
            Step::Seal(theirs) => {
                connection.theirs = Some(theirs);
                scene.act(Action::InstallSend(id, host, theirs, path));
            }
            Step::GiveUp => {
                scene.act(Action::Count(DropReason::RekeyUnanswered));
                self.renew(scene, id);
            }
        }
    }
}
