//! What this device remembers of the archives it made: which are good, how the last attempts ended, and one that is
//! on its way. A file of JSON beside the databases, which a service engineer can read; nothing in it is secret.
//!
//! Good archives are remembered with their manifests. They say what is safe beyond this device, and by them a listing of
//! the share that lacks some is known to be short.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use mfpsync_backup::layout::ArchiveId;
use mfpsync_backup::manifest::Manifest;
use mfpsync_backup::upload::Mark;
use mfpsync_storage::model::{Cursor, GroupId};
use serde::{Deserialize, Serialize};

use super::schedule::Past;

const FILE: &str = "archives.json";
/// Far above what the rules keep.
const MOST_BYTES: u64 = 64 << 20;

/// The remembered archives of one data directory.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    now: Remembered,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    /// Whose archives these are; those of another group are forgotten.
    group: String,
    /// Good archives, by id.
    good: BTreeMap<String, Good>,
    failure: Option<Failure>,
    pending: Option<Pending>,
    drill: Option<Drilled>,
    /// Why none was removed although some were due.
    not_removed: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Good {
    /// On which share.
    share: String,
    /// Its manifest, base64.
    manifest: String,
}

/// An attempt that came to nothing, and how many have in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When, Unix milliseconds.
    pub at: u64,
    /// In a row.
    pub times: u32,
    /// Why, for people.
    pub why: String,
}

/// An archive that was proven and is on its way to the share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its id.
    pub id: String,
    /// Its manifest, base64.
    manifest: String,
    /// How far it is.
    turn: u32,
    taken: u64,
}

/// A look at an archive long after it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// When, Unix milliseconds.
    pub at: u64,
    /// Which archive.
    pub id: String,
    /// It was opened with a key.
    pub opened: bool,
    /// What is wrong with it.
    pub wrong: Option<String>,
}

impl Pending {
    /// An archive that was proven.
    #[must_use]
    pub fn new(id: ArchiveId, manifest: &[u8]) -> Self {
        Self { id: id.to_string(), manifest: BASE64.encode(manifest), turn: 0, taken: 0 }
    }

    /// Its manifest, as it is written beside it.
    #[must_use]
    pub fn manifest(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.manifest.as_bytes()).ok()
    }

    /// How far it is.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { turn: self.turn, taken: self.taken }
    }
}

