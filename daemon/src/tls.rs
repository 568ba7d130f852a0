//! The only door to `rustls`: configurations, handshakes, and what a peer proved in one.
//!
//! Both verifiers only establish that the peer holds the private half of an Ed25519 key; a client
//! also pins which key. Whether a key is let in is asked of [`crate::membership`] afterwards, on
//! every connection: there are no tickets, no resumption and no early data that could skip it.
//! Certificate dates, names and issuers are never looked at, so no clock can lock a device out.
//! See `docs/adr/0006-identity-membership-tls.md`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use mfpsync_proto::{ALPN_ENROLL, ALPN_SYNC};
use mfpsync_storage::model::PublicKey;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConnectionCommon, DigitallySignedStruct,
    DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::identity::Identity;

/// Label of the keying material that binds a pairing to its connection. **Source**: RFC 5705.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-mfpsync-pairing";

/// What precedes the 32 key bytes in an Ed25519 SubjectPublicKeyInfo, without its outer header as
/// `webpki` hands it out. **Source**: RFC 8410, section 4.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A server's side of an established connection.
pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;
/// A client's side of an established connection.
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// What a connection is for, as the peers agreed by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Sync between enrolled devices.
    Sync,
    /// Pairing.
    Enroll,
}

impl Purpose {
    fn of(alpn: Option<&[u8]>) -> Option<Self> {
        match alpn? {
            ALPN_SYNC => Some(Self::Sync),
            ALPN_ENROLL => Some(Self::Enroll),
            _ => None,
        }
    }

    fn alpn(self) -> Vec<u8> {
        match self {
            Self::Sync => ALPN_SYNC.to_vec(),
            Self::Enroll => ALPN_ENROLL.to_vec(),
        }
    }
}

/// What a finished handshake established.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// What the connection is for.
    pub purpose: Purpose,
    /// The key whose private half the peer has proven to hold.
    pub peer: PublicKey,
    /// Keying material only these two ends of this connection know.
    pub exporter: [u8; 32],
}

/// The configurations a server accepts connections with.
#[derive(Debug, Clone)]
pub struct ServerTls {
    sync: Arc<ServerConfig>,
    pairing: Arc<ServerConfig>,
}

impl ServerTls {
    /// Configurations that show this identity.
    ///
    /// # Errors
    /// The key is not usable, which a loaded identity excludes.
    pub fn new(identity: &Identity) -> Result<Self, Error> {
        Ok(Self {
            sync: server_config(identity, &[Purpose::Sync])?,
            pairing: server_config(identity, &[Purpose::Sync, Purpose::Enroll])?,
        })
    }

    /// Performs the handshake. While `pairing` is closed its ALPN name does not exist here.
    ///
    /// # Errors
    /// The peer failed the handshake, or agreed to no purpose.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn accept(&self, tcp: TcpStream, pairing: bool) -> io::Result<(ServerStream, Handshake)> {
        let config = if pairing { &self.pairing } else { &self.sync };
        let stream = TlsAcceptor::from(config.clone()).accept(tcp).await?;
        let handshake = established(stream.get_ref().1).ok_or_else(incomplete)?;
        Ok((stream, handshake))
    }
}

/// The configuration a client dials with.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    purpose: Purpose,
}

impl ClientTls {
    /// For sync with the one device that holds the private half of `expected`.
    ///
    /// # Errors
    /// The identity's key is not usable, which a loaded identity excludes.
    pub fn sync(identity: &Identity, expected: PublicKey) -> Result<Self, Error> {
        Self::sync_with_any(identity, vec![expected])
    }

    /// For sync with a device that holds the private half of one of these. Which one it is says the handshake,
    /// and whether that one is the server it says itself, with proof.
    ///
    /// # Errors
    /// As [`ClientTls::sync`].
    pub fn sync_with_any(identity: &Identity, expected: Vec<PublicKey>) -> Result<Self, Error> {
        Self::new(identity, Purpose::Sync, Some(expected))
    }

    /// For sync with a device nothing is known of: whatever it says, it has to prove.
    ///
    /// # Errors
    /// As [`ClientTls::sync`].
    pub fn sync_with_anybody(identity: &Identity) -> Result<Self, Error> {
        Self::new(identity, Purpose::Sync, None)
    }

