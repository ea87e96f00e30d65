//! A session as any member has one: handshake, greeting, keys. What is said on it afterwards is the attacker's.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime};
use tokio::time::{sleep, timeout};
use weft_api::id::{BootId, HostKey};
use weft_api::roster::MeshRecord;
use weft_api::sign::SigningKey;
use weft_router::seal::{Chain, Direction};
use weft_router::session::message::{LENGTH_LEN, MAX_PROOF_LEN, Message};
use weft_router::session::{Hello, Why};

use crate::Failure;
use crate::tls;
use crate::wire::{Keys, Wire};

const CONTROL: u8 = 1;
/// The index under which the victim shall seal for us.
const INDEX: u32 = 0x0bad_0bad;
const PATIENCE: Duration = Duration::from_secs(3);

/// Who we are and whom we attack.
pub struct Attack {
    key: SigningKey,
    mesh: MeshRecord,
    victim: SocketAddr,
}

impl Attack {
    /// By the state directory of a host whose `weft up` has ended.
    pub fn new(state: &Path, victim: SocketAddr) -> Result<Self, Failure> {
        let seed: HostKey = std::fs::read_to_string(state.join("host.key"))?.trim().parse()?;
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(state.join("mesh.json"))?)?;
        let mesh = serde_json::from_value(json["mesh"].clone())?;
        Ok(Self { key: SigningKey::from_seed(seed.0), mesh, victim })
    }
}

/// A connection with the victim, and its control stream.
pub struct Session {
    pub wire: Arc<Wire>,
    pub connection: Connection,
    pub control: SendStream,
    _endpoint: Endpoint,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.wire.close();
    }
}

impl Session {
    /// A handshake, and these first bytes on the control stream.
    pub async fn begin(attack: &Attack, first: &[u8]) -> Result<Self, Failure> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (wire, victim) = Wire::open(attack.victim, socket.local_addr()?)?;
        let mut config = EndpointConfig::default();
        config.grease_quic_bit(false);
        let endpoint = Endpoint::new(config, None, socket, Arc::new(TokioRuntime))?;
        let connecting = endpoint.connect_with(tls::client(&attack.key)?, victim, "weft")?;
        let connection = timeout(PATIENCE, connecting).await??;
        let mut control = connection.open_uni().await?;
        control.write_all(first).await?;
        Ok(Self { wire, connection, control, _endpoint: endpoint })
    }

    /// A whole session: the victim takes our envelopes when this returns.
    pub async fn whole(attack: &Attack) -> Result<Self, Failure> {
        let mut boot = BootId([0; 16]);
        aws_lc_rs::rand::fill(&mut boot.0).map_err(|_| "no random bytes")?;
        let hello = Hello { boot, index: INDEX, cipher: attack.mesh.cipher, replaces: false, seen: None };
        let first = [&[CONTROL][..], &Message::Hello(hello).encode()].concat();
        let session = Self::begin(attack, &first).await?;
        let mut stream = timeout(PATIENCE, session.connection.accept_uni()).await??;
        let theirs = timeout(PATIENCE, hello_of(&mut stream)).await??;
        session.wire.set_keys(session.keys(attack, theirs.index)?);
        for _ in 0..100 {
            if session.wire.heard() {
                // Whatever the victim says further is read, so that nothing of it waits.
                tokio::spawn(async move {
                    while stream.read_chunk(65_536, true).await.is_ok_and(|c| c.is_some()) {}
                });
                return Ok(session);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err("the victim seals nothing for us".into())
    }

    /// How the victim has ended the connection, if it does so soon.
    pub async fn end(&self) -> String {
        match timeout(PATIENCE, self.connection.closed()).await {
            Ok(quinn::ConnectionError::ApplicationClosed(close)) => {
                format!("{:?}", Why::from_code(close.error_code.into_inner()))
            }
            Ok(other) => other.to_string(),
            Err(_) => "not closed".into(),
        }
    }

    fn keys(&self, attack: &Attack, theirs: u32) -> Result<Keys, Failure> {
        let victim = tls::peer(&self.connection).ok_or("the victim has no key")?.id();
        let me = HostKey(attack.key.public()).id();
        let context = [&attack.mesh.mesh.0[..], &me.0, &victim.0].concat();
        let mut secret = [0; 32];
        self.connection
            .export_keying_material(&mut secret, b"weft data v1", &context)
            .map_err(|_| "no exporter")?;
        let (chain, cipher) = (Chain::first(&secret), attack.mesh.cipher);
        let seal = chain.seal_key(cipher, Direction::FromDialler);
        Ok(Keys::new(seal, chain.open_key(cipher, Direction::FromListener), theirs))
    }
}

async fn hello_of(stream: &mut RecvStream) -> Result<Hello, Failure> {
    stream.read_exact(&mut [0]).await?;
    loop {
        let mut length = [0; LENGTH_LEN];
        stream.read_exact(&mut length).await?;
        let length = Message::length(length, MAX_PROOF_LEN).map_err(|r| r.meaning())?;
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        match Message::decode(&bytes).map_err(|r| r.meaning())? {
            Message::Proof(_) => {}
            Message::Hello(hello) => return Ok(hello),
            _ => return Err("the victim does not greet".into()),
        }
    }
}
