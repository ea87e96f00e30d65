//! One connection of quinn's, and the control streams on it, framed as `router/io` frames them.

use std::time::{Duration, Instant};

use quinn_proto::{Connection, ConnectionError, Dir, Event, StreamId, VarInt};
use weft_api::id::HostKey;
use weft_router::session::message::{LENGTH_LEN, MAX_HELLO_LEN, MAX_MESSAGE_LEN, MAX_PROOF_LEN, Message};
use weft_router::session::{ConnectionId, Why};
use weft_router_io::quic::endpoint::Place;
use weft_router_io::quic::frames::STREAM_CONTROL;
use weft_router_io::quic::tls;

/// What a connection has to tell.
pub(super) enum News {
    /// The handshake is over: the other end has proven this key.
    Proven(HostKey),
    /// The peer said this.
    Said(Message),
    /// The peer said what nobody may say.
    Garbled,
    /// All that it was told is with quinn.
    TakesMore,
    /// It is closed or broken.
    Ended(Option<Why>),
}

/// A connection.
pub(super) struct Line {
    pub connection: Connection,
    /// The session layer's name of it; an incoming one has none before its peer is proven.
    pub id: Option<ConnectionId>,
    pub ours: bool,
    /// Its handshake must be over by then.
    pub until: Option<Duration>,
    /// Its place among the handshakes of strangers.
    pub place: Option<Place>,
    /// When quinn wants to be told of the time.
    pub timer: Option<Instant>,
    /// quinn has nothing more to say on it.
    pub drained: bool,
    closed: bool,
    /// Closed here, and that has not been told yet.
    ends: bool,
    control: Option<StreamId>,
    /// What the peer says after its hello counts.
    greeted: bool,
    to_write: Vec<u8>,
    peers: Option<StreamId>,
    read: Vec<u8>,
    reads: Reads,
}

/// What comes next on the peer's control stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Kind,
    /// Or the hello at once.
    Proof,
    Hello,
    Records,
    Nothing,
}

impl Line {
    pub fn new(connection: Connection, id: Option<ConnectionId>, until: Duration) -> Self {
        Self {
            connection,
            id,
            ours: id.is_some(),
            until: Some(until),
            place: None,
            timer: None,
            drained: false,
            closed: false,
            ends: false,
            control: None,
            greeted: false,
            to_write: Vec::new(),
            peers: None,
            read: Vec::new(),
            reads: Reads::Kind,
        }
    }

    /// Whether nothing waits for quinn to take it.
    pub fn takes_more(&self) -> bool {
        self.to_write.is_empty() && !self.closed
    }

    /// Puts a message onto our control stream, which begins with a proof or the greeting.
    pub fn tell(&mut self, message: &Message) {
        self.greeted |= matches!(message, Message::Hello(_));
        if self.control.is_none() {
            self.control = self.connection.streams().open(Dir::Uni);
            self.to_write.push(STREAM_CONTROL);
        }
        if self.control.is_some() {
            self.to_write.extend(message.encode());
        }
    }

    /// Says why and ends.
    pub fn close(&mut self, now: Instant, why: Why) {
        self.connection.close(now, VarInt::from_u32(why as u32), Vec::new().into());
        self.ends = !std::mem::replace(&mut self.closed, true);
    }

    /// Whether it has been closed here since this was asked last.
    pub fn end(&mut self) -> bool {
        std::mem::take(&mut self.ends)
    }

    /// Hands quinn what it takes.
    pub fn write(&mut self, news: &mut Vec<News>) {
        let Some(stream) = self.control.filter(|_| !self.to_write.is_empty()) else { return };
        match self.connection.send_stream(stream).write(&self.to_write) {
            Ok(written) => drop(self.to_write.drain(..written)),
            Err(quinn_proto::WriteError::Blocked) => {}
            Err(_) => self.to_write.clear(),
        }
        if self.takes_more() {
            news.push(News::TakesMore);
        }
    }

    /// Takes note of what quinn tells.
    pub fn hear(&mut self, event: Event, news: &mut Vec<News>) {
        match event {
            Event::Connected => {
                self.until = None;
                self.place = None;
                let identity = self.connection.crypto_session().peer_identity();
                match identity.and_then(tls::proven_key) {
                    Some(key) => news.push(News::Proven(key)),
                    None => news.push(News::Garbled),
                }
            }
            Event::ConnectionLost { reason } => {
                self.closed = true;
                let why = match reason {
                    ConnectionError::ApplicationClosed(close) => {
                        Why::from_code(close.error_code.into_inner())
                    }
                    _ => None,
                };
                news.push(News::Ended(why));
            }
            _ => {}
        }
    }

    /// Reads the peer's control stream; what comes after its hello when it is greeted.
    pub fn read(&mut self, news: &mut Vec<News>) {
        if self.closed || self.reads == Reads::Nothing {
            return;
        }
        self.peers = self.peers.or_else(|| self.connection.streams().accept(Dir::Uni));
        let Some(stream) = self.peers else { return };
        let mut stream = self.connection.recv_stream(stream);
        let Ok(mut chunks) = stream.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.read.extend_from_slice(&chunk.bytes);
        }
        let _ = chunks.finalize();
        let mut at = 0;
        while let Some(next) = self.next(&mut at) {
            if matches!(next, News::Garbled) {
                self.reads = Reads::Nothing;
            }
            news.push(next);
        }
        self.read.drain(..at);
    }

    /// The next message that is there whole, from `at` on.
    fn next(&mut self, at: &mut usize) -> Option<News> {
        if self.reads == Reads::Kind {
            let kind = *self.read.get(*at)?;
            if kind != STREAM_CONTROL {
                return Some(News::Garbled);
            }
            (self.reads, *at) = (Reads::Proof, *at + 1);
        }
        let most = match self.reads {
            Reads::Proof => MAX_PROOF_LEN,
            Reads::Hello => MAX_HELLO_LEN,
            Reads::Records if self.greeted => MAX_MESSAGE_LEN,
            Reads::Records | Reads::Kind | Reads::Nothing => return None,
        };
        let length: [u8; LENGTH_LEN] = self.read.get(*at..*at + LENGTH_LEN)?.try_into().ok()?;
        let Ok(length) = Message::length(length, most) else { return Some(News::Garbled) };
        let start = *at + LENGTH_LEN;
        let message = Message::decode(self.read.get(start..start + length)?);
        *at = start + length;
        let said = match (message, self.reads) {
            (Ok(message @ Message::Proof(_)), Reads::Proof) => {
                self.reads = Reads::Hello;
                return Some(News::Said(message));
            }
            (Ok(message @ Message::Hello(_)), Reads::Proof | Reads::Hello) => News::Said(message),
            (Ok(message), Reads::Records) if !matches!(message, Message::Hello(_) | Message::Proof(_)) => {
                News::Said(message)
            }
            _ => News::Garbled,
        };
        self.reads = Reads::Records;
        Some(said)
    }
}
