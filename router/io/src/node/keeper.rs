//! The one task that hears what neighbours say and writes to the disk what is believed of it. What they say waits in a bounded
//! queue, so a neighbour that says too much waits on its own stream; what came meanwhile is written together.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use weft_api::id::HostId;
use weft_router::mesh::{AnyRecord, Event, Gossip, ToStore};

use super::store::Store;
use super::{IDLE, NodeEvent, Persist, StoredRecord};

/// Messages of peers that wait; who sends more waits too.
pub(super) const QUEUE: usize = 64;
/// Messages that are judged before what they brought is written.
const TOGETHER: usize = 64;

pub(super) struct Keeper {
    pub store: Arc<Store>,
    pub disk: Arc<dyn Persist>,
    pub heard: mpsc::Receiver<(HostId, Gossip)>,
    pub events: mpsc::Sender<NodeEvent>,
}

impl Keeper {
    pub(super) async fn run(mut self) {
        let mut removed = false;
        loop {
            let wake = self.store.next_wake().map_or_else(|| Instant::now() + IDLE, Instant::from_std);
            tokio::select! {
                () = self.store.touched.notified() => {}
                () = sleep_until(wake) => self.store.event(Event::Tick),
                heard = self.heard.recv() => match heard {
                    Some((from, gossip)) => self.hear(from, &gossip),
                    None => return,
                },
            }
            self.write().await;
            if !removed && !self.store.is_member() {
                removed = self.events.try_send(NodeEvent::Removed).is_ok();
            }
        }
    }

    fn hear(&mut self, from: HostId, gossip: &Gossip) {
        self.store.event(Event::Heard(from, gossip));
        for _ in 1..TOGETHER {
            let Ok((from, gossip)) = self.heard.try_recv() else { return };
            self.store.event(Event::Heard(from, &gossip));
        }
    }

    /// Stores what is believed, then has it acted on.
    async fn write(&self) {
        loop {
            let batches = self.store.unstored();
            if batches.is_empty() {
                return;
            }
            let records = batches.iter().flatten().map(stored).collect();
            let saved = self.save(records).await;
            batches.iter().for_each(|_| self.store.event(Event::Stored(saved)));
        }
    }

    async fn save(&self, records: Vec<StoredRecord>) -> bool {
        let (disk, n) = (Arc::clone(&self.disk), records.len());
        let error = match tokio::task::spawn_blocking(move || disk.save(&records)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        tracing::error!(%error, "{n} records cannot be stored; they are not acted on");
        false
    }
}

fn stored(record: &ToStore) -> StoredRecord {
    match record {
        ToStore::FactsGone(host) => StoredRecord::FactsGone(*host),
        ToStore::RosterGone(host) => StoredRecord::RosterGone(*host),
        ToStore::Record(record) => match record {
            AnyRecord::Succession(held) => StoredRecord::Succession(held.record.number, held.signed.clone()),
            AnyRecord::Roster(held) => StoredRecord::Roster(held.record.key.id(), held.signed.clone()),
            AnyRecord::Decision(held) => StoredRecord::Decision(held.record.key.clone(), held.signed.clone()),
            AnyRecord::Facts(said) => StoredRecord::Facts(said.head.owner, said.record.clone()),
        },
    }
}