impl Ledger {
    /// Reads the file. One that cannot be understood is moved aside: the archives are on the share all the same.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(data_dir: &Path) -> std::io::Result<Self> {
        let path = data_dir.join(FILE);
        let now = match std::fs::metadata(&path) {
            Ok(about) if about.len() <= MOST_BYTES => serde_json::from_slice(&std::fs::read(&path)?).ok(),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::NotFound => Some(Remembered::default()),
            Err(error) => return Err(error),
        };
        let now = match now {
            Some(now) => now,
            None => {
                let aside = path.with_extension("json.damaged");
                std::fs::rename(&path, &aside)?;
                tracing::warn!(?aside, "what was remembered of archives cannot be read and was moved aside");
                Remembered::default()
            }
        };
        Ok(Self { path, now })
    }

    fn change(&mut self, change: impl FnOnce(&mut Remembered)) -> std::io::Result<()> {
        let mut next = self.now.clone();
        change(&mut next);
        if next != self.now {
            let bytes = serde_json::to_vec_pretty(&next).map_err(std::io::Error::other)?;
            mfpsync_storage::replace(&self.path, &bytes)?;
            self.now = next;
        }
        Ok(())
    }

    /// Forgets the archives of every other group.
    ///
    /// # Errors
    /// The file system's; as for all that follow, what was remembered before then stands.
    pub fn of_group(&mut self, group: GroupId) -> std::io::Result<()> {
        let group = group.to_string();
        self.change(|now| {
            if now.group != group {
                *now = Remembered { group, ..Remembered::default() };
            }
        })
    }

    /// An archive is proven, and on its way from now on.
    ///
    /// # Errors
    /// The file system's.
    pub fn set_out(&mut self, pending: Pending) -> std::io::Result<()> {
        self.change(|now| now.pending = Some(pending))
    }

    /// It has come so far.
    ///
    /// # Errors
    /// The file system's.
    pub fn mark(&mut self, mark: Mark) -> std::io::Result<()> {
        self.change(|now| {
            if let Some(pending) = &mut now.pending {
                (pending.turn, pending.taken) = (mark.turn, mark.taken);
            }
        })
    }

    /// It has arrived on a share: it is good.
    ///
    /// # Errors
    /// The file system's.
    pub fn arrived(&mut self, share: &str) -> std::io::Result<()> {
        self.change(|now| {
            if let Some(Pending { id, manifest, .. }) = now.pending.take() {
                now.good.insert(id, Good { share: share.to_owned(), manifest });
            }
            now.failure = None;
        })
    }

    /// An attempt came to nothing. An archive on its way stays so if it can still arrive.
    ///
    /// # Errors
    /// The file system's.
    pub fn failed(&mut self, at: u64, why: String, gives_up: bool) -> std::io::Result<()> {
        self.change(|now| {
            let times = now.failure.as_ref().map_or(0, |failure| failure.times).saturating_add(1);
            now.failure = Some(Failure { at, times, why });
            now.pending.take_if(|_| gives_up);
        })
    }

    /// Archives were removed from the share, or are known to be gone.
    ///
    /// # Errors
    /// The file system's.
    pub fn removed(&mut self, ids: &[ArchiveId]) -> std::io::Result<()> {
        self.change(|now| ids.iter().for_each(|id| drop(now.good.remove(&id.to_string()))))
    }

    /// Whether old ones could be removed.
    ///
    /// # Errors
    /// The file system's.
    pub fn not_removed(&mut self, why: Option<String>) -> std::io::Result<()> {
        self.change(|now| now.not_removed = why)
    }

    /// An archive was looked at.
    ///
    /// # Errors
    /// The file system's.
    pub fn drilled(&mut self, drilled: Drilled) -> std::io::Result<()> {
        self.change(|now| now.drill = Some(drilled))
    }

    /// The archive on its way.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending> {
        self.now.pending.as_ref()
    }

    /// The ids of the good archives on a share.
    #[must_use]
    pub fn known(&self, share: &str) -> BTreeSet<ArchiveId> {
        let there = self.now.good.iter().filter(|(_, good)| good.share == share);
        there.filter_map(|(id, _)| ArchiveId::parse(id)).collect()
    }

    /// The newest good archive, by when it was begun.
    #[must_use]
    pub fn newest(&self) -> Option<(ArchiveId, Manifest)> {
        let (id, good) = self.now.good.last_key_value()?;
        Some((ArchiveId::parse(id)?, good.manifest()?))
    }

    /// Where the good archives stand.
    #[must_use]
    pub fn places(&self) -> Vec<Cursor> {
        self.now.good.values().filter_map(Good::manifest).map(|manifest| manifest.held.at).collect()
    }

    /// What the schedule goes by.
    #[must_use]
    pub fn past(&self) -> Past {
        let newest = self.now.good.last_key_value().and_then(|(id, _)| ArchiveId::parse(id));
        let good_at = newest.map(ArchiveId::begun_at);
        let failed = self.now.failure.as_ref().map(|failure| (failure.at / 1_000, failure.times));
        Past { good_at, failed }
    }

    /// The attempts that came to nothing since the last good archive.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.now.failure.as_ref()
    }

    /// The last drill.
    #[must_use]
    pub fn drill(&self) -> Option<&Drilled> {
        self.now.drill.as_ref()
    }

    /// Why none was removed although some were due.
    #[must_use]
    pub fn why_not_removed(&self) -> Option<&str> {
        self.now.not_removed.as_deref()
    }
}

impl Good {
    /// It was signed here; one that somebody changed in the file is none.
    fn manifest(&self) -> Option<Manifest> {
        let bytes = BASE64.decode(self.manifest.as_bytes()).ok()?;
        Manifest::decode(&bytes).ok().map(|signed| signed.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_on_its_way_is_remembered_and_becomes_a_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        ledger.of_group(GroupId([1; 16])).unwrap();
        let id = ArchiveId::new(1_000, 7);
        ledger.set_out(Pending::new(id, b"manifest")).unwrap();
        ledger.mark(Mark { turn: 2, taken: 900 }).unwrap();
        ledger.failed(5_000, "no answer in time".to_owned(), false).unwrap();
        let mut again = Ledger::open(directory.path()).unwrap();
        let pending = again.pending().unwrap();
        assert_eq!(
            (pending.manifest().unwrap(), pending.mark()),
            (b"manifest".to_vec(), Mark { turn: 2, taken: 900 })
        );
        assert_eq!(again.past(), Past { good_at: None, failed: Some((5, 1)) });
        again.arrived("//nas/backup").unwrap();
        let again = Ledger::open(directory.path()).unwrap();
        assert_eq!((again.known("//nas/backup"), again.pending()), (BTreeSet::from([id]), None));
        assert_eq!(again.known("//other/backup"), BTreeSet::new());
        assert_eq!(again.past(), Past { good_at: Some(1_000), failed: None });
    }

    #[test]
    fn archives_of_another_group_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        ledger.of_group(GroupId([1; 16])).unwrap();
        ledger.set_out(Pending::new(ArchiveId::new(1, 1), b"")).unwrap();
        ledger.arrived("//nas/backup").unwrap();
        ledger.of_group(GroupId([1; 16])).unwrap();
        assert_eq!(ledger.known("//nas/backup").len(), 1);
        ledger.of_group(GroupId([2; 16])).unwrap();
        assert_eq!(ledger.known("//nas/backup").len(), 0);
    }

    #[test]
    fn a_file_that_is_none_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(Ledger::open(directory.path()).unwrap().known("").len(), 0);
        assert!(directory.path().join("archives.json.damaged").exists());
    }
}
