//! The device's own identity: its id, its key pair, and the certificate that carries the key into
//! TLS handshakes.
//!
//! The certificate states nothing that is believed: what a key may do is written in the membership
//! table. See `docs/adr/0006-identity-membership-tls.md`.

use mfpsync_storage::codec::{Decoder, Encoder};
use mfpsync_storage::model::{DeviceId, PublicKey, SIGNATURE_BYTES};
use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};
use ring::rand::SecureRandom;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keystore::KeyStore;
use crate::signing::{KeyError, KeyPair};

/// Name of the entry in the key store.
const ENTRY: &str = "device";
const MAGIC: [u8; 4] = *b"MFPD";
const VERSION: u8 = 1;

/// PKCS #8 wrapping of an Ed25519 seed. **Source**: RFC 8410, section 7.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Why the device has no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The key pair.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate over it.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// A device id, made together with its key pair, and the certificate that shows the key.
#[derive(Debug)]
pub struct Identity {
    device: DeviceId,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Identity {
    /// The stored identity; a new one, stored before it is used, at the first start.
    ///
    /// # Errors
    /// The store fails or holds something else. A damaged identity is never replaced silently.
    pub fn load_or_create(store: &dyn KeyStore, random: &dyn SecureRandom) -> Result<Self, IdentityError> {
        if let Some(bytes) = store.load(ENTRY).map_err(KeyError::from)? {
            let (device, key) = parse(&bytes)?;
            return Self::assemble(device, key);
        }
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| KeyError::Random)?;
        let (device, key) = (DeviceId(id), KeyPair::generate(random)?);
        store.store(ENTRY, &encode(device, &key)).map_err(KeyError::from)?;
        Self::assemble(device, key)
    }

    fn assemble(device: DeviceId, key: KeyPair) -> Result<Self, IdentityError> {
        let certificate = self_signed(device, &key)?;
        Ok(Self { device, key, certificate })
    }

    /// The device's id.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The key that peers know the device by.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    /// Ed25519 over `message` with the device's key.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.key.sign(message)
    }

    /// The self-signed certificate; the same bytes at every start.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([PKCS8_PREFIX.as_slice(), self.key.seed()].concat())
    }
}

fn encode(device: DeviceId, key: &KeyPair) -> Zeroizing<Vec<u8>> {
    let mut to = Encoder::record(MAGIC, VERSION);
    to.fixed(&device.0).fixed(key.seed());
    Zeroizing::new(to.finish())
}

fn parse(bytes: &[u8]) -> Result<(DeviceId, KeyPair), KeyError> {
    let mut from = Decoder::record(bytes, MAGIC, VERSION, "device key").map_err(|_| KeyError::Damaged)?;
    let device = DeviceId(from.array().map_err(|_| KeyError::Damaged)?);
    let seed = Zeroizing::new(from.array().map_err(|_| KeyError::Damaged)?);
    from.finish().map_err(|_| KeyError::Damaged)?;
    Ok((device, KeyPair::from_seed(seed)?))
}

fn self_signed(device: DeviceId, key: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, device.to_string());
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = subject;
    parameters.subject_alt_names = vec![SanType::URI(format!("urn:mfpsync:device:{device}").try_into()?)];
    Ok(parameters.self_signed(&CertificateKey(key))?.into())
}

struct CertificateKey<'a>(&'a KeyPair);

impl rcgen::PublicKeyData for CertificateKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for CertificateKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.0.sign(message).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::keystore::FileKeyStore;

    #[test]
    fn the_second_start_finds_the_same_identity() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileKeyStore::open(directory.path().join("keys")).unwrap();
        let first = Identity::load_or_create(&store, &SystemRandom::new()).unwrap();
        let second = Identity::load_or_create(&store, &SystemRandom::new()).unwrap();
        assert_eq!(first.device(), second.device());
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(first.certificate(), second.certificate());
        let san = format!("urn:mfpsync:device:{}", first.device());
        assert!(first.certificate().windows(san.len()).any(|part| part == san.as_bytes()));
    }

    #[test]
    fn a_damaged_entry_is_reported_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileKeyStore::open(directory.path().join("keys")).unwrap();
        store.store(ENTRY, b"MFPD\x01short").unwrap();
        assert!(matches!(
            Identity::load_or_create(&store, &SystemRandom::new()),
            Err(IdentityError::Key(KeyError::Damaged))
        ));
        assert_eq!(store.load(ENTRY).unwrap().unwrap().as_slice(), b"MFPD\x01short");
    }
}
