//! What is set for backups, and the password, which is bound to where it was entered for.
//!
//! One entry of the key store holds all of it, so a change of the share and the loss of its password are one write.
//! A password whose share is another one is none, by whatever way the share was changed.

use mfpsync_backup::archive::Lock;
use mfpsync_backup::retention;
use mfpsync_backup::smb::{Dialect, Encryption, Secret, Target};
use mfpsync_backup::store::Name;
use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use mfpsync_storage::model::GroupId;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::schedule::Schedule;
use crate::config;
use crate::keystore::{KeyStore, KeyStoreError};

const ENTRY: &str = "backup";
const MAGIC: [u8; 4] = *b"MFBS";
const VERSION: u8 = 1;
/// SMB over TCP.
const PORT: u16 = 445;
/// How long a server may stay silent.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
/// Never more than this part of all archives is removed at once.
const MOST_PERCENT: u8 = 50;
const SPANS: usize = 1_000;

/// Why settings are not taken, or cannot be read. Nothing was changed.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// No share is set.
    #[error("no share is set (`mfpsync backup set`)")]
    NoShare,
    /// There is none, or it was forgotten with the share that it was entered for.
    #[error("no password is stored for this share; set it again (`mfpsync backup set`)")]
    NoPassword,
    /// The configuration does not name the host.
    #[error("{0} is not among the hosts that `backup.hosts` of the configuration allows")]
    Host(String),
    /// A value that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The key store.
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    /// The entry is damaged, or of a newer release.
    #[error("the stored settings of backups: {0}")]
    Damaged(#[from] DecodeError),
}

/// A folder of a share, the account for it, and what is demanded of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Name or address of the server.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Name of the share.
    pub share: String,
    /// Folder in it, which exists.
    pub folder: String,
    /// Domain of the account; empty for one of the server's own.
    pub domain: String,
    /// The account.
    pub user: String,
    /// The oldest SMB that is spoken.
    pub minimum: Dialect,
    /// Whether the connection is encrypted.
    pub encryption: Encryption,
}

impl Share {
    /// All that a password is entered for. The folder is not: it is behind the same door.
    fn door(&self) -> [u8; 32] {
        let mut to = Encoder::new();
        to.text(&self.host).varint(self.port.into()).text(&self.share).text(&self.domain).text(&self.user);
        to.varint(self.minimum.number().into()).fixed(&[self.encryption.byte()]);
        Sha256::digest(to.as_bytes()).into()
    }

    /// Where it is, as it is remembered: one text for one place.
    #[must_use]
    pub fn place(&self) -> String {
        let Self { host, port, share, folder, .. } = self;
        format!("//{}:{port}/{}/{folder}", host.to_lowercase(), share.to_lowercase())
    }

    /// Where a group's archives go.
    ///
    /// # Errors
    /// The configuration does not allow the host, or something cannot be used.
    pub fn target(
        &self,
        group: GroupId,
        password: Secret,
        allowed: &config::Backup,
    ) -> Result<Target, SettingsError> {
        let listed = |host: &String| host.eq_ignore_ascii_case(&self.host);
        if !allowed.hosts.is_empty() && !allowed.hosts.iter().any(listed) {
            return Err(SettingsError::Host(self.host.clone()));
        }
        let invalid = |error: mfpsync_backup::store::Error| SettingsError::Invalid(error.to_string());
        let target = Target {
            host: self.host.clone(),
            port: self.port,
            this_machine: allowed.this_machine,
            share: self.share.clone(),
            folder: self.folder.clone(),
            own_folder: Name::parse(&group.to_string()).map_err(invalid)?,
            domain: self.domain.clone(),
            user: self.user.clone(),
            password,
            minimum: self.minimum,
            encryption: self.encryption,
            patience: PATIENCE,
        };
        target.check().map_err(invalid)?;
        Ok(target)
    }
}

impl Default for Share {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: PORT,
            share: String::new(),
            folder: String::new(),
            domain: String::new(),
            user: String::new(),
            minimum: Dialect::Smb311,
            encryption: Encryption::Preferred,
        }
    }
}

/// Which archives stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The newest; one at least.
    pub newest: usize,
    /// The newest of each of so many days.
    pub days: usize,
    /// Of so many weeks.
    pub weeks: usize,
    /// Of so many months.
    pub months: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self { newest: 3, days: 7, weeks: 5, months: 12 }
    }
}

