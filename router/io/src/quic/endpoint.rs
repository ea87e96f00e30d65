//! quinn's settings, the same on both ends, and how many strangers may be in a handshake at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use thiserror::Error;
use weft_api::id::HostId;
use weft_api::sign::SigningKey;
use weft_router::drop::DropReason;
use weft_router::session::{Remote, StreamId};

use super::socket::VirtualSocket;
use super::tls;

/// Incoming handshakes that may be unfinished at a time; further ones are ignored (`HandshakeLimit`).
const MAX_HANDSHAKES: usize = 64;
/// With more than this a stranger must prove its address first (Retry).
const RETRY_ABOVE: usize = 16;
/// Of one address (IPv6: /64), stream or relayed member, and of one neighbourhood (IPv4 /24, IPv6 /48; all streams; all of one
/// relay); further ones are ignored (`HandshakePrefixLimit`).
const MAX_OF_ADDRESS: usize = 8;
const MAX_OF_PREFIX: usize = 40;
/// Bytes that wait for one handshake that is not accepted yet.
const INCOMING_BUFFER: u64 = 16 << 10;
/// An incoming handshake must be finished in this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams of one peer that may be open: its control stream and one to spare; API streams.
const MAX_UNI_STREAMS: u32 = 2;
const MAX_API_STREAMS: u32 = 64;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Below quinn's 333 ms, so that a lost first packet costs a third of a second and not a whole one.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// TLS or quinn refused its settings.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A suite is missing.
    #[error("QUIC: {0}")]
    Suite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The endpoint.
    #[error("endpoint: {0}")]
    Endpoint(#[from] std::io::Error),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// An endpoint over the virtual socket, which listens too.
pub(crate) fn listen(key: &SigningKey, socket: Arc<VirtualSocket>) -> Result<Endpoint, SettingsError> {
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(Endpoint::new_with_abstract_socket(endpoint_config()?, Some(server(key)?), socket, runtime)?)
}

/// How to listen.
///
/// # Errors
/// TLS or quinn refuses the settings.
pub fn server(key: &SigningKey) -> Result<ServerConfig, SettingsError> {
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls::server(key)?)?));
    server
        .transport_config(transport())
        .migration(false)
        .max_incoming(MAX_HANDSHAKES)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER * MAX_HANDSHAKES as u64);
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    server.validation_token_config(tokens);
    Ok(server)
}

/// An endpoint on a socket of its own that only dials.
pub(crate) fn dial_only(socket: std::net::UdpSocket) -> Result<Endpoint, SettingsError> {
    Ok(Endpoint::new(endpoint_config()?, None, socket, Arc::new(quinn::TokioRuntime))?)
}

/// An endpoint over a socket that is none of UDP, which only dials.
pub(crate) fn dial_over(socket: Arc<dyn quinn::AsyncUdpSocket>) -> Result<Endpoint, SettingsError> {
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(Endpoint::new_with_abstract_socket(endpoint_config()?, None, socket, runtime)?)
}

/// How to dial.
///
/// # Errors
/// TLS or quinn refuses the settings.
pub fn client(key: &SigningKey, alpn: &[u8]) -> Result<ClientConfig, SettingsError> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls::client(key, alpn)?)?));
    config.transport_config(transport());
    Ok(config)
}

/// What is the same for whoever listens or dials.
///
/// # Errors
/// The system gives no random bytes.
pub fn endpoint_config() -> Result<EndpointConfig, SettingsError> {
    let mut reset_key = [0; 64];
    aws_lc_rs::rand::fill(&mut reset_key).map_err(|_| SettingsError::Random)?;
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset_key)));
    // quinn's default connection ids are CID_LEN long and keyed: those of an earlier process are not ours, so no stateless reset
    // answers them.
    config.grease_quic_bit(false);
    Ok(config)
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(MAX_UNI_STREAMS.into())
        .max_concurrent_bidi_streams(MAX_API_STREAMS.into())
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .max_idle_timeout(None) // liveness is the session layer's
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false)
        .initial_rtt(INITIAL_RTT);
    Arc::new(transport)
}

/// Who is in a handshake with us and has not proven anything yet.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<HashMap<Source, usize>>);

