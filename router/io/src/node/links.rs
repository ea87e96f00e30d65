//! What is told of links: their state, and the counts of epochs that are and that were.

use std::collections::BTreeMap;

use weft_api::report::Link;
use weft_router::drop::DropCounters;
use weft_router::session::{LinkView, Path};

use super::engine::Engine;
use super::keys::Keys;
use crate::tables::{ReceiveEpoch, SendEpoch};

/// What epochs that are over have counted.
#[derive(Default)]
pub(super) struct Past {
    pub sent: u64,
    pub received: u64,
    pub drops: BTreeMap<String, u64>,
}

impl Engine {
    /// A row for each peer.
    pub(super) fn links(&self) -> Vec<Link> {
        let now = self.start.elapsed();
        let state = self.lock();
        let views: Vec<_> = state.sessions.links().collect();
        let row = |view: LinkView| {
            let keys = view.connection.and_then(|id| state.live.get(&id)).and_then(|l| l.keys.as_ref());
            let send = keys.and_then(|k| k.send.as_ref());
            let mut past = Past::default();
            past.add(state.past.get(&view.host));
            let of_host = state.live.values().filter(|l| l.host == view.host);
            of_host.filter_map(|l| l.keys.as_ref()).for_each(|keys| past.add_keys(keys));
            Link {
                host: self.store.name(view.host).unwrap_or_default(),
                id: view.host,
                state: view.state,
                transport: match view.path {
                    Some(Path::Tcp(_)) => "tcp".to_owned(),
                    Some(Path::Relay(by)) => self.store.name(by).unwrap_or_else(|| by.to_string()),
                    Some(Path::Udp(_)) | None => "udp".to_owned(),
                },
                address: view.path.and_then(|path| match path {
                    Path::Udp(address) => Some(address),
                    Path::Tcp(stream) => self.tcp.peer(stream),
                    Path::Relay(_) => None,
                }),
                rtt_ms: view.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
                loss: view.loss,
                mtu: send.and_then(|s| s.path()).map(|p| p.datagram),
                cipher: send.map(|_| self.mesh.cipher),
                key_age: view.since.map(|since| now.saturating_sub(since).as_secs()),
                sent_bytes: past.sent,
                received_bytes: past.received,
                drops: past.drops,
            }
        };
        views.into_iter().map(row).collect()
    }
}

impl Past {
    pub(super) fn add(&mut self, other: Option<&Past>) {
        if let Some(other) = other {
            self.sent += other.sent;
            self.received += other.received;
            other.drops.iter().for_each(|(k, n)| *self.drops.entry(k.clone()).or_default() += n);
        }
    }

    pub(super) fn add_keys(&mut self, keys: &Keys) {
        keys.send.iter().for_each(|send| self.add_sent(send));
        keys.receives.iter().for_each(|receive| self.add_received(receive));
    }

    pub(super) fn add_sent(&mut self, epoch: &SendEpoch) {
        self.sent += epoch.sent().bytes;
        self.add_drops(epoch.drops());
    }

    pub(super) fn add_received(&mut self, epoch: &ReceiveEpoch) {
        self.received += epoch.received().bytes;
        self.add_drops(epoch.drops());
    }

    fn add_drops(&mut self, drops: &DropCounters) {
        for (label, n) in drops.by_label() {
            *self.drops.entry(label).or_default() += n;
        }
    }
}