impl Keep {
    /// As the rule that decides.
    #[must_use]
    pub fn rule(self) -> retention::Keep {
        let Self { newest, days, weeks, months } = self;
        retention::Keep { minimum: newest.max(1), newest, days, weeks, months, most_percent: MOST_PERCENT }
    }
}

/// All that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where archives go.
    pub share: Option<Share>,
    /// The password for it, and for it alone.
    pub password: Option<Secret>,
    /// Whom archives are sealed for that are made by themselves.
    pub recipients: Vec<String>,
    /// When they are.
    pub schedule: Schedule,
    /// Which stay.
    pub keep: Keep,
}

/// A change of what is set; absent stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Another share.
    pub share: Option<Share>,
    /// Another password.
    pub password: Option<Secret>,
    /// Other recipients, all of them.
    pub recipients: Option<Vec<String>>,
    /// Another schedule.
    pub schedule: Option<Schedule>,
    /// Other rules.
    pub keep: Option<Keep>,
}

impl Settings {
    /// What is set after a change, and whether the password was forgotten by it.
    ///
    /// # Errors
    /// Something that cannot be: a host that is not allowed, a recipient that is none, a schedule for which archives
    /// could not be sealed.
    pub fn changed(&self, change: Change, allowed: &config::Backup) -> Result<(Self, bool), SettingsError> {
        let mut next = self.clone();
        if let Some(share) = change.share {
            let same_door = self.share.as_ref().is_some_and(|before| before.door() == share.door());
            if !same_door {
                next.password = None;
            }
            next.share = Some(share);
        }
        if change.password.is_some() {
            next.password = change.password;
        }
        if let Some(share) = &next.share {
            // Any password: whether the rest can be used.
            let password = next.password.clone().unwrap_or_else(|| Secret::new("?".to_owned()));
            share.target(GroupId([0; 16]), password, allowed)?;
        } else if next.password.is_some() {
            return Err(SettingsError::NoShare);
        }
        if let Some(recipients) = change.recipients {
            next.recipients = recipients;
        }
        if let Some(schedule) = change.schedule {
            next.schedule = schedule;
        }
        if let Some(keep) = change.keep {
            if keep.newest == 0
                || [keep.newest, keep.days, keep.weeks, keep.months].iter().any(|n| *n > SPANS)
            {
                return Err(SettingsError::Invalid(format!(
                    "of each kind up to {SPANS} are kept, one at least"
                )));
            }
            next.keep = keep;
        }
        if !next.recipients.is_empty() {
            next.lock()?;
        }
        next.schedule.check().map_err(|what| SettingsError::Invalid(what.to_owned()))?;
        if next.schedule.is_on() && (next.share.is_none() || next.recipients.is_empty()) {
            let what = "archives that are made by themselves need a share, and a recipient for whom they are sealed: \
                        this device holds nothing that opens them (`mfpsync backup key` makes one)";
            return Err(SettingsError::Invalid(what.to_owned()));
        }
        let forgotten = self.password.is_some() && next.password.is_none();
        Ok((next, forgotten))
    }

    /// What seals archives that are made by themselves.
    ///
    /// # Errors
    /// There is no recipient, or one that is none.
    pub fn lock(&self) -> Result<Lock, SettingsError> {
        let lock = Lock::recipients(self.recipients.iter().map(String::as_str));
        lock.map_err(|error| SettingsError::Invalid(error.to_string()))
    }

    /// Where a group's archives go.
    ///
    /// # Errors
    /// Nothing is set, the password is missing, or the host is not allowed any more.
    pub fn target(&self, group: GroupId, allowed: &config::Backup) -> Result<Target, SettingsError> {
        let share = self.share.as_ref().ok_or(SettingsError::NoShare)?;
        share.target(group, self.password.clone().ok_or(SettingsError::NoPassword)?, allowed)
    }

    /// Reads what is set; nothing where nothing was.
    ///
    /// # Errors
    /// The key store, or a damaged entry, which stays as it is.
    pub fn load(keys: &dyn KeyStore) -> Result<Self, SettingsError> {
        keys.load(ENTRY)?.map_or(Ok(Self::default()), |bytes| Ok(Self::decode(&bytes)?))
    }

    /// Writes it, durably and at once. Blocks.
    ///
    /// # Errors
    /// The key store; what was set before then stands.
    pub fn store(&self, keys: &dyn KeyStore) -> Result<(), SettingsError> {
        Ok(keys.store(ENTRY, &self.encode())?)
    }

