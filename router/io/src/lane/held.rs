//! A lane's waiting room: frames for hosts without a session, and all that sending them takes.

use std::sync::Arc;
use std::time::Duration;

use weft_api::id::{HostId, NetworkId};
use weft_router::drop::DropReason;
use weft_router::offload::VnetHeader;
use weft_router::offload::plain::Checksum;
use weft_router::waiting::WaitingRoom;

use super::desk::Desk;
use crate::tables::Tables;

/// What came before the frame, and its checksum as it was settled; none: it is a superframe.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub vnet: VnetHeader,
    pub checksum: Option<Checksum>,
}

/// One that waits. The copies of a broadcast share its bytes.
pub(super) struct Frame {
    pub network: NetworkId,
    pub load: Load,
    pub bytes: Arc<[u8]>,
}

#[derive(Default)]
pub(super) struct Held(WaitingRoom<Frame>);

impl Held {
    /// The frame waits for the host. `shared` has its bytes if it waits for another already.
    #[cold]
    pub(super) fn enter(
        &mut self,
        now: Duration,
        host: HostId,
        (network, load): (NetworkId, Load),
        frame: &[u8],
        shared: &mut Option<Arc<[u8]>>,
    ) -> Result<(), DropReason> {
        self.0.enter(now, host, frame.len(), || Frame {
            network,
            load,
            bytes: Arc::clone(shared.get_or_insert_with(|| Arc::from(frame))),
        })
    }

    /// Takes out what waits for hosts that have a session by now.
    pub(super) fn leave(&mut self, tables: &Tables) -> Vec<(HostId, Frame)> {
        let ready: Vec<HostId> = self.0.hosts().filter(|host| tables.sends.contains_key(host)).collect();
        let mut left = Vec::new();
        for host in ready {
            left.extend(self.0.leave(host).map(|frame| (host, frame)));
        }
        left
    }

    /// Drops what has waited too long.
    pub(super) fn expire(&mut self, desk: &Desk, now: Duration) {
        desk.drop_many(DropReason::WaitedTooLong, self.0.expire(now));
    }

    /// The host cannot be reached.
    pub(super) fn give_up(&mut self, desk: &Desk, host: HostId) {
        desk.drop_many(DropReason::NotReached, self.0.give_up(host));
    }

    /// When [`Self::expire`] is due.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.0.next_expiry()
    }
}
