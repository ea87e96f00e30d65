//! Envelopes, notices and relayed datagrams byte by byte: the product's own seals, chunks, fragments and relays, driven as a lane of
//! `router/io` drives them.

use std::collections::BTreeSet;
use std::rc::Rc;

use weft_api::id::{HostId, NetworkId};
use weft_router::chunk::{Chunk, ChunkKind, Chunks, begins_with_probe, frame_head, probe_head, quic_head};
use weft_router::drop::DropReason;
use weft_router::envelope::{HEADER_LEN, Header, OVERHEAD, Shape, TAG_LEN};
use weft_router::fragment;
use weft_router::offload::plain::Checksum;
use weft_router::relay::{
    Onward, RELAY_ANYWAY, RELAY_FRONT, RELAY_LEN, RELAY_OVERHEAD, RelayTable, Relayed, uncover,
};
use weft_router::seal::OpenKey;
use weft_router::session::mtu::floor;
use weft_router::session::{ConnectionId, Event, Path, Remote};

use crate::datagram::{Body, Datagram};
use crate::host::network;
use crate::world::World;

impl World {
    /// Seals a body, in fragments where it is too long for the path; nothing happens without a key.
    pub(crate) fn seal_bytes(&mut self, n: usize, id: ConnectionId, to: Remote, body: &Body) {
        let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let (chunk, padded) = match body {
            Body::Probe(probe, size) => ([&probe_head(false, len(probe))[..], &probe[..]].concat(), *size),
            Body::Frame(at, frame) => {
                let head = frame_head(network(*at).id, Checksum::Computed, len(frame));
                ([&head[..], &frame[..]].concat(), 0)
            }
            Body::Quic(packet) => ([&quic_head(len(packet))[..], &packet[..]].concat(), 0),
        };
        let room = match self.room(n, id, to) {
            Ok(room) => room,
            Err(reason) => return self.hosts[n].count(reason, 1),
        };
        if padded > 0 || chunk.len() <= room {
            return self.seal_chunk(n, id, to, &chunk, padded);
        }
        self.seal_parts(n, id, to, &chunk, room);
    }

    /// What a session's path passes, without what an envelope adds.
    fn room(&self, n: usize, id: ConnectionId, to: Remote) -> Result<usize, DropReason> {
        let host = &self.hosts[n];
        let current = host.peers.get(&id).map(|(_, path)| *path);
        let size = host.seals.get(&id).filter(|_| current == Some(to.path())).map(|s| s.size);
        let passes = size.unwrap_or(floor(to.path())).min(self.most(n, to.path())?);
        Ok(usize::from(passes).saturating_sub(OVERHEAD))
    }

    /// The longest datagram that a relay's own path leaves room for.
    pub(crate) fn most(&self, n: usize, path: Path) -> Result<u16, DropReason> {
        let Path::Relay(hop) = path else { return Ok(u16::MAX) };
        let host = &self.hosts[n];
        let id = host.used.get(&hop).filter(|_| host.path(hop).is_some_and(Path::is_direct));
        let sealing = id.and_then(|id| host.seals.get(id)).ok_or(DropReason::NoPath)?;
        Ok(sealing.size.saturating_sub(RELAY_OVERHEAD as u16))
    }

    fn seal_parts(&mut self, n: usize, id: ConnectionId, to: Remote, chunk: &[u8], room: usize) {
        let Some(sealing) = self.hosts[n].seals.get_mut(&id) else { return };
        sealing.fragment = sealing.fragment.wrapping_add(1);
        match fragment::cut(sealing.fragment, chunk.len(), room) {
            Ok(parts) => {
                for (head, part) in parts.collect::<Vec<_>>() {
                    self.seal_chunk(n, id, to, &[&head, &chunk[part]].concat(), 0);
                }
            }
            Err(reason) => self.hosts[n].count(reason, 1),
        }
    }