/// Where handshakes come from, as far as they are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Source {
    Ip(IpAddr),
    Stream(StreamId),
    Relayed { by: HostId, host: HostId },
}

/// What becomes of an incoming handshake.
#[derive(Debug)]
pub enum Verdict {
    /// Go on; the place is free again when this is dropped.
    Accept(Place),
    /// Prove the address first.
    Retry,
    /// No answer.
    Ignore(DropReason),
}

/// One unfinished handshake.
#[derive(Debug)]
pub struct Place {
    strangers: Arc<Strangers>,
    source: Source,
}

impl Strangers {
    /// Judges an incoming handshake.
    pub fn judge(self: &Arc<Self>, from: Remote, proven: bool) -> Verdict {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = Source::of(from);
        let all: usize = places.values().sum();
        let nearby: usize = places.iter().filter(|(s, _)| s.is_near(source)).map(|(_, n)| n).sum();
        if all >= MAX_HANDSHAKES {
            Verdict::Ignore(DropReason::HandshakeLimit)
        } else if places.get(&source).is_some_and(|n| *n >= MAX_OF_ADDRESS) || nearby >= MAX_OF_PREFIX {
            Verdict::Ignore(DropReason::HandshakePrefixLimit)
        } else if all >= RETRY_ABOVE && !proven {
            Verdict::Retry
        } else {
            *places.entry(source).or_default() += 1;
            Verdict::Accept(Place { strangers: Arc::clone(self), source })
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = places.get_mut(&self.source) {
            *n -= 1;
            if *n == 0 {
                places.remove(&self.source);
            }
        }
    }
}

impl Source {
    fn of(remote: Remote) -> Self {
        match remote {
            Remote::Udp(address) => Self::Ip(prefix(address.ip(), 32, 64)),
            Remote::Tcp(stream) => Self::Stream(stream),
            Remote::Relayed { by, host } => Self::Relayed { by, host },
        }
    }

    /// Of one neighbourhood, one neighbour, or a stream too.
    fn is_near(self, other: Self) -> bool {
        match (self, other) {
            (Self::Ip(a), Self::Ip(b)) => prefix(a, 24, 48) == prefix(b, 24, 48),
            (Self::Stream(_), Self::Stream(_)) => true,
            (Self::Relayed { by: a, .. }, Self::Relayed { by: b, .. }) => a == b,
            _ => false,
        }
    }
}

fn prefix(ip: IpAddr, v4: u32, v6: u32) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & u32::MAX << (32 - v4)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & u128::MAX << (128 - v6)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(verdict: Verdict) -> Option<Place> {
        match verdict {
            Verdict::Accept(place) => Some(place),
            _ => None,
        }
    }

    #[test]
    fn strangers_are_few_and_prove_their_address_when_there_are_many() {
        let strangers = Arc::new(Strangers::default());
        let from = |net: u8, host: u8| Remote::Udp(([192, 0, net, host], 1000).into());
        let eight: Vec<_> = (0..8).filter_map(|_| accepted(strangers.judge(from(0, 1), false))).collect();
        assert_eq!(eight.len(), 8);
        let ninth = strangers.judge(from(0, 1), false);
        assert!(matches!(ninth, Verdict::Ignore(DropReason::HandshakePrefixLimit)));
        let _more: Vec<_> = (2..10).filter_map(|n| accepted(strangers.judge(from(0, n), false))).collect();
        assert!(matches!(strangers.judge(from(0, 99), false), Verdict::Retry));
        let mut held: Vec<_> =
            (10..100).filter_map(|n| accepted(strangers.judge(from(0, n), true))).collect();
        assert_eq!(held.len(), MAX_OF_PREFIX - 16);
        held.extend((0..100).filter_map(|n| accepted(strangers.judge(from(n, 200), true))));
        let full = strangers.judge(from(200, 1), true);
        assert!(matches!(full, Verdict::Ignore(DropReason::HandshakeLimit)));
        drop((eight, held));
        assert!(accepted(strangers.judge(from(0, 1), true)).is_some());
        assert!(strangers.0.lock().unwrap().len() <= 9, "nothing stays behind");
    }
}
