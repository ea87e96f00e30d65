//! What neighbours hand over for others, or from others for this host: judged, then taken or passed on.

use std::ops::Range;

use weft_api::id::HostId;
use weft_router::drop::DropReason;
use weft_router::envelope::{HEADER_LEN, Header};
use weft_router::relay::{Onward, RELAY_FRONT, RELAY_HEAD_LEN, RELAY_LEN, RELAY_OVERHEAD, Relayed, uncover};
use weft_router::session::Remote;

use super::{Inbox, Surroundings, depth};
use crate::lane::deliver::Origin;

impl Inbox {
    /// An envelope of two other hosts, or of one of them and this one, in the cover of a neighbour.
    #[inline]
    pub(super) fn relayed_envelope(
        &mut self,
        around: &mut Surroundings<'_>,
        header: Header,
        range: Range<usize>,
        from: Remote,
    ) -> Result<(), DropReason> {
        let opened = self.open(around, header, range.clone(), from, |key, datagram| {
            key.open_head(header, datagram).map(|_| true)
        });
        if let Some(origin) = opened? {
            if let Err(reason) = self.uncovered(around, origin.epoch.host(), range, from) {
                around.desk.drop_on(origin.epoch.drops(), reason, 1);
            }
            self.latest[depth(from)].epoch = Some(origin.epoch);
        }
        Ok(())
    }

    /// A datagram in a chunk that a neighbour relays: for this host, or to be passed on.
    pub(super) fn relayed(
        &mut self,
        around: &mut Surroundings<'_>,
        origin: &Origin,
        body: Range<usize>,
        from: Remote,
    ) -> Result<(), DropReason> {
        let by = origin.epoch.host();
        if matches!(from, Remote::Relayed { .. }) {
            return Err(DropReason::RelayNested);
        }
        let relayed = Relayed::read(&self.ring.slot()[body.clone()])?;
        let carried = body.start + RELAY_LEN..body.end;
        match self.judge(around, relayed, by)? {
            Onward::Here => self.datagram(around, carried, Remote::Relayed { by, host: relayed.source }),
            Onward::To(next, onward) => {
                around.relay_limits.take(by, around.now)?;
                let train = around.trains.to(around.desk, around.tables, next)?;
                train.push_relayed(around.desk, onward, &self.ring.slot()[carried])
            }
        }
    }

    /// The same of a relayed envelope, whose head `by` has sealed and is open.
    #[inline]
    fn uncovered(
        &mut self,
        around: &mut Surroundings<'_>,
        by: HostId,
        range: Range<usize>,
        from: Remote,
    ) -> Result<(), DropReason> {
        let carried = range.start + RELAY_OVERHEAD..range.end;
        let datagram = &self.ring.slot()[range.clone()];
        let head = datagram.get(HEADER_LEN..).and_then(|rest| rest.first_chunk::<RELAY_HEAD_LEN>());
        let relayed = Relayed::read_head(head.ok_or(DropReason::TooShort)?)?;
        let onward = self.judge(around, relayed, by)?;
        let slot = self.ring.slot();
        if let Onward::To(next, onward) = onward {
            around.relay_limits.take(by, around.now)?;
            // Records of a stream do not lie in the buffer as a train does.
            if matches!(from, Remote::Udp(_))
                && self.transit.takes(around.desk, around.tables, next, slot, range.len())?
            {
                return self.transit.push(around.desk, onward, slot, range);
            }
        }
        uncover(slot[range].first_chunk_mut::<RELAY_FRONT>().ok_or(DropReason::TooShort)?);
        match onward {
            Onward::Here => self.datagram(around, carried, Remote::Relayed { by, host: relayed.source }),
            Onward::To(next, onward) => {
                let train = around.trains.to(around.desk, around.tables, next)?;
                train.push_relayed(around.desk, onward, &slot[carried])
            }
        }
    }

    /// Where it goes; asked once for all that are alike in a batch.
    #[inline]
    fn judge(
        &mut self,
        around: &Surroundings<'_>,
        relayed: Relayed,
        by: HostId,
    ) -> Result<Onward, DropReason> {
        match self.judged {
            Some((known_by, known, onward)) if known_by == by && known == relayed => Ok(onward),
            _ => {
                let tables = around.tables;
                let path = |host: HostId| tables.sends.get(&host)?.path().map(|path| path.way);
                let onward = tables.relay.judge(relayed, by, path)?;
                self.judged = Some((by, relayed, onward));
                Ok(onward)
            }
        }
    }
}
