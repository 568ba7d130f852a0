//! The control file: wanted role, group, highest epoch seen, and a takeover under way, durable and outside the
//! databases.
//!
//! It is read before any database is opened and written before a role changes. Every write replaces
//! the whole file atomically. A file that is torn, foreign or from a newer release is an error and
//! stays untouched until somebody calls [`set_aside`]; nothing here repairs or guesses.
//!
//! **Source** of the format: `docs/formats.md`. `MFPF`, version byte, role byte, then group (16
//! bytes), epoch (varint number, 16 bytes nonce) and takeover (text, bytes), each after a presence byte,
//! then the SHA-256 of all that precedes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use mfpsync_storage::model::{Epoch, GroupId, Sequence};
use rustix::fs::{CWD, RenameFlags};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::fault::{Fault, FaultCode};
use crate::role::{Part, Role};

/// The file's name in the data directory.
pub const FILE_NAME: &str = "control";
const TEMPORARY_NAME: &str = "control.tmp";
const MAGIC: [u8; 4] = *b"MFPF";
const VERSION: u8 = 1;
const HASH_BYTES: usize = 32;
/// Far above what this version writes; whatever is longer is not ours.
const MAX_BYTES: u64 = 4 << 10;
/// Names tried for a file that is set aside.
const MAX_SET_ASIDE: u32 = 1_000;

/// What the control file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Control {
    /// The role the operator asked for last.
    pub wanted: Role,
    /// The group this device belongs to.
    pub group: Option<GroupId>,
    /// The highest epoch of that group ever seen here, as server or as client.
    pub epoch: Option<Epoch>,
    /// This device is on its way from replica to server.
    pub takeover: Option<Takeover>,
    /// An operator ended its being the replica here, which the server need not have heard.
    pub released: bool,
}

/// How a reign begins at a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The server is lost; the copy here goes on.
    Lost,
    /// The server stood down for the copy here; its device becomes the replica if it `swaps`.
    HandedOver {
        /// It goes on as a client, so it can.
        swaps: bool,
    },
    /// All that could serve are lost with their data: the reign begins with nothing.
    Anew,
    /// An archive was opened and lies beside the master database: the reign begins over that.
    Restored,
}

impl Way {
    const ALL: [Self; 5] = [
        Self::Lost,
        Self::HandedOver { swaps: false },
        Self::HandedOver { swaps: true },
        Self::Anew,
        Self::Restored,
    ];

    fn byte(self) -> u8 {
        match self {
            Self::Lost => 0,
            Self::HandedOver { swaps: false } => 1,
            Self::HandedOver { swaps: true } => 2,
            Self::Anew => 3,
            Self::Restored => 4,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        let way = Self::ALL.into_iter().find(|way| way.byte() == byte);
        way.ok_or(DecodeError::Invalid("no takeover has this number"))
    }
}

/// A takeover that an operator decided on and that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// Who decided.
    pub operator: String,
    /// What became of the server.
    pub way: Way,
    /// The last change that the reign before is known to have made.
    pub known: Sequence,
    /// The signed promotion record; empty before it is made. From then on there is no way back.
    pub record: Vec<u8>,
}

/// Why the control file cannot be used.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Torn, changed, or never a control file.
    #[error("{path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with its bytes.
        source: DecodeError,
    },
    /// Written by a newer release.
    #[error("{path} was written by a newer release: {source}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The versions.
        source: DecodeError,
    },
    /// The storage did not do what was asked.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An epoch below the highest one seen, or another reign of the same number.
    #[error("epoch {offered} does not follow epoch {seen} of this group")]
    EpochRefused {
        /// The number offered.
        offered: u64,
        /// The highest number seen.
        seen: u64,
    },
    /// What was to be decided is not to be any more, or something else is.
    #[error("a takeover {0}")]
    Takeover(&'static str),
}

