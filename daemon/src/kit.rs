//! The recovery kit: the group's root key as a text that can be kept in a file or printed, sealed
//! by a passphrase.
//!
//! Who may ask for it and where it is written is decided by the callers. Both calls cost about a
//! second of one core and 64 MiB for that time; they belong on a thread that may block.
//!
//! **Source**: age v1 with an scrypt recipient, ASCII armor; inside, a record `MFPK` version 1.

use std::io::{self, Read, Write};
use std::iter;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, EncryptError, Encryptor, scrypt};
use mfpsync_storage::codec::{Decoder, Encoder};
use mfpsync_storage::model::{GroupId, limit};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::authority::Root;
use crate::signing::KeyError;

const MAGIC: [u8; 4] = *b"MFPK";
const VERSION: u8 = 1;

/// Fewest characters of a passphrase.
pub const PASSPHRASE_CHARS: usize = 12;
/// Largest kit text looked at, in bytes; a real one is below 1 KiB.
const TEXT_BYTES: usize = 16 << 10;
/// Largest content read, in bytes.
const CONTENT_BYTES: u64 = 1 << 10;

/// How hard guessing a passphrase is made, as the binary logarithm of scrypt's cost; each step
/// doubles time and memory (1 KiB at 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkFactor(u8);

impl WorkFactor {
    /// About a second on the processors of these devices, and 64 MiB.
    pub const DEVICE: Self = Self(16);
    /// The hardest that is opened: a forged kit must not exhaust a device's memory.
    pub const MOST: Self = Self(18);

    /// A work factor between 1 and [`WorkFactor::MOST`].
    #[must_use]
    pub fn new(log_cost: u8) -> Option<Self> {
        (1..=Self::MOST.0).contains(&log_cost).then_some(Self(log_cost))
    }
}

