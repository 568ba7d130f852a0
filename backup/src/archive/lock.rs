//! Who can open an archive, and with what. The one place that knows `age`.
//!
//! **Source**: age v1 (<https://age-encryption.org/v1>), with scrypt or X25519 recipients.

use std::io::{BufRead, Read};
use std::iter;
use std::str::FromStr;

use age::secrecy::{ExposeSecret, SecretString};
use age::{DecryptError, Decryptor, EncryptError, Encryptor, scrypt, x25519};
use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use thiserror::Error;
use zeroize::Zeroizing;

/// Fewest characters of a passphrase: as of a recovery kit's.
pub const PASSPHRASE_CHARS: usize = 12;
/// Binary logarithm of scrypt's cost: about a second and 64 MiB on the processors of these devices.
const WORK: u8 = 16;
/// The hardest that is opened: a forged archive must not exhaust a device's memory.
const MOST_WORK: u8 = 18;
/// Recipients of one archive.
const RECIPIENTS: usize = 20;

/// Why something is no lock or key, or does not open an archive.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The passphrase has fewer than [`PASSPHRASE_CHARS`] characters.
    #[error("passphrase shorter than {PASSPHRASE_CHARS} characters")]
    ShortPassphrase,
    /// Not a text of the form `age1...`.
    #[error("not a recipient of the form age1...")]
    Recipient,
    /// None, or too many.
    #[error("an archive has 1 to {RECIPIENTS} recipients")]
    Recipients,
    /// Not a text of the form `AGE-SECRET-KEY-1...`.
    #[error("not an identity of the form AGE-SECRET-KEY-1...")]
    Identity,
    /// It was sealed with another passphrase, or for other recipients.
    #[error("wrong passphrase or identity")]
    Wrong,
    /// Opening it would take more memory than is allowed.
    #[error("sealed with a work factor over {MOST_WORK}")]
    ExcessiveWork,
    /// Not sealed as archives are.
    #[error("not an archive")]
    NotAnArchive,
    /// The seal could not be made.
    #[error("seal archive")]
    Seal(#[source] EncryptError),
}

/// Who shall be able to open an archive. Shows nothing of a passphrase.
pub struct Lock(Kind);

enum Kind {
    /// Whoever knows it.
    Passphrase(SecretString),
    /// Whoever has the identity of one of them; whoever makes the archive need not.
    Recipients(Vec<x25519::Recipient>),
}

/// What opens an archive. Shows nothing of itself.
#[derive(Clone)]
pub struct Key(Opener);

#[derive(Clone)]
enum Opener {
    Passphrase(SecretString),
    Identity(x25519::Identity),
}

impl Lock {
    /// For whoever knows the passphrase.
    ///
    /// # Errors
    /// It is short.
    pub fn passphrase(passphrase: &str) -> Result<Self, KeyError> {
        Ok(Self(Kind::Passphrase(checked(passphrase)?)))
    }

    /// For whoever has the identity of one of these recipients, `age1...`.
    ///
    /// # Errors
    /// One is no recipient; none, or too many.
    pub fn recipients<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        let recipients = texts.into_iter().map(|text| text.trim().parse().map_err(|_| KeyError::Recipient));
        let recipients = recipients.collect::<Result<Vec<_>, _>>()?;
        if recipients.is_empty() || recipients.len() > RECIPIENTS {
            return Err(KeyError::Recipients);
        }
        Ok(Self(Kind::Recipients(recipients)))
    }

    /// What seals an archive, and what opens it for its proof: the passphrase, or the identity of one more
    /// recipient that is made up for this archive.
    pub(crate) fn encryptor(&self) -> Result<(Encryptor, Key), KeyError> {
        match &self.0 {
            Kind::Passphrase(passphrase) => {
                let mut recipient = scrypt::Recipient::new(passphrase.clone());
                recipient.set_work_factor(WORK);
                let encryptor = Encryptor::with_recipients(iter::once(&recipient as _));
                let key = Key(Opener::Passphrase(passphrase.clone()));
                Ok((encryptor.map_err(KeyError::Seal)?, key))
            }
            Kind::Recipients(recipients) => {
                let own = x25519::Identity::generate();
                let of_proof = own.to_public();
                let all = recipients.iter().chain([&of_proof]).map(|recipient| recipient as _);
                let encryptor = Encryptor::with_recipients(all);
                Ok((encryptor.map_err(KeyError::Seal)?, Key(Opener::Identity(own))))
            }
        }
    }
}

/// An identity, and the recipient of archives that it opens, as texts. It is kept nowhere here.
#[must_use]
pub fn new_identity() -> (Zeroizing<String>, String) {
    let identity = x25519::Identity::generate();
    (Zeroizing::new(identity.to_string().expose_secret().to_owned()), identity.to_public().to_string())
}

impl Key {
    /// A passphrase.
    ///
    /// # Errors
    /// It is short.
    pub fn passphrase(passphrase: &str) -> Result<Self, KeyError> {
        Ok(Self(Opener::Passphrase(checked(passphrase)?)))
    }