impl ControlError {
    /// The fault that a person is shown.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::Damaged { .. } | Self::Newer { .. } => FaultCode::ControlFile,
            Self::EpochRefused { .. } => FaultCode::Superseded,
            Self::Takeover(_) => FaultCode::NotTakenOver,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FaultCode::DiskFull,
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => FaultCode::ReadOnly,
                _ => FaultCode::DiskIo,
            },
        };
        Fault::with_detail(code, self)
    }
}

impl Control {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::record(MAGIC, VERSION);
        to.fixed(&[role_byte(self.wanted)]);
        match &self.group {
            None => to.fixed(&[0]),
            Some(group) => to.fixed(&[1]).fixed(&group.0),
        };
        match &self.epoch {
            None => to.fixed(&[0]),
            Some(epoch) => to.fixed(&[1]).varint(epoch.number).fixed(&epoch.nonce),
        };
        match &self.takeover {
            None => to.fixed(&[0]),
            Some(Takeover { operator, way, known, record }) => {
                to.fixed(&[1]).text(operator).fixed(&[way.byte()]).varint(known.0).bytes(record)
            }
        };
        to.fixed(&[u8::from(self.released)]);
        let hash = Sha256::digest(to.as_bytes());
        to.fixed(&hash);
        to.finish()
    }

    /// Parses the file's bytes.
    ///
    /// # Errors
    /// Not a control file, a newer one, or one with a single bit that differs from what was written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Decoder::record(bytes, MAGIC, VERSION, "control")?;
        let (body, hash) =
            bytes.len().checked_sub(HASH_BYTES).map(|at| bytes.split_at(at)).ok_or(DecodeError::Truncated)?;
        if Sha256::digest(body)[..] != *hash {
            return Err(DecodeError::Invalid("hash differs from the contents"));
        }
        let mut from = Decoder::record(body, MAGIC, VERSION, "control")?;
        let control = Self {
            wanted: role_of(from.byte()?)?,
            group: if from.flag()? { Some(GroupId(from.array()?)) } else { None },
            epoch: if from.flag()? {
                Some(Epoch { number: from.varint()?, nonce: from.array()? })
            } else {
                None
            },
            takeover: if from.flag()? {
                Some(Takeover {
                    operator: from.text()?.to_owned(),
                    way: Way::from_byte(from.byte()?)?,
                    known: Sequence(from.varint()?),
                    record: from.bytes()?.to_owned(),
                })
            } else {
                None
            },
            released: from.flag()?,
        };
        from.finish()?;
        Ok(control)
    }

    fn raise(&mut self, epoch: Epoch) -> Result<(), ControlError> {
        match self.epoch {
            Some(seen) if seen == epoch => {}
            Some(seen) if epoch.number <= seen.number => {
                return Err(ControlError::EpochRefused { offered: epoch.number, seen: seen.number });
            }
            Some(_) | None => self.epoch = Some(epoch),
        }
        Ok(())
    }
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Idle => 0,
        Role::Server => 1,
        Role::Client => 2,
        Role::ServerClient => 3,
        Role::Replica => 4,
        Role::ReplicaClient => 5,
    }
}

fn role_of(byte: u8) -> Result<Role, DecodeError> {
    Role::ALL
        .into_iter()
        .find(|role| role_byte(*role) == byte)
        .ok_or(DecodeError::Invalid("no role has this number"))
}

/// The control file of one data directory; the only thing that writes it.
#[derive(Debug)]
pub struct ControlFile {
    directory: PathBuf,
    current: Mutex<Control>,
}