/// Why a kit is not written or opened.
#[derive(Debug, Error)]
pub enum KitError {
    /// The passphrase has fewer than [`PASSPHRASE_CHARS`] characters.
    #[error("passphrase shorter than {PASSPHRASE_CHARS} characters")]
    ShortPassphrase,
    /// The group's name does not fit.
    #[error("group name too long")]
    Name,
    /// The passphrase is not the one it was sealed with.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// Not a recovery kit, or one that was changed.
    #[error("not an intact recovery kit")]
    Damaged,
    /// A recovery kit of a later version of this product.
    #[error("recovery kit of a newer version")]
    Newer,
    /// Opening it would take more memory than is allowed.
    #[error("recovery kit sealed with a work factor over {most}", most = WorkFactor::MOST.0)]
    ExcessiveWork,
    /// The seal could not be made.
    #[error("sealing: {0}")]
    Seal(#[source] io::Error),
    /// The key inside.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Seals the root key with the group's id and name.
///
/// # Errors
/// A short passphrase, a long name.
pub fn seal(root: &Root, group_name: &str, passphrase: &str, work: WorkFactor) -> Result<String, KitError> {
    check_passphrase(passphrase)?;
    if group_name.len() > limit::NAME_BYTES {
        return Err(KitError::Name);
    }
    let mut to = Encoder::record(MAGIC, VERSION);
    to.fixed(&root.anchor().group.0).text(group_name).fixed(root.seed());
    let content = Zeroizing::new(to.finish());

    let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    recipient.set_work_factor(work.0);
    let encryptor = Encryptor::with_recipients(iter::once(&recipient as _)).map_err(refused)?;
    write_armored(encryptor, &content).map_err(KitError::Seal)
}

/// Opens a kit: the root key, and the group's name at the time of sealing.
///
/// # Errors
/// Wrong passphrase, or not a kit this build opens.
pub fn open(text: &str, passphrase: &str) -> Result<(Root, String), KitError> {
    check_passphrase(passphrase)?;
    if text.len() > TEXT_BYTES {
        return Err(KitError::Damaged);
    }
    let mut identity = scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
    identity.set_max_work_factor(WorkFactor::MOST.0);
    let decryptor =
        Decryptor::new_buffered(ArmoredReader::new(text.trim().as_bytes())).map_err(not_opened)?;
    let reader = decryptor.decrypt(iter::once(&identity as _)).map_err(not_opened)?;
    let mut content = Zeroizing::new(Vec::with_capacity(CONTENT_BYTES as usize));
    reader.take(CONTENT_BYTES).read_to_end(&mut content).map_err(|_| KitError::Damaged)?;
    parse(&content)
}

fn parse(content: &[u8]) -> Result<(Root, String), KitError> {
    if content.starts_with(&MAGIC) && content.get(MAGIC.len()).is_some_and(|&v| v > VERSION) {
        return Err(KitError::Newer);
    }
    let fields = || {
        let mut from = Decoder::record(content, MAGIC, VERSION, "recovery kit")?;
        let group = GroupId(from.array()?);
        let name = from.text()?.to_owned();
        let seed = Zeroizing::new(from.array()?);
        from.finish().map(|()| (group, name, seed))
    };
    let (group, name, seed) = fields().map_err(|_| KitError::Damaged)?;
    Ok((Root::from_seed(group, seed)?, name))
}

fn check_passphrase(passphrase: &str) -> Result<(), KitError> {
    if passphrase.chars().count() < PASSPHRASE_CHARS {
        return Err(KitError::ShortPassphrase);
    }
    Ok(())
}

fn write_armored(encryptor: Encryptor, content: &[u8]) -> io::Result<String> {
    let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
    let mut writer = encryptor.wrap_output(armor)?;
    writer.write_all(content)?;
    let bytes = writer.finish()?.finish()?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn refused(error: EncryptError) -> KitError {
    KitError::Seal(io::Error::other(error))
}

fn not_opened(error: DecryptError) -> KitError {
    match error {
        // A changed header of a kit looks the same as a wrong passphrase; the latter is likelier.
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => KitError::WrongPassphrase,
        DecryptError::ExcessiveWork { .. } => KitError::ExcessiveWork,
        _ => KitError::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    use super::*;

    const PASSPHRASE: &str = "correct horse battery";
    const LIGHT: WorkFactor = WorkFactor(2);

    fn sealed() -> (Root, String) {
        let root = Root::generate(&SystemRandom::new()).unwrap();
        let text = seal(&root, "Head office", PASSPHRASE, LIGHT).unwrap();
        (root, text)
    }

    #[test]
    fn a_kit_gives_back_the_root_and_the_name() {
        let (root, text) = sealed();
        assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
        let (opened, name) = open(&format!("\n  {text}\n"), PASSPHRASE).unwrap();
        assert_eq!((opened.anchor(), name.as_str()), (root.anchor(), "Head office"));
    }

    #[test]
    fn another_passphrase_does_not_open_it() {
        let (_, text) = sealed();
        assert!(matches!(open(&text, "correct horse batterz"), Err(KitError::WrongPassphrase)));
    }

    #[test]
    fn a_short_passphrase_is_refused() {
        let root = Root::generate(&SystemRandom::new()).unwrap();
        assert!(matches!(seal(&root, "x", "elevenchars", LIGHT), Err(KitError::ShortPassphrase)));
        // Characters count, not bytes.
        assert!(matches!(seal(&root, "x", "ああああ", LIGHT), Err(KitError::ShortPassphrase)));
    }

    #[test]
    fn a_kit_that_asks_for_too_much_work_is_refused_before_the_work() {
        let text = "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 30\n\
            AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\
            0123456789abcdef0123456789abcdef0123456789abcdef";
        assert!(matches!(open(text, PASSPHRASE), Err(KitError::ExcessiveWork)));
        assert!(WorkFactor::new(0).is_none() && WorkFactor::new(19).is_none());
        assert_eq!(WorkFactor::new(16), Some(WorkFactor::DEVICE));
    }

    #[test]
    fn a_kit_of_a_newer_version_says_so() {
        assert!(matches!(parse(b"MFPK\x02whatever"), Err(KitError::Newer)));
        assert!(matches!(parse(b"MFPK\x01short"), Err(KitError::Damaged)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_kit_with_a_changed_character_is_refused(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9+/]") {
            let (root, text) = sealed();
            let at = at.index(text.len());
            let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
            // Case and line ends of the armor carry nothing; then the same root comes out.
            if let Ok((opened, _)) = open(&changed, PASSPHRASE) {
                prop_assert_eq!(opened.anchor(), root.anchor());
            }
        }
    }
}