    /// An envelope of one chunk, `padded` to a datagram of at least that length.
    fn seal_chunk(&mut self, n: usize, id: ConnectionId, to: Remote, chunk: &[u8], padded: usize) {
        let Some(sealing) = self.hosts[n].seals.get_mut(&id) else { return };
        let Some(key) = sealing.key.clone() else { return };
        let header = Header { lane: 0, index: sealing.index, counter: sealing.counter };
        sealing.counter += 1;
        let mut datagram = vec![0; (OVERHEAD + chunk.len()).max(padded)];
        datagram[HEADER_LEN..HEADER_LEN + chunk.len()].copy_from_slice(chunk);
        key.seal(header, &mut datagram);
        self.datagram(n, to, Datagram::Bytes(datagram.into()));
    }

    /// A datagram leaves inside an envelope of the session with a neighbour, its first relay or the next.
    pub(crate) fn relay_bytes(&mut self, n: usize, hop: HostId, relayed: Relayed, carried: &[u8]) {
        let (Some(id), Some(path)) = (self.hosts[n].used.get(&hop).copied(), self.hosts[n].path(hop)) else {
            return self.hosts[n].count(DropReason::NoPath, 1);
        };
        if !path.is_direct() {
            return self.hosts[n].count(DropReason::RelayNested, 1);
        }
        let chunk = [&relayed.chunk(carried.len() as u16)[..], carried].concat();
        let room = self.room(n, id, path.to(hop));
        if matches!(Shape::of(carried), Ok(Shape::Envelope(_)))
            && room.is_ok_and(|room| RELAY_OVERHEAD + carried.len() <= room + OVERHEAD)
        {
            return self.seal_cover(n, id, path.to(hop), relayed, carried);
        }
        match room {
            Ok(room) if chunk.len() <= room => self.seal_chunk(n, id, path.to(hop), &chunk, 0),
            Ok(room) if carried.len() <= RELAY_ANYWAY => self.seal_parts(n, id, path.to(hop), &chunk, room),
            Ok(_) => self.hosts[n].count(DropReason::TooBigForPath, 1),
            Err(reason) => self.hosts[n].count(reason, 1),
        }
    }

    /// An envelope leaves as it is, under a head that is sealed for the neighbour.
    fn seal_cover(&mut self, n: usize, id: ConnectionId, to: Remote, relayed: Relayed, carried: &[u8]) {
        let Some(sealing) = self.hosts[n].seals.get_mut(&id) else { return };
        let Some(key) = sealing.key.clone() else { return };
        let header = Header { lane: 0, index: sealing.index, counter: sealing.counter };
        sealing.counter += 1;
        let mut datagram = [&[0; RELAY_OVERHEAD], carried].concat();
        if let Some(front) = datagram.first_chunk_mut::<RELAY_FRONT>() {
            relayed.cover(front);
            key.seal_head(header, front);
        }
        self.datagram(n, to, Datagram::Bytes(datagram.into()));
    }

    /// A datagram arrives, and is judged by its own first bytes.
    pub(crate) fn arrive_bytes(&mut self, n: usize, from: Remote, datagram: &[u8]) {
        let taken = match Shape::of(datagram) {
            Ok(Shape::Bare) => {
                self.bare(n, from, datagram);
                Ok(())
            }
            Ok(Shape::Notice(header)) => {
                self.session(n, Event::Notice(header.index));
                Ok(())
            }
            Ok(Shape::Envelope(header)) => self.open_bytes(n, from, header, datagram),
            Ok(Shape::Relayed(header)) => self.open_cover(n, from, header, datagram),
            Err(reason) => Err(reason),
        };
        taken.unwrap_or_else(|reason| self.hosts[n].count(reason, 1));
    }

    fn open_bytes(
        &mut self,
        n: usize,
        from: Remote,
        header: Header,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let mut bytes = datagram.to_vec();
        let id = self.open_with(n, from, header, datagram.len(), |key| {
            key.open(header, &mut bytes).map(|chunks| !begins_with_probe(chunks))
        })?;
        self.chunks(n, from, (id, header.index), &bytes[HEADER_LEN..datagram.len() - TAG_LEN]);
        Ok(())
    }