impl ControlFile {
    /// Reads the file; a data directory without one is new and begins with the default.
    ///
    /// # Errors
    /// Damaged, newer, or unreadable; the file is left as it is.
    pub fn load(data_dir: &Path) -> Result<Self, ControlError> {
        let path = data_dir.join(FILE_NAME);
        let current = match read_bounded(&path) {
            Ok(bytes) => Control::decode(&bytes).map_err(|source| match source {
                DecodeError::Newer { .. } => ControlError::Newer { path, source },
                DecodeError::Truncated
                | DecodeError::Trailing(_)
                | DecodeError::Magic(_)
                | DecodeError::Invalid(_) => ControlError::Damaged { path, source },
            })?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => Control::default(),
            Err(source) => return Err(ControlError::Io { action: "read", path, source }),
        };
        Ok(Self { directory: data_dir.to_owned(), current: Mutex::new(current) })
    }

    /// What the file says.
    #[must_use]
    pub fn current(&self) -> Control {
        self.lock().clone()
    }

    /// Writes the role the operator asked for. One without a server takes back a takeover that has no
    /// record yet. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage; the old contents then stay in force.
    pub fn set_wanted(&self, wanted: Role) -> Result<(), ControlError> {
        self.change(|control| {
            control.wanted = wanted;
            let serves = wanted.parts().contains(Part::Server);
            control.takeover.take_if(|takeover| !serves && takeover.record.is_empty());
            Ok(())
        })
    }