    /// Forgets all of it. Blocks.
    ///
    /// # Errors
    /// The key store.
    pub fn forget(keys: &dyn KeyStore) -> Result<(), SettingsError> {
        Ok(keys.erase(ENTRY)?)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut to = Encoder::record(MAGIC, VERSION);
        match &self.share {
            None => to.fixed(&[0]),
            Some(share) => {
                to.fixed(&[1])
                    .text(&share.host)
                    .varint(share.port.into())
                    .text(&share.share)
                    .text(&share.folder);
                to.text(&share.domain).text(&share.user).varint(share.minimum.number().into());
                to.fixed(&[share.encryption.byte()])
            }
        };
        match self.share.as_ref().zip(self.password.as_ref()) {
            None => to.fixed(&[0]),
            Some((share, password)) => to.fixed(&[1]).fixed(&share.door()).text(password.reveal()),
        };
        to.varint(self.recipients.len() as u64);
        for recipient in &self.recipients {
            to.text(recipient);
        }
        to.varint(self.schedule.every_hours.into()).varint(self.schedule.at_minute.into());
        for count in [self.keep.newest, self.keep.days, self.keep.weeks, self.keep.months] {
            to.varint(count as u64);
        }
        Zeroizing::new(to.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::record(bytes, MAGIC, VERSION, "backup settings")?;
        let share = if from.flag()? { Some(decode_share(&mut from)?) } else { None };
        let password = if from.flag()? {
            let (door, password) = (from.array::<32>()?, Secret::new(from.text()?.to_owned()));
            Some(password).filter(|_| share.as_ref().is_some_and(|share| share.door() == door))
        } else {
            None
        };
        let recipients = (0..from.count()?).map(|_| Ok(from.text()?.to_owned())).collect::<Result<_, _>>()?;
        let small = |value: u64| u32::try_from(value).map_err(|_| DecodeError::Invalid("number"));
        let schedule = Schedule { every_hours: small(from.varint()?)?, at_minute: small(from.varint()?)? };
        let mut count = || Ok(small(from.varint()?)? as usize);
        let keep = Keep { newest: count()?, days: count()?, weeks: count()?, months: count()? };
        from.finish()?;
        Ok(Self { share, password, recipients, schedule, keep })
    }
}

fn decode_share(from: &mut Decoder<'_>) -> Result<Share, DecodeError> {
    Ok(Share {
        host: from.text()?.to_owned(),
        port: u16::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("port"))?,
        share: from.text()?.to_owned(),
        folder: from.text()?.to_owned(),
        domain: from.text()?.to_owned(),
        user: from.text()?.to_owned(),
        minimum: Dialect::of_number(from.varint()?).ok_or(DecodeError::Invalid("dialect"))?,
        encryption: Encryption::of_byte(from.byte()?).ok_or(DecodeError::Invalid("encryption"))?,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use mfpsync_backup::smb::Library;

    use super::*;
    use crate::keystore::FileKeyStore;

    const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    const FROZEN: &str = concat!(
        "4d46425301",
        "010f6e61732e6578616d706c652e636f6dbd03066261636b75700000077072696e746572910601",
        "013e5777c655ebfa5f75c35e2669d6795aa22449a99676c3d3b890d700e6c96cbb0663616e617279",
        "013e61676531716c337a37686a79353470773368797777356179796667377a716776633777336a32656c77387a6d726a326b673573666e3961716d63616338",
        "70",
        "1896010307050c",
    );

    fn allowed() -> config::Backup {
        config::Backup {
            helpers: PathBuf::from("/"),
            smb: Library::default(),
            hosts: Vec::new(),
            this_machine: false,
        }
    }

    fn share() -> Share {
        Share {
            host: "nas.example.com".to_owned(),
            share: "backup".to_owned(),
            user: "printer".to_owned(),
            ..Share::default()
        }
    }

    fn set() -> Settings {
        let change = Change {
            share: Some(share()),
            password: Some(Secret::new("canary".to_owned())),
            recipients: Some(vec![RECIPIENT.to_owned()]),
            schedule: Some(Schedule { every_hours: 24, at_minute: 150 }),
            ..Change::default()
        };
        Settings::default().changed(change, &allowed()).unwrap().0
    }

    /// Every field of a share but the folder, changed.
    fn other_doors() -> Vec<Share> {
        vec![
            Share { host: "nas2.example.com".to_owned(), ..share() },
            Share { port: 4450, ..share() },
            Share { share: "public".to_owned(), ..share() },
            Share { domain: "OFFICE".to_owned(), ..share() },
            Share { user: "guest".to_owned(), ..share() },
            Share { minimum: Dialect::Smb300, ..share() },
            Share { encryption: Encryption::Off, ..share() },
        ]
    }

    #[test]
    fn a_password_is_forgotten_with_whatever_it_was_entered_for() {
        for other in other_doors() {
            let change = Change { share: Some(other.clone()), ..Change::default() };
            let (next, forgotten) = set().changed(change, &allowed()).unwrap();
            assert_eq!((next.password.clone(), forgotten), (None, true), "{other:?}");
            assert!(matches!(next.target(GroupId([1; 16]), &allowed()), Err(SettingsError::NoPassword)));
            // And it does not come back with the former share.
            let back = Change { share: Some(share()), ..Change::default() };
            assert_eq!(next.changed(back, &allowed()).unwrap().0.password, None);
        }
        let folder = Share { folder: "office".to_owned(), ..share() };
        let (next, forgotten) =
            set().changed(Change { share: Some(folder), ..Change::default() }, &allowed()).unwrap();
        assert!(next.password.is_some() && !forgotten);
    }

    #[test]
    fn a_stored_password_of_another_share_is_none() {
        let stored = set().encode();
        assert_eq!(Settings::decode(&stored).unwrap(), set());
        // Somebody writes another host of the same length into the entry.
        let at = stored.windows(3).position(|window| window == b"nas").unwrap();
        let mut forged = stored.to_vec();
        forged[at..at + 3].copy_from_slice(b"bad");
        let read = Settings::decode(&forged).unwrap();
        assert_eq!((read.share.unwrap().host.as_str(), read.password), ("bad.example.com", None));
    }

    #[test]
    fn version_1_is_frozen() {
        let hex: String = set().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, FROZEN);
    }

    #[test]
    fn settings_are_kept_and_forgotten_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let keys = FileKeyStore::open(directory.path().join("keys")).unwrap();
        assert_eq!(Settings::load(&keys).unwrap(), Settings::default());
        set().store(&keys).unwrap();
        assert_eq!(Settings::load(&keys).unwrap(), set());
        keys.store(ENTRY, b"MFBS\x01torn").unwrap();
        assert!(matches!(Settings::load(&keys), Err(SettingsError::Damaged(_))));
        Settings::forget(&keys).unwrap();
        assert_eq!(Settings::load(&keys).unwrap(), Settings::default());
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let refused = |change: Change| set().changed(change, &allowed()).unwrap_err().to_string();
        let traversal = Share { folder: "../etc".to_owned(), ..share() };
        assert!(
            refused(Change { share: Some(traversal), ..Change::default() }).contains("name cannot be used")
        );
        let nobody = Share { user: String::new(), ..share() };
        assert!(refused(Change { share: Some(nobody), ..Change::default() }).contains("user"));
        let recipients = Some(vec!["age1nonsense".to_owned()]);
        assert!(refused(Change { recipients, ..Change::default() }).contains("age1"));
        let schedule = Some(Schedule { every_hours: 200, at_minute: 0 });
        assert!(refused(Change { schedule, ..Change::default() }).contains("168"));
        let keep = Some(Keep { newest: 0, days: 1, weeks: 1, months: 1 });
        assert!(refused(Change { keep, ..Change::default() }).contains("one at least"));
        let unsealed = Change {
            schedule: Some(Schedule { every_hours: 24, at_minute: 0 }),
            share: Some(share()),
            ..Change::default()
        };
        let refused = Settings::default().changed(unsealed, &allowed()).unwrap_err();
        assert!(refused.to_string().contains("recipient"), "{refused}");
    }

    #[test]
    fn only_hosts_that_are_listed_are_used() {
        let listed = config::Backup { hosts: vec!["NAS.example.com".to_owned()], ..allowed() };
        assert!(set().target(GroupId([1; 16]), &listed).is_ok());
        let others = config::Backup { hosts: vec!["other.example.com".to_owned()], ..allowed() };
        assert!(matches!(set().target(GroupId([1; 16]), &others), Err(SettingsError::Host(_))));
        let change = Change { share: Some(share()), ..Change::default() };
        assert!(matches!(Settings::default().changed(change, &others), Err(SettingsError::Host(_))));
    }
}