    /// An envelope of two other hosts, or of one of them and this one, in the cover of a neighbour.
    fn open_cover(
        &mut self,
        n: usize,
        from: Remote,
        header: Header,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let (mut bytes, mut head) = (datagram.to_vec(), None);
        let id = self.open_with(n, from, header, datagram.len(), |key| {
            head = Some(*key.open_head(header, &mut bytes)?);
            Ok(true)
        })?;
        let relayed = Relayed::read_head(&head.ok_or(DropReason::TooShort)?)?;
        let Some((by, _)) = self.hosts[n].peers.get(&id).copied() else { return Ok(()) };
        uncover(bytes.first_chunk_mut::<RELAY_FRONT>().ok_or(DropReason::TooShort)?);
        self.pass_on(n, from, by, relayed, &bytes[RELAY_OVERHEAD..])
    }

    /// Opens something under an index of ours; whose it is.
    fn open_with(
        &mut self,
        n: usize,
        from: Remote,
        header: Header,
        len: usize,
        open: impl FnOnce(&OpenKey) -> Result<bool, DropReason>,
    ) -> Result<ConnectionId, DropReason> {
        let Some(opening) = self.hosts[n].opens.get(&header.index) else {
            self.session(n, Event::UnknownIndex(from, header.index));
            return Err(DropReason::UnknownIndex);
        };
        opening.replay.check(header.counter)?;
        let id = opening.connection;
        let shows = opening.key.as_ref().map_or(Err(DropReason::NotAuthentic), open).inspect_err(|_| {
            // Nobody lies here: the two ends have made different keys.
            self.broken.push(format!("host {n} cannot open what came under its index {}", header.index));
        })?;
        let shown = from.path().udp().filter(|_| shows);
        self.authentic(n, shown, header.index, header.counter, len)?;
        Ok(id)
    }

    fn chunks(&mut self, n: usize, from: Remote, (id, index): (ConnectionId, u32), bytes: &[u8]) {
        let Some((peer, _)) = self.hosts[n].peers.get(&id).copied() else { return };
        let mut chunks = Chunks::new();
        while let Some(chunk) = chunks.next_in(bytes) {
            let taken = chunk.and_then(|Chunk { kind, body }| {
                let body = &bytes[body];
                match kind {
                    ChunkKind::Frame { network: NetworkId(number), .. } => {
                        let sender = self.ids.iter().position(|id| *id == peer).unwrap_or(usize::MAX);
                        self.deliver(n, sender, (number - 1) as usize, body);
                    }
                    ChunkKind::Quic => self.enveloped(n, index, body),
                    ChunkKind::Probe | ChunkKind::Answer => {
                        self.session(n, Event::Probe(index, from.path(), body));
                    }
                    ChunkKind::Relayed => {
                        let carried = body.get(RELAY_LEN..).unwrap_or_default();
                        self.pass_on(n, from, peer, Relayed::read(body)?, carried)?;
                    }
                    ChunkKind::Fragment => {
                        let whole = self.hosts[n].fragments.take(self.now, (index, 0), body)?;
                        whole.into_iter().for_each(|whole| self.chunks(n, from, (id, index), &whole));
                    }
                    ChunkKind::Piece { .. } => return Err(DropReason::ChunkUnknown),
                }
                Ok(())
            });
            taken.unwrap_or_else(|reason| self.hosts[n].count(reason, 1));
        }
    }

    /// A datagram that the neighbour `by` relays: for this host, or to be passed on.
    fn pass_on(
        &mut self,
        n: usize,
        from: Remote,
        by: HostId,
        relayed: Relayed,
        carried: &[u8],
    ) -> Result<(), DropReason> {
        if matches!(from, Remote::Relayed { .. }) {
            return Err(DropReason::RelayNested);
        }
        let members: BTreeSet<HostId> = self.ids.iter().copied().collect();
        let host = &self.hosts[n];
        let table = RelayTable { me: self.ids[n], members, routes: host.mesh.ways().clone() };
        match table.judge(relayed, by, |hop| host.path(hop))? {
            Onward::Here => self.arrive_bytes(n, Remote::Relayed { by, host: relayed.source }, carried),
            Onward::To(next, onward) => self.relay_bytes(n, next, onward, carried),
        }
        Ok(())
    }

    /// A notice leaves.
    pub(crate) fn notice_bytes(&mut self, n: usize, to: Remote, index: u32) {
        let notice = Header { lane: 0, index, counter: 0 }.notice();
        self.datagram(n, to, Datagram::Bytes(Rc::from(&notice[..])));
    }
}