    /// Writes that the replica here is to become the server, in the place of one that is known to have made changes
    /// up to `known`; returns the role from then on. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage.
    pub fn begin_takeover(&self, operator: &str, way: Way, known: Sequence) -> Result<Role, ControlError> {
        let mut wanted = Role::Server;
        self.change(|control| {
            wanted = control.wanted.serving();
            control.wanted = wanted;
            let takeover = Takeover { operator: operator.to_owned(), way, known, record: Vec::new() };
            control.takeover.get_or_insert(takeover);
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Writes the record of the takeover under way, and its epoch with it: from here on it is finished,
    /// whatever happens. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage, an epoch that does not follow the one seen, or there is no such takeover any more.
    pub fn decide_takeover(&self, epoch: Epoch, record: &[u8]) -> Result<(), ControlError> {
        self.change(|control| {
            let undecided = control.takeover.as_ref().is_some_and(|takeover| takeover.record.is_empty());
            if !undecided {
                return Err(ControlError::Takeover("was taken back"));
            }
            control.raise(epoch)?;
            if let Some(takeover) = &mut control.takeover {
                takeover.record = record.to_owned();
            }
            Ok(())
        })
    }

    /// Writes that this device is to become the server by the database that was made from an archive, after a reign that is
    /// known to have made changes up to `known`; returns the role from then on. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage, or another takeover is under way.
    pub fn begin_restore(&self, operator: &str, known: Sequence) -> Result<Role, ControlError> {
        let mut wanted = Role::Server;
        self.change(|control| {
            if control.takeover.is_some() {
                return Err(ControlError::Takeover("is under way already"));
            }
            wanted = control.wanted.serving();
            control.wanted = wanted;
            let (operator, way, record) = (operator.to_owned(), Way::Restored, Vec::new());
            control.takeover = Some(Takeover { operator, way, known, record });
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Writes that a restore that was not decided is given up, as there is nothing to restore, and returns the role from
    /// then on: without a server, if there is no database to `serve`. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage.
    pub fn give_up_restore(&self, serve: bool) -> Result<Role, ControlError> {
        let mut wanted = Role::Idle;
        self.change(|control| {
            control.takeover.take_if(|takeover| takeover.way == Way::Restored && takeover.record.is_empty());
            if !serve {
                control.wanted = control.wanted.not_serving();
            }
            wanted = control.wanted;
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Writes that the replica here does not become the server after all, unless there is a record already, and
    /// returns its role from then on. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage.
    pub fn take_back_takeover(&self) -> Result<Role, ControlError> {
        let mut wanted = Role::Replica;
        self.change(|control| {
            if control.takeover.take_if(|takeover| takeover.record.is_empty()).is_some() {
                control.wanted = control.wanted.following();
            }
            wanted = control.wanted;
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Writes that the client here becomes the server with nothing, by the record of its reign, and returns its
    /// role from then on: it is finished, whatever happens. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage, or an epoch that does not follow the one seen.
    pub fn begin_anew(&self, operator: &str, epoch: Epoch, record: &[u8]) -> Result<Role, ControlError> {
        let mut wanted = Role::Server;
        self.change(|control| {
            control.raise(epoch)?;
            wanted = control.wanted.serving();
            control.wanted = wanted;
            control.takeover = Some(Takeover {
                operator: operator.to_owned(),
                way: Way::Anew,
                known: Sequence::ZERO,
                record: record.to_owned(),
            });
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Writes that no takeover is under way. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage.
    pub fn end_takeover(&self) -> Result<(), ControlError> {
        self.change(|control| {
            control.takeover = None;
            Ok(())
        })
    }

    /// Writes that this device is the replica no more, whatever the server says, and returns its role from
    /// then on. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage.
    pub fn release_replica(&self) -> Result<Role, ControlError> {
        let mut wanted = Role::Idle;
        self.change(|control| {
            wanted = control.wanted.not_serving();
            (control.wanted, control.released) = (wanted, true);
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Writes that the server has heard that this device is the replica no more: it may be asked again.
    /// Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage.
    pub fn forget_release(&self) -> Result<(), ControlError> {
        self.change(|control| {
            control.released = false;
            Ok(())
        })
    }

    /// Writes a higher epoch, which another device reigns in, and with it that this one serves no more;
    /// returns its role from then on. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage, or an epoch that does not follow the one seen.
    pub fn seal(&self, epoch: Epoch) -> Result<Role, ControlError> {
        let mut wanted = Role::Idle;
        self.change(|control| {
            control.raise(epoch)?;
            wanted = control.wanted.not_serving();
            (control.wanted, control.takeover) = (wanted, None);
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Writes the group this device now belongs to, with the epoch it was found in. Blocks until it
    /// is on stable storage.
    ///
    /// # Errors
    /// The storage, or an epoch that does not follow the one seen if it is the same group.
    pub fn enter_group(&self, group: GroupId, epoch: Epoch) -> Result<(), ControlError> {
        self.change(|control| {
            if control.group == Some(group) {
                return control.raise(epoch);
            }
            (control.group, control.epoch, control.released) = (Some(group), Some(epoch), false);
            Ok(())
        })
    }

    /// Writes that this device belongs to no group. Blocks until it is on stable storage.
    ///
    /// # Errors
    /// The storage.
    pub fn leave_group(&self) -> Result<(), ControlError> {
        self.change(|control| {
            (control.group, control.epoch, control.released) = (None, None, false);
            Ok(())
        })
    }

    /// Writes a higher epoch of the group. Blocks until it is on stable storage; the epoch that is
    /// known already costs nothing.
    ///
    /// # Errors
    /// The storage, or an epoch that does not follow the one seen.
    pub fn see_epoch(&self, epoch: Epoch) -> Result<(), ControlError> {
        self.change(|control| control.raise(epoch))
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Control) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        // Held while writing, so that two writers cannot put an older copy over a newer one.
        let mut current = self.lock();
        let mut changed = current.clone();
        change(&mut changed)?;
        if changed != *current {
            replace(&self.directory, &changed.encode())?;
            *current = changed;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        // The value is replaced as a whole after the write, so a panic elsewhere leaves it valid.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renames a control file that cannot be used to `control.damaged-<n>` and returns that name. Only
/// an explicit decision of a service engineer leads here.
///
/// # Errors
/// The storage, or no free name.
pub fn set_aside(data_dir: &Path) -> Result<PathBuf, ControlError> {
    let path = data_dir.join(FILE_NAME);
    for number in 1..=MAX_SET_ASIDE {
        let aside = data_dir.join(format!("{FILE_NAME}.damaged-{number}"));
        match rustix::fs::renameat_with(CWD, &path, CWD, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => {
                sync_directory(data_dir)?;
                return Ok(aside);
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(source) => {
                return Err(ControlError::Io { action: "set aside", path, source: source.into() });
            }
        }
    }
    let source = io::Error::from(io::ErrorKind::AlreadyExists);
    Err(ControlError::Io { action: "set aside", path, source })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn replace(directory: &Path, bytes: &[u8]) -> Result<(), ControlError> {
    let temporary = directory.join(TEMPORARY_NAME);
    let path = directory.join(FILE_NAME);
    write_durably(&temporary, bytes).map_err(|source| ControlError::Io {
        action: "write",
        path: temporary.clone(),
        source,
    })?;
    std::fs::rename(&temporary, &path).map_err(|source| ControlError::Io {
        action: "replace",
        path,
        source,
    })?;
    sync_directory(directory)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(directory: &Path) -> Result<(), ControlError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| ControlError::Io {
        action: "sync",
        path: directory.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(number: u64, nonce: u8) -> Epoch {
        Epoch { number, nonce: [nonce; 16] }
    }

    fn full() -> Control {
        Control {
            wanted: Role::ServerClient,
            group: Some(GroupId([7; 16])),
            epoch: Some(epoch(300, 9)),
            takeover: Some(Takeover {
                operator: "panel".to_owned(),
                way: Way::HandedOver { swaps: true },
                known: Sequence(400),
                record: vec![1, 2, 3],
            }),
            released: true,
        }
    }

    fn any_control() -> impl Strategy<Value = Control> {
        (
            prop::sample::select(Role::ALL.to_vec()),
            prop::option::of(any::<[u8; 16]>()),
            prop::option::of((any::<u64>(), any::<[u8; 16]>())),
            prop::option::of((
                "[a-z]{0,9}",
                0..5_usize,
                any::<u64>(),
                prop::collection::vec(any::<u8>(), 0..20),
            )),
            any::<bool>(),
        )
            .prop_map(|(wanted, group, epoch, takeover, released)| Control {
                wanted,
                group: group.map(GroupId),
                epoch: epoch.map(|(number, nonce)| Epoch { number, nonce }),
                takeover: takeover.map(|(operator, way, known, record)| Takeover {
                    operator,
                    way: Way::ALL[way],
                    known: Sequence(known),
                    record,
                }),
                released,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(control in any_control()) {
            prop_assert_eq!(Control::decode(&control.encode()), Ok(control));
        }

        #[test]
        fn a_cut_at_any_byte_or_a_flip_of_any_bit_is_an_error(control in any_control()) {
            let bytes = control.encode();
            for cut in 0..bytes.len() {
                prop_assert!(Control::decode(&bytes[..cut]).is_err(), "cut at {}", cut);
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(Control::decode(&flipped).is_err(), "bit {}", bit);
            }
        }

        #[test]
        fn foreign_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Control::decode(&bytes).is_err());
        }
    }

    #[test]
    fn version_1_is_frozen() {
        let hex: String = full().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "4d46504601",
                "03",
                "0107070707070707070707070707070707",
                "01ac0209090909090909090909090909090909",
                "010570616e656c02900303010203",
                "01",
                "d505a17a67166f67d9136ae7e689e483bbf21241446196108a672da041f836e9",
            )
        );
    }

    #[test]
    fn a_new_directory_begins_idle_and_remembers_what_is_set() {
        let directory = tempfile::tempdir().unwrap();
        let file = ControlFile::load(directory.path()).unwrap();
        assert_eq!(file.current(), Control::default());
        file.set_wanted(Role::Client).unwrap();
        file.enter_group(GroupId([1; 16]), epoch(2, 2)).unwrap();
        let again = ControlFile::load(directory.path()).unwrap().current();
        assert_eq!(again, file.current());
        assert!(!directory.path().join(TEMPORARY_NAME).exists());
    }

    #[test]
    fn the_epoch_of_a_group_only_rises() {
        let directory = tempfile::tempdir().unwrap();
        let file = ControlFile::load(directory.path()).unwrap();
        file.enter_group(GroupId([1; 16]), epoch(5, 1)).unwrap();
        file.see_epoch(epoch(5, 1)).unwrap();
        assert!(matches!(file.see_epoch(epoch(5, 2)), Err(ControlError::EpochRefused { .. })));
        assert!(matches!(file.see_epoch(epoch(4, 1)), Err(ControlError::EpochRefused { .. })));
        assert!(file.enter_group(GroupId([1; 16]), epoch(4, 1)).is_err());
        file.see_epoch(epoch(6, 3)).unwrap();
        file.enter_group(GroupId([2; 16]), epoch(1, 1)).unwrap();
        assert_eq!(file.current().epoch, Some(epoch(1, 1)));
        file.leave_group().unwrap();
        assert_eq!(ControlFile::load(directory.path()).unwrap().current(), Control::default());
    }

    #[test]
    fn a_takeover_is_taken_back_until_it_has_a_record_and_ends_when_another_device_reigns() {
        let directory = tempfile::tempdir().unwrap();
        let file = ControlFile::load(directory.path()).unwrap();
        file.enter_group(GroupId([1; 16]), epoch(5, 1)).unwrap();
        file.set_wanted(Role::ReplicaClient).unwrap();
        assert_eq!(file.begin_takeover("sato", Way::Lost, Sequence(7)).unwrap(), Role::ServerClient);
        file.set_wanted(Role::Client).unwrap();
        assert_eq!(file.current().takeover, None);

        file.begin_takeover("sato", Way::Lost, Sequence(8)).unwrap();
        file.decide_takeover(epoch(6, 2), b"record").unwrap();
        file.set_wanted(Role::Client).unwrap();
        file.begin_takeover("tanaka", Way::Lost, Sequence(9)).unwrap();
        let takeover = Takeover {
            operator: "sato".to_owned(),
            way: Way::Lost,
            known: Sequence(8),
            record: b"record".to_vec(),
        };
        assert_eq!(file.current().takeover, Some(takeover));
        assert!(file.seal(epoch(6, 3)).is_err());
        assert_eq!(file.seal(epoch(7, 4)).unwrap(), Role::Client);
        let sealed = ControlFile::load(directory.path()).unwrap().current();
        assert_eq!((sealed.wanted, sealed.epoch, sealed.takeover), (Role::Client, Some(epoch(7, 4)), None));
    }

    #[test]
    fn a_damaged_or_newer_file_is_a_fault_and_stays_until_it_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let mut newer = full().encode();
        newer[4] = VERSION + 1;
        for (bytes, number) in [(b"MFPF".to_vec(), 1), (Vec::new(), 2), (newer, 3)] {
            std::fs::write(&path, &bytes).unwrap();
            let error = ControlFile::load(directory.path()).unwrap_err();
            assert_eq!(error.fault().code, FaultCode::ControlFile, "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            let aside = set_aside(directory.path()).unwrap();
            assert_eq!(aside, directory.path().join(format!("control.damaged-{number}")));
            assert_eq!(std::fs::read(aside).unwrap(), bytes);
            ControlFile::load(directory.path()).unwrap();
        }
    }

    #[test]
    fn a_write_that_does_not_succeed_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = ControlFile::load(directory.path()).unwrap();
        file.set_wanted(Role::Server).unwrap();
        std::fs::create_dir(directory.path().join(TEMPORARY_NAME)).unwrap();
        let error = file.set_wanted(Role::Idle).unwrap_err();
        assert!(error.to_string().starts_with("write "), "{error}");
        assert_eq!(file.current().wanted, Role::Server);
        assert_eq!(ControlFile::load(directory.path()).unwrap().current().wanted, Role::Server);
    }
}
