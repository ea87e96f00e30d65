//! The lane's thread: both directions run to completion, then it sleeps until something comes.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use tokio::sync::mpsc;
use weft_router::chunk::{MAX_PROBE_LEN, probe_head, quic_head, relayed_head};
use weft_router::drop::DropReason;
use weft_router::envelope::OVERHEAD;
use weft_router::fragment;
use weft_router::relay::RelayLimits;
use weft_router::session::mtu::floor;

use super::carrier::Records;
use super::depart::{seal_alone, send_alone};
use super::desk::Desk;
use super::event::{Command, ControlChunk, LaneEvent};
use super::inbound::{Inbox, Surroundings};
use super::outbound::Outbox;
use super::port::Port;
use super::trains::{Trains, way_of};
use super::{Shared, Taps};
use crate::sys::WaitList;
use crate::tables::Tables;

/// Commands sealed before the lane looks at the taps again.
const COMMANDS: usize = 64;

/// The thread's own things.
pub(super) struct Lane {
    desk: Desk,
    inbox: Inbox,
    outbox: Outbox,
    trains: Trains,
    relay_limits: RelayLimits,
    /// Sorted by network.
    ports: Vec<Port>,
    tables: Arc<Tables>,
    taps: Arc<Taps>,
    started: Instant,
    uso_segments: u16,
    /// What the lane sleeps on, and how many broken taps it leaves out; made anew when the taps change.
    wait: Option<(WaitList, usize)>,
}

impl Lane {
    /// `records`: what TCP streams bring, for one of the lanes.
    pub(super) fn new(
        lane: u8,
        shared: Arc<Shared>,
        events: mpsc::Sender<LaneEvent>,
        records: Option<mpsc::Receiver<Records>>,
    ) -> Self {
        Self {
            desk: Desk::new(lane, shared, events),
            inbox: Inbox::new(records),
            outbox: Outbox::new(lane),
            trains: Trains::new(),
            relay_limits: RelayLimits::default(),
            ports: Vec::new(),
            tables: Arc::default(),
            taps: Arc::default(),
            started: Instant::now(),
            uso_segments: uso_segments(),
            wait: None,
        }
    }

    /// Until the last handle is dropped.
    pub(super) fn run(mut self) {
        while !self.desk.shared.stop.load(Ordering::Acquire) {
            let now = self.started.elapsed();
            if self.refresh() {
                self.outbox.expire(&self.desk, now);
                self.outbox.send_held(&self.desk, &self.tables, &mut self.ports, &mut self.trains, now);
            }
            let mut busy = self.obey();
            busy |= self.receive(now);
            for port in &mut self.ports {
                busy |= self.outbox.read(&self.desk, &self.tables, port, &mut self.trains, now);
            }
            self.trains.flush(&self.desk);
            if !busy {
                self.sleep();
            }
        }
    }

    fn receive(&mut self, now: Duration) -> bool {
        let (desk, tables, ports) = (&self.desk, &*self.tables, &mut self.ports[..]);
        let (trains, relay_limits) = (&mut self.trains, &mut self.relay_limits);
        self.inbox.receive(&mut Surroundings { desk, tables, ports, trains, relay_limits, now })
    }

    /// Takes over tables and taps if they were replaced; whether the tables were.
    fn refresh(&mut self) -> bool {
        let (tables, taps) = (self.desk.shared.tables.load(), self.desk.own().taps.load());
        let tables = (!Arc::ptr_eq(&tables, &self.tables)).then(|| Guard::into_inner(tables));
        let taps = (!Arc::ptr_eq(&taps, &self.taps)).then(|| Guard::into_inner(taps));
        if tables.is_none() && taps.is_none() {
            return false;
        }
        if let Some(taps) = taps {
            self.taps = taps;
            self.change_ports();
            self.wait = None;
        }
        let replaced = tables.is_some();
        if let Some(tables) = tables {
            self.tables = tables;
            self.inbox.forget();
        }
        for port in &mut self.ports {
            port.table = self.tables.networks.get(&port.network).cloned();
        }
        replaced
    }

