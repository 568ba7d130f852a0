use proptest::prelude::*;
use ring::rand::SystemRandom;

use super::*;
use crate::keystore::FileKeyStore;

fn identity() -> Identity {
    let directory = tempfile::tempdir().unwrap();
    let store = FileKeyStore::open(directory.path().join("keys")).unwrap();
    Identity::load_or_create(&store, &SystemRandom::new()).unwrap()
}

#[test]
fn the_key_in_our_own_certificate_is_found() {
    let identity = identity();
    assert_eq!(public_key(identity.certificate()).unwrap(), identity.public_key());
    assert!(ServerTls::new(&identity).is_ok());
}

#[test]
fn a_certificate_over_another_kind_of_key_is_refused() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
    assert!(public_key(certificate.der()).is_err());
}

/// Shows the certificate of `shown` but holds the key of `held`.
fn borrowed(shown: &Identity, held: &Identity) -> Arc<SingleCertAndKey> {
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(held.pkcs8().as_slice())).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![shown.certificate().clone()], key)))
}

async fn shake(server: &ServerTls, client: &ClientTls) -> (io::Result<()>, Result<(), HandshakeError>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let accept = async { server.accept(listener.accept().await.unwrap().0, false).await.map(drop) };
    tokio::join!(accept, async { client.connect(tcp).await.map(drop) })
}

#[tokio::test]
async fn a_certificate_without_its_private_key_is_worth_nothing() {
    let (server, client, thief) = (identity(), identity(), identity());
    let mut tls = ClientTls::sync(&thief, server.public_key()).unwrap();
    let honest = ServerTls::new(&server).unwrap();
    assert!(shake(&honest, &tls).await.0.is_ok());
    let mut config = (*tls.config).clone();
    config.client_auth_cert_resolver = borrowed(&client, &thief);
    tls.config = Arc::new(config);
    let (accepted, _) = shake(&honest, &tls).await;
    assert!(accepted.unwrap_err().to_string().contains("BadSignature"));

    let mut config = (*honest.sync).clone();
    config.cert_resolver = borrowed(&server, &thief);
    let stolen = ServerTls { sync: Arc::new(config), ..honest };
    let tls = ClientTls::sync(&client, server.public_key()).unwrap();
    let (_, connected) = shake(&stolen, &tls).await;
    assert!(matches!(connected, Err(HandshakeError::Tls(_))), "{connected:?}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let (server, client) = (identity(), identity());
    let mut tls = ClientTls::sync(&client, server.public_key()).unwrap();
    let mut config = (*tls.config).clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    tls.config = Arc::new(config);
    let (accepted, _) = shake(&ServerTls::new(&server).unwrap(), &tls).await;
    assert!(accepted.is_err());
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn nothing_can_be_resumed_and_no_name_is_sent() {
    let identity = identity();
    let server = ServerTls::new(&identity).unwrap();
    for config in [&server.sync, &server.pairing] {
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
    }
    let client = ClientTls::sync(&identity, identity.public_key()).unwrap();
    assert!(!client.config.enable_sni && !client.config.enable_early_data);
}

proptest! {
    #[test]
    fn garbage_for_a_certificate_is_refused_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        prop_assert!(public_key(&CertificateDer::from(bytes)).is_err());
    }
}
