//! The one task that takes records: checks, stores on disk, then acts on them and lets them spread. What comes from peers
//! waits in a bounded queue, so a peer that sends too much waits on its own stream.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use weft_api::decision::Decision;
use weft_api::fact::Item;
use weft_api::id::HostId;
use weft_api::roster::RosterRecord;
use weft_api::sign::Signed;
use weft_router::drop::{DropCounters, DropReason};
use weft_router::session::message::{MAX_RECORDS, Message};

use super::store::{Fresh, Store};
use super::{NodeEvent, Persist, StoredRecord};

/// Messages of peers that wait; who sends more waits too.
pub(super) const QUEUE: usize = 64;
/// Records made on this host that wait for a disk that fails; further ones are dropped (`RecordsTooMany`).
const MAX_WAITING: usize = 65_536;
/// After the disk refused something made here it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What was made on this host and is not taken yet.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Default)]
struct Waiting {
    say: Option<Vec<Item>>,
    /// Signed already, but the disk did not take it.
    said: Option<Message>,
    roster: Vec<Signed<RosterRecord>>,
    decisions: Vec<Signed<Decision>>,
}

impl Inbox {
    /// The newest alone counts.
    pub(super) fn say(&self, items: Vec<Item>) {
        self.with(|w| w.say = Some(items));
    }

    pub(super) fn roster(&self, drops: &DropCounters, records: Vec<Signed<RosterRecord>>) {
        self.with(|w| append(drops, &mut w.roster, records));
    }

    pub(super) fn decisions(&self, drops: &DropCounters, records: Vec<Signed<Decision>>) {
        self.with(|w| append(drops, &mut w.decisions, records));
    }

    fn with(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.came.notify_one();
    }

    fn take(&self) -> Waiting {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn append<T>(drops: &DropCounters, waiting: &mut Vec<T>, records: Vec<T>) {
    let room = MAX_WAITING.saturating_sub(waiting.len());
    drops.add(DropReason::RecordsTooMany, records.len().saturating_sub(room) as u64);
    waiting.extend(records.into_iter().take(room));
}

pub(super) struct Keeper {
    pub store: Arc<Store>,
    pub disk: Arc<dyn Persist>,
    pub inbox: Arc<Inbox>,
    pub heard: mpsc::Receiver<(HostId, Message)>,
    pub events: mpsc::Sender<NodeEvent>,
    pub drops: Arc<DropCounters>,
}

impl Keeper {
    pub(super) async fn run(mut self) {
        let mut removed = false;
        loop {
            tokio::select! {
                () = self.inbox.came.notified() => self.take_own().await,
                heard = self.heard.recv() => match heard {
                    Some((from, message)) => { self.take(&message, Some(from)).await; }
                    None => return,
                },
            }
            if !removed && !self.store.is_member() {
                removed = self.events.try_send(NodeEvent::Removed).is_ok();
            }
        }
    }

    async fn take_own(&self) {
        let Waiting { say, said, roster, decisions } = self.inbox.take();
        let mut refused = Waiting::default();
        for records in roster.chunks(MAX_RECORDS) {
            if !self.take(&Message::Roster(records.to_vec()), None).await {
                refused.roster.extend_from_slice(records);
            }
        }
        for records in decisions.chunks(MAX_RECORDS) {
            if !self.take(&Message::Decisions(records.to_vec()), None).await {
                refused.decisions.extend_from_slice(records);
            }
        }
        let newer = say.and_then(|items| {
            let (message, left_out) = self.store.say(&items);
            self.drops.add(DropReason::RecordTooLong, left_out as u64);
            message
        });
        if let Some(message) = newer.or(said)
            && !self.take(&message, None).await
        {
            refused.said = Some(message);
        }
        self.try_again(refused);
    }

    /// Checks, stores, acts. `false`: the disk did not take it.
    async fn take(&self, message: &Message, from: Option<HostId>) -> bool {
        for _ in 0..MAX_RECORDS {
            let (fresh, more) = one_of_each(self.store.check(message, from, &self.drops));
            if fresh.is_empty() {
                return true;
            }
            if !self.save(fresh.iter().map(Fresh::stored).collect()).await {
                return false;
            }
            let gone = self.store.take(fresh, from);
            if !gone.is_empty() && !self.save(gone).await {
                return false;
            }
            if !more {
                return true;
            }
        }
        true
    }

    async fn save(&self, records: Vec<StoredRecord>) -> bool {
        let (disk, n) = (Arc::clone(&self.disk), records.len());
        let error = match tokio::task::spawn_blocking(move || disk.save(&records)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        tracing::error!(%error, "{n} records cannot be stored; they are not acted on");
        self.drops.add(DropReason::DiskRefused, n as u64);
        false
    }

    fn try_again(&self, refused: Waiting) {
        if refused.said.is_none() && refused.roster.is_empty() && refused.decisions.is_empty() {
            return;
        }
        let inbox = Arc::clone(&self.inbox);
        let drops = Arc::clone(&self.drops);
        tokio::spawn(async move {
            tokio::time::sleep(RETRY).await;
            inbox.with(|w| {
                w.said = w.said.take().or(refused.said);
                append(&drops, &mut w.roster, refused.roster);
                append(&drops, &mut w.decisions, refused.decisions);
            });
        });
    }
}

/// One record of each key, and whether there were more: those are checked again against the first, so that disk and memory
/// never differ.
fn one_of_each(fresh: Vec<Fresh>) -> (Vec<Fresh>, bool) {
    let (mut seen, all) = (BTreeSet::new(), fresh.len());
    let fresh: Vec<Fresh> = fresh.into_iter().filter(|f| seen.insert(f.key())).collect();
    let more = fresh.len() < all;
    (fresh, more)
}