    /// Ports follow the taps; one whose tap stays keeps its memory.
    fn change_ports(&mut self) {
        let mut before = std::mem::take(&mut self.ports);
        self.ports = self
            .taps
            .iter()
            .map(|(network, tap)| {
                let kept = before.iter().position(|p| p.network == *network && Arc::ptr_eq(&p.tap, tap));
                match kept {
                    Some(at) => before.swap_remove(at),
                    None => Port::new(*network, Arc::clone(tap), self.uso_segments),
                }
            })
            .collect();
    }

    /// Seals and sends what the control side asks for.
    fn obey(&mut self) -> bool {
        while let Some(host) = self.desk.own().unreached.pop() {
            self.outbox.give_up(&self.desk, host);
        }
        for done in 0..COMMANDS {
            let Some(command) = self.desk.own().commands.pop() else { return done > 0 };
            if let Err(reason) = self.send_control(&command) {
                self.desk.drop_on(command.epoch.drops(), reason, 1);
            }
        }
        true
    }

    fn send_control(&self, command: &Command) -> Result<(), DropReason> {
        let Command { epoch, chunk, aim } = command;
        let path = epoch.path();
        let way = aim.path.or(path.map(|path| path.way)).ok_or(DropReason::NoPath)?;
        let (to, wrap, most) = way_of(&self.desk, &self.tables, epoch.host(), way)?;
        let too_big = |size: u16, limit: Option<u16>| {
            self.desk.tell(LaneEvent::TooBig { host: epoch.host(), way, size, limit });
            Ok(())
        };
        if let Some(size) = aim.datagram.filter(|size| *size > most) {
            return too_big(size, Some(most));
        }
        let padded = aim.datagram.map_or(0, usize::from);
        let len = |body: &[u8]| u16::try_from(body.len()).map_err(|_| DropReason::TooBigForPath);
        let (head, body) = match chunk {
            ControlChunk::Quic(packet) => (quic_head(len(packet)?), packet),
            ControlChunk::Probe(body) | ControlChunk::Answer(body) if body.len() > MAX_PROBE_LEN => {
                return Err(DropReason::ProbeTooLong);
            }
            ControlChunk::Probe(body) => (probe_head(false, len(body)?), body),
            ControlChunk::Answer(body) => (probe_head(true, len(body)?), body),
            ControlChunk::Relayed(body) => (relayed_head(len(body)?), body),
        };
        let passes = path.filter(|path| path.way == way).map_or(floor(way), |path| path.datagram).min(most);
        let room = usize::from(passes).saturating_sub(OVERHEAD);
        if aim.datagram.is_some() || head.len() + body.len() <= room {
            let sealed = seal_alone(&self.desk, epoch, self.desk.lane(), [&head, body], padded)?;
            return match (send_alone(&self.desk, epoch, &to, wrap.as_ref(), sealed), aim.datagram) {
                (Err(DropReason::DatagramTooBig), Some(size)) => too_big(size, None),
                (sent, _) => sent,
            };
        }
        let chunk = [&head[..], body].concat();
        for (head, part) in fragment::cut(epoch.next_fragment(), chunk.len(), room)? {
            let sealed = seal_alone(&self.desk, epoch, self.desk.lane(), [&head, &chunk[part]], 0)?;
            send_alone(&self.desk, epoch, &to, wrap.as_ref(), sealed)?;
        }
        Ok(())
    }

    /// Until a tap, the socket or the control side has something, or frames have waited too long.
    fn sleep(&mut self) {
        let now = self.started.elapsed();
        let limit = self.outbox.expire(&self.desk, now).map(|due| due.saturating_sub(now));
        let broken = self.ports.iter().filter(|p| p.broken).count();
        let wait = match &mut self.wait {
            Some((wait, without)) if *without == broken => wait,
            stale => {
                let (wake, socket) = (self.desk.own().wake.as_fd(), self.desk.own().sockets.receive.as_fd());
                let taps = self.ports.iter().filter(|p| !p.broken).map(|p| p.tap.as_fd());
                &mut stale.insert((WaitList::new([wake, socket].into_iter().chain(taps)), broken)).0
            }
        };
        wait.wait(limit);
        if wait.is_ready(0) {
            let _ = rustix::io::read(&self.desk.own().wake, &mut [0; 8]);
        }
    }
}

/// How many datagrams a tap takes as one UDP superframe: `UDP_MAX_SEGMENTS`, raised in Linux 6.10.
fn uso_segments() -> u16 {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 10) { 128 } else { 64 }
}
