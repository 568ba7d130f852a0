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
    /// Those of the good archives.
    manifests: BTreeMap<String, Manifest>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// It is not tried again before a person has changed something.
    #[serde(default)]
    pub stuck: bool,
}

/// An archive that was proven and is on its way to the share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its id.
    id: String,
    /// Its manifest, base64.
    manifest: String,
    /// Whom it is sealed for; none where it has a passphrase.
    #[serde(default)]
    pub recipients: Vec<String>,
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
    pub fn new(id: ArchiveId, manifest: &[u8], recipients: Vec<String>) -> Self {
        Self { id: id.to_string(), manifest: BASE64.encode(manifest), recipients, turn: 0, taken: 0 }
    }

    /// Its id; none where what was remembered is damaged.
    #[must_use]
    pub fn id(&self) -> Option<ArchiveId> {
        ArchiveId::parse(&self.id)
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
        let manifests = manifests(&now);
        Ok(Self { path, now, manifests })
    }

    fn change(&mut self, change: impl FnOnce(&mut Remembered)) -> std::io::Result<()> {
        let mut next = self.now.clone();
        change(&mut next);
        if next != self.now {
            let bytes = serde_json::to_vec_pretty(&next).map_err(std::io::Error::other)?;
            mfpsync_storage::replace(&self.path, &bytes)?;
            if next.good != self.now.good {
                self.manifests = manifests(&next);
            }
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
    /// The file system's. It is remembered by this life of the process all the same: a device without room would try
    /// again without a wait.
    pub fn failed(&mut self, failure: Failure, gives_up: bool) -> std::io::Result<()> {
        let note = |now: &mut Remembered| {
            let before = now.failure.as_ref().map_or(0, |failure| failure.times);
            now.failure = Some(Failure { times: before.saturating_add(failure.times), ..failure.clone() });
            now.pending.take_if(|_| gives_up);
        };
        let written = self.change(note);
        if written.is_err() {
            note(&mut self.now);
        }
        written
    }

    /// A person has changed something: what was not to be tried again is.
    ///
    /// # Errors
    /// The file system's.
    pub fn set_anew(&mut self) -> std::io::Result<()> {
        self.change(|now| {
            if let Some(failure) = &mut now.failure {
                failure.stuck = false;
            }
        })
    }

    /// Archives are about to be removed from the share, or are known to be gone.
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

    /// An archive was looked at; one with which something is wrong is no good one any more.
    ///
    /// # Errors
    /// The file system's.
    pub fn drilled(&mut self, drilled: Drilled) -> std::io::Result<()> {
        self.change(|now| {
            if drilled.wrong.is_some() {
                now.good.remove(&drilled.id);
            }
            now.drill = Some(drilled);
        })
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

    /// The newest good archive: the one that holds most.
    #[must_use]
    pub fn newest(&self) -> Option<(ArchiveId, &Manifest)> {
        let all = self.manifests.iter().filter_map(|(id, manifest)| Some((ArchiveId::parse(id)?, manifest)));
        all.max_by_key(|(id, manifest)| (manifest.held.at.epoch.number, manifest.held.at.sequence, *id))
    }

    /// Where the good archives stand.
    #[must_use]
    pub fn places(&self) -> Vec<Cursor> {
        self.manifests.values().map(|manifest| manifest.held.at).collect()
    }

    /// What the schedule goes by. An archive of a clock that was ahead of `now`, Unix seconds, says nothing.
    #[must_use]
    pub fn past(&self, now: u64) -> Past {
        let begun = self.now.good.keys().filter_map(|id| ArchiveId::parse(id)).map(ArchiveId::begun_at);
        let failure = self.now.failure.as_ref();
        Past {
            good_at: begun.filter(|at| *at <= now).max(),
            failed: failure.map(|failure| (failure.at / 1_000, failure.times)),
            stuck: failure.is_some_and(|failure| failure.stuck),
        }
    }

    /// When an archive was last looked at, or else when the oldest that is kept was begun, Unix seconds.
    #[must_use]
    pub fn looked_at(&self) -> Option<u64> {
        let oldest = || self.now.good.first_key_value().and_then(|(id, _)| ArchiveId::parse(id));
        let drilled = self.now.drill.as_ref().map(|drill| drill.at / 1_000);
        drilled.or_else(|| oldest().map(ArchiveId::begun_at))
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

/// Manifests were signed here; one that somebody changed in the file is none.
fn manifests(of: &Remembered) -> BTreeMap<String, Manifest> {
    let read = |good: &Good| {
        let bytes = BASE64.decode(good.manifest.as_bytes()).ok()?;
        Manifest::decode(&bytes).ok().map(|signed| signed.record)
    };
    of.good.iter().filter_map(|(id, good)| Some((id.clone(), read(good)?))).collect()
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
        ledger.set_out(Pending::new(id, b"manifest", Vec::new())).unwrap();
        ledger.mark(Mark { turn: 2, taken: 900 }).unwrap();
        let failure = Failure { at: 5_000, times: 1, why: "no answer in time".to_owned(), stuck: true };
        ledger.failed(failure, false).unwrap();
        let mut again = Ledger::open(directory.path()).unwrap();
        let pending = again.pending().unwrap();
        assert_eq!(
            (pending.manifest().unwrap(), pending.mark()),
            (b"manifest".to_vec(), Mark { turn: 2, taken: 900 })
        );
        assert_eq!(again.past(9_000), Past { good_at: None, failed: Some((5, 1)), stuck: true });
        again.set_anew().unwrap();
        assert!(!again.past(9_000).stuck);
        again.arrived("//nas/backup").unwrap();
        let again = Ledger::open(directory.path()).unwrap();
        assert_eq!((again.known("//nas/backup"), again.pending()), (BTreeSet::from([id]), None));
        assert_eq!(again.known("//other/backup"), BTreeSet::new());
        assert_eq!(again.past(9_000), Past { good_at: Some(1_000), ..Past::default() });
        assert_eq!(again.past(999), Past::default(), "its clock was ahead");
    }

    #[test]
    fn archives_of_another_group_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        ledger.of_group(GroupId([1; 16])).unwrap();
        ledger.set_out(Pending::new(ArchiveId::new(1, 1), b"", Vec::new())).unwrap();
        ledger.arrived("//nas/backup").unwrap();
        ledger.of_group(GroupId([1; 16])).unwrap();
        assert_eq!(ledger.known("//nas/backup").len(), 1);
        ledger.of_group(GroupId([2; 16])).unwrap();
        assert_eq!(ledger.known("//nas/backup").len(), 0);
    }

    #[test]
    fn a_failure_that_cannot_be_written_is_remembered_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path()).unwrap();
        drop(directory);
        for times in 1..3 {
            let failure = Failure { at: 5_000, times: 1, why: "no room".to_owned(), stuck: false };
            ledger.failed(failure, false).unwrap_err();
            assert_eq!(ledger.past(9_000).failed, Some((5, times)));
        }
    }

    #[test]
    fn a_file_that_is_none_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(Ledger::open(directory.path()).unwrap().known("").len(), 0);
        assert!(directory.path().join("archives.json.damaged").exists());
    }
}
