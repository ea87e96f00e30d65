//! TLS 1.3 with raw Ed25519 keys on both ends (RFC 7250): no certificates, no tickets, no resumption, no early data. The
//! handshake proves a key; whether the key is a member's is asked of the roster afterwards.

use std::any::Any;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use weft_api::id::HostKey;
use weft_api::sign::SigningKey;
use zeroize::Zeroizing;

/// Between members.
pub const ALPN_MEMBER: &[u8] = b"weft/1";
/// Of a host that wants to be one.
pub const ALPN_JOIN: &[u8] = b"weft-join/1";
/// Every host is asked for by this name; the key says who it is.
pub const SERVER_NAME: &str = "weft";

/// SubjectPublicKeyInfo of an Ed25519 key, up to the key (RFC 8410 4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// PKCS#8 of an Ed25519 seed, up to the seed (RFC 8410 7).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The end that is dialled: takes members and hosts that want to join.
///
/// # Errors
/// TLS refuses the key or the version.
pub fn server(key: &SigningKey) -> Result<ServerConfig, Error> {
    let provider = provider();
    let verifier = Arc::new(AnyEd25519 { algorithms: provider.signature_verification_algorithms });
    let identity = identity(key, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity)));
    config.alpn_protocols = vec![ALPN_MEMBER.to_vec(), ALPN_JOIN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The end that dials, for one of the two purposes.
///
/// # Errors
/// TLS refuses the key or the version.
pub fn client(key: &SigningKey, alpn: &[u8]) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier = Arc::new(AnyEd25519 { algorithms: provider.signature_verification_algorithms });
    let identity = identity(key, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// The key that the other end of a connection has proven.
pub(crate) fn peer_key(connection: &quinn::Connection) -> Option<HostKey> {
    proven_key(connection.peer_identity()?)
}

/// The key in what a crypto session says of the other end's identity.
#[must_use]
pub fn proven_key(identity: Box<dyn Any>) -> Option<HostKey> {
    host_key(identity.downcast::<Vec<CertificateDer<'static>>>().ok()?.first()?)
}

/// The ALPN that both ends agreed on.
pub(crate) fn alpn(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?.protocol
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn identity(key: &SigningKey, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let pkcs8 = Zeroizing::new([&PKCS8_HEAD[..], key.seed()].concat());
    let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
    let signer = provider.key_provider.load_private_key(pkcs8.clone_key().into())?;
    let spki = CertificateDer::from([&SPKI_HEAD[..], &key.public()].concat());
    Ok(Arc::new(CertifiedKey::new(vec![spki], signer)))
}

fn host_key(spki: &[u8]) -> Option<HostKey> {
    let key = spki.strip_prefix(&SPKI_HEAD)?;
    key.try_into().ok().map(HostKey)
}

/// Takes any host that proves an Ed25519 key.
#[derive(Debug)]
struct AnyEd25519 {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyEd25519 {
    fn check(&self, end_entity: &[u8], intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        if host_key(end_entity).is_some() && intermediates.is_empty() {
            Ok(())
        } else {
            Err(CertificateError::BadEncoding.into())
        }
    }

    fn verify(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for AnyEd25519 {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, spki, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyEd25519 {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, spki, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