    /// An identity, `AGE-SECRET-KEY-1...`.
    ///
    /// # Errors
    /// It is none.
    pub fn identity(text: &str) -> Result<Self, KeyError> {
        let identity = x25519::Identity::from_str(text.trim()).map_err(|_| KeyError::Identity)?;
        Ok(Self(Opener::Identity(identity)))
    }

    /// Opens an archive: what was compressed, to be read to its end, which alone proves that it is whole.
    ///
    /// # Errors
    /// It is the wrong key, or no archive.
    pub(crate) fn open<R: BufRead>(&self, archive: R) -> Result<impl Read + use<R>, KeyError> {
        let decryptor = Decryptor::new_buffered(archive).map_err(not_opened)?;
        match &self.0 {
            Opener::Passphrase(passphrase) => {
                let mut identity = scrypt::Identity::new(passphrase.clone());
                identity.set_max_work_factor(MOST_WORK);
                decryptor.decrypt(iter::once(&identity as _)).map_err(not_opened)
            }
            Opener::Identity(identity) => decryptor.decrypt(iter::once(identity as _)).map_err(not_opened),
        }
    }

    pub(crate) fn encode(&self, to: &mut Encoder) {
        match &self.0 {
            Opener::Passphrase(passphrase) => to.fixed(&[0]).text(passphrase.expose_secret()),
            Opener::Identity(identity) => to.fixed(&[1]).text(identity.to_string().expose_secret()),
        };
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (identity, text) = (from.flag()?, from.text()?);
        let key = if identity { Self::identity(text) } else { Self::passphrase(text) };
        key.map_err(|_| DecodeError::Invalid("key of an archive"))
    }
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Kind::Passphrase(_) => "Lock(passphrase)",
            Kind::Recipients(_) => "Lock(recipients)",
        })
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(***)")
    }
}

fn checked(passphrase: &str) -> Result<SecretString, KeyError> {
    if passphrase.chars().count() < PASSPHRASE_CHARS {
        return Err(KeyError::ShortPassphrase);
    }
    Ok(SecretString::from(passphrase.to_owned()))
}

fn not_opened(error: DecryptError) -> KeyError {
    match error {
        DecryptError::DecryptionFailed
        | DecryptError::KeyDecryptionFailed
        | DecryptError::NoMatchingKeys
        | DecryptError::InvalidMac => KeyError::Wrong,
        DecryptError::ExcessiveWork { .. } => KeyError::ExcessiveWork,
        _ => KeyError::NotAnArchive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_opened_by_its_key_alone() {
        let identity = x25519::Identity::generate();
        let for_one = Lock::recipients([identity.to_public().to_string().as_str()]).unwrap();
        let (encryptor, of_proof) = for_one.encryptor().unwrap();
        let mut sealed = Vec::new();
        std::io::Write::write_all(&mut encryptor.wrap_output(&mut sealed).unwrap(), b"").unwrap();
        let owner = Key::identity(identity.to_string().expose_secret()).unwrap();
        assert!(owner.open(sealed.as_slice()).is_ok() && of_proof.open(sealed.as_slice()).is_ok());
        let other = Key(Opener::Identity(x25519::Identity::generate()));
        assert!(matches!(other.open(sealed.as_slice()).map(drop), Err(KeyError::Wrong)));
        let passphrase = Key::passphrase("a long passphrase").unwrap();
        assert!(matches!(passphrase.open(sealed.as_slice()).map(drop), Err(KeyError::Wrong)));
        assert!(matches!(owner.open(&b"text"[..]).map(drop), Err(KeyError::NotAnArchive)));
    }

    #[test]
    fn what_is_no_lock_or_key_is_told_apart() {
        assert!(matches!(Lock::passphrase("elevenchars"), Err(KeyError::ShortPassphrase)));
        assert!(matches!(Lock::recipients(["age1nothing"]), Err(KeyError::Recipient)));
        assert!(matches!(Lock::recipients([]), Err(KeyError::Recipients)));
        assert!(matches!(Key::identity("AGE-SECRET-KEY-1"), Err(KeyError::Identity)));
    }

    #[test]
    fn work_that_a_forger_asks_for_is_refused_before_it_is_done() {
        let header = "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 30\n\
            AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\
            0123456789abcdef0123456789abcdef";
        let key = Key::passphrase("a long passphrase").unwrap();
        assert!(matches!(key.open(header.as_bytes()).map(drop), Err(KeyError::ExcessiveWork)));
    }

    #[test]
    fn nothing_secret_is_shown_and_a_key_crosses_to_the_helper() {
        let key = Key::passphrase("a long passphrase").unwrap();
        assert!(!format!("{key:?} {:?}", Lock::passphrase("a long passphrase")).contains("long"));
        for key in [key, Key(Opener::Identity(x25519::Identity::generate()))] {
            let mut to = Encoder::new();
            key.encode(&mut to);
            let mut again = Encoder::new();
            Key::decode(&mut Decoder::new(to.as_bytes())).unwrap().encode(&mut again);
            assert_eq!(to.as_bytes(), again.as_bytes());
        }
    }
}
