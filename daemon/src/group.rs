//! Founding a group: keys, recovery kit, and the first state of the master database.
//!
//! Called by the panel before the server role starts: first what is to be written is made in memory, with
//! the kit, then it is written. What that leaves behind is complete or absent.

use std::path::Path;

use mfpsync_storage::local::Membership;
use mfpsync_storage::master::{Founding, Head, Master};
use mfpsync_storage::model::{Capabilities, Epoch, Member, Promotion, PromotionReason};
use mfpsync_storage::{Error, Inline};
use ring::rand::SecureRandom;
use thiserror::Error;

use crate::authority::{IssuingKey, Root};
use crate::clock::unix_millis;
use crate::identity::Identity;
use crate::keystore::KeyStore;
use crate::kit::{self, KitError, WorkFactor};
use crate::signing::KeyError;

/// The master database's file within the data directory.
pub const MASTER_FILE: &str = "master.db";
/// A database that was made from an archive, until it is the master.
pub const RESTORED_FILE: &str = "restored.db";
/// Who decides that a reign begins, as its record names it.
pub const OPERATOR: &str = "panel";
/// The group's name, in bytes.
const NAME_BYTES: usize = 64;

/// Why no group was founded. Nothing was changed.
#[derive(Debug, Error)]
pub enum FoundError {
    /// This device holds a group's master database already.
    #[error(
        "this device already holds the master database of group {0}; start the server without a new group"
    )]
    Exists(String),
    /// The daemon started anew since the group was prepared, or another one was prepared.
    #[error("this group is not prepared any more, and its recovery kit is void; prepare it again")]
    Unprepared,
    /// The name is empty, too long, or holds control characters.
    #[error("the group's name must have 1 to 64 bytes and no control characters")]
    Name,
    /// The recovery kit.
    #[error("recovery kit: {0}")]
    Kit(#[from] KitError),
    /// The keys.
    #[error("keys: {0}")]
    Key(#[from] KeyError),
    /// The database.
    #[error("master database: {0}")]
    Storage(#[from] Error),
}

/// Who founds, and where.
#[derive(Clone, Copy)]
pub struct Founder<'a> {
    /// The device.
    pub identity: &'a Identity,
    /// Its name for people.
    pub name: &'a str,
    /// Its keys.
    pub keys: &'a dyn KeyStore,
    /// Where it will be reached.
    pub endpoints: &'a [String],
}

impl Founder<'_> {
    /// Makes a group in memory, and its recovery kit. I-25: the root key exists only in the kit from then
    /// on; what is to be written holds nothing secret.
    ///
    /// Blocks for about a second: the kit's passphrase is made expensive to guess.
    ///
    /// # Errors
    /// See [`FoundError`].
    pub fn prepare(
        &self,
        group_name: &str,
        passphrase: &str,
        random: &dyn SecureRandom,
    ) -> Result<(Founding, String), FoundError> {
        if group_name.is_empty() || group_name.len() > NAME_BYTES || group_name.chars().any(char::is_control)
        {
            return Err(FoundError::Name);
        }
        let root = Root::generate(random)?;
        let recovery_kit = kit::seal(&root, group_name, passphrase, WorkFactor::DEVICE)?;
        let issuing = IssuingKey::load_or_create(self.keys, self.identity.device(), random)?;
        Ok((self.founding(&root, &issuing, group_name, random)?, recovery_kit))
    }

    fn founding(
        &self,
        root: &Root,
        issuing: &IssuingKey,
        group_name: &str,
        random: &dyn SecureRandom,
    ) -> Result<Founding, FoundError> {
        let anchor = root.anchor();
        // I-13: two groups, or two reigns, never share an epoch.
        let mut nonce = [0; 16];
        random.fill(&mut nonce).map_err(|_| KeyError::Random)?;
        let capabilities = Capabilities::CLIENT.with(Capabilities::SERVE).with(Capabilities::ADMINISTER);
        Ok(Founding {
            group_name: group_name.to_owned(),
            root_key: anchor.root,
            promotion: issuing.sign_promotion(Promotion {
                group: anchor.group,
                epoch: Epoch { number: 1, nonce },
                parent: None,
                ends: Vec::new(),
                device: self.identity.device(),
                operator: OPERATOR.to_owned(),
                reason: PromotionReason::Founded,
                made_at: unix_millis(),
            }),
            issuer: root.certify(issuing.device(), issuing.public_key()),
            member: issuing.sign_member(Member {
                group: anchor.group,
                device: self.identity.device(),
                public_key: self.identity.public_key(),
                name: self.name.to_owned(),
                capabilities,
                released: false,
                version: 1,
                endpoints: self.endpoints.to_vec(),
                issuer: self.identity.device(),
            }),
        })
    }
}

/// Writes a group that was prepared.
///
/// # Errors
/// The database's; nothing was founded, unless a commit failed whose fate the storage leaves open.
pub fn found(data_dir: &Path, founding: &Founding) -> Result<(), FoundError> {
    let mut master = Inline::<Master>::open(&data_dir.join(MASTER_FILE), true)?;
    master.write(|write| write.found(founding))?;
    Ok(())
}

/// The head of a master database file; none when there is no file, or no group in it.
///
/// # Errors
/// A damaged, foreign or newer file.
pub fn head(path: &Path) -> Result<Option<Head>, Error> {
    match Inline::<Master>::open(path, false) {
        Ok(master) => master.read(|read| read.head()),
        Err(Error::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The membership that the server's own client function uses.
#[must_use]
pub fn membership_of(head: &Head) -> Membership {
    Membership { group: head.group, group_name: head.group_name.clone(), root_key: head.root_key }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use data_encoding::{BASE64, HEXLOWER};
    use ring::rand::SystemRandom;

    use super::*;
    use crate::keystore::FileKeyStore;

    const PASSPHRASE: &str = "seven quiet printers";

    fn files_below(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
    }

    /// Whether some file holds these 32 bytes, as they are or as text.
    fn on_disk(directory: &Path, secret: &[u8; 32]) -> bool {
        let forms = [secret.to_vec(), HEXLOWER.encode(secret).into(), BASE64.encode(secret).into()];
        files_below(directory).iter().any(|file| {
            let bytes = fs::read(file).unwrap();
            forms.iter().any(|form| bytes.windows(form.len()).any(|part| part == form))
        })
    }

    /// Proves I-25.
    #[test]
    fn a_founded_groups_root_key_is_in_its_kit_and_in_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let (data, random) = (directory.path(), SystemRandom::new());
        let keys = FileKeyStore::open(data.join("keys")).unwrap();
        let identity = Identity::load_or_create(&keys, &random).unwrap();
        let founder = Founder { identity: &identity, name: "copier", keys: &keys, endpoints: &[] };
        let (founding, text) = founder.prepare("Office", PASSPHRASE, &random).unwrap();
        assert!(head(&data.join(MASTER_FILE)).unwrap().is_none(), "the kit comes first");
        found(data, &founding).unwrap();

        let head = head(&data.join(MASTER_FILE)).unwrap().unwrap();
        let (root, _name) = kit::open(&text, PASSPHRASE).unwrap();
        assert_eq!(root.anchor().root, head.root_key);
        // What is there is found: the same root's public half, and this device's own secret.
        assert!(on_disk(data, &head.root_key.0));
        assert!(on_disk(data, identity.pkcs8().last_chunk().unwrap()));
        assert!(!on_disk(data, root.seed()));
    }
}