    /// For pairing with a server whose key is not known yet; the pairing itself proves it.
    ///
    /// # Errors
    /// The identity's key is not usable, which a loaded identity excludes.
    pub fn enroll(identity: &Identity) -> Result<Self, Error> {
        Self::new(identity, Purpose::Enroll, None)
    }

    fn new(identity: &Identity, purpose: Purpose, expected: Option<Vec<PublicKey>>) -> Result<Self, Error> {
        let provider = provider();
        let keys = DeviceKeys { expected, provider: provider.clone() };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(keys))
            .with_client_cert_resolver(Arc::new(resolver(identity)?));
        config.alpn_protocols = vec![purpose.alpn()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Self { config: Arc::new(config), purpose })
    }

    /// Performs the handshake on a fresh TCP connection.
    ///
    /// # Errors
    /// What [`HandshakeError`] tells apart.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn connect(&self, tcp: TcpStream) -> Result<(ClientStream, Handshake), HandshakeError> {
        // Never sent, never compared; rustls wants one.
        let nobody = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let stream = TlsConnector::from(self.config.clone()).connect(nobody, tcp).await?;
        match established(stream.get_ref().1) {
            Some(handshake) if handshake.purpose == self.purpose => Ok((stream, handshake)),
            _ => Err(HandshakeError::NotOffered),
        }
    }
}

/// Why a client's handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The server holds another key than the expected one.
    #[error("a different device answers there")]
    WrongKey,
    /// The server does not offer what the connection is for; a closed pairing, mostly.
    #[error("not offered there")]
    NotOffered,
    /// The connection broke.
    #[error("connection broke: {0}")]
    Broken(#[source] io::Error),
    /// The peer speaks no TLS 1.3 as it should.
    #[error("tls: {0}")]
    Tls(#[source] io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
                Self::WrongKey
            }
            Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => Self::NotOffered,
            Some(_) => Self::Tls(error),
            None => Self::Broken(error),
        }
    }
}

fn server_config(identity: &Identity, purposes: &[Purpose]) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let keys = DeviceKeys { expected: None, provider: provider.clone() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(keys))
        .with_cert_resolver(Arc::new(resolver(identity)?));
    config.alpn_protocols = purposes.iter().map(|purpose| purpose.alpn()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn resolver(identity: &Identity) -> Result<SingleCertAndKey, Error> {
    // Borrowed, because this copy is wiped and one that rustls owned would not be.
    let pkcs8 = identity.pkcs8();
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))?;
    let certified = CertifiedKey::new(vec![identity.certificate().clone()], key);
    certified.keys_match()?;
    Ok(SingleCertAndKey::from(certified))
}

fn established<Side>(connection: &ConnectionCommon<Side>) -> Option<Handshake> {
    Some(Handshake {
        purpose: Purpose::of(connection.alpn_protocol())?,
        peer: public_key(connection.peer_certificates()?.first()?).ok()?,
        exporter: connection.export_keying_material([0; 32], EXPORTER_LABEL, None).ok()?,
    })
}

fn incomplete() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "peer agreed to no application protocol")
}

fn public_key(certificate: &CertificateDer<'_>) -> Result<PublicKey, Error> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let spki = parsed.subject_public_key_info();
    spki.strip_prefix(SPKI_PREFIX.as_slice())
        .and_then(PublicKey::from_slice)
        .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// Accepts a certificate for its key alone: any Ed25519 key, or one of those expected.
#[derive(Debug)]
struct DeviceKeys {
    expected: Option<Vec<PublicKey>>,
    provider: Arc<CryptoProvider>,
}

impl DeviceKeys {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let key = public_key(certificate)?;
        if self.expected.as_ref().is_some_and(|expected| !expected.contains(&key)) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }

    /// The proof that the peer holds the private half; everything rests on it.
    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }
}

fn tls12_is_not_spoken() -> Error {
    Error::General("tls 1.2 is not spoken".to_owned())
}

impl ClientCertVerifier for DeviceKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ServerCertVerifier for DeviceKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests;
