//! What lies on a share, and getting an archive from there: listed, chosen, believed by the group's key, and opened by the
//! helper that can do nothing else, or compared byte for byte with what was opened when it was made.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use mfpsync_backup::archive::Key;
use mfpsync_backup::layout::ArchiveId;
use mfpsync_backup::manifest::{Class, Manifest};
use mfpsync_backup::restore::{RestoreError, Restored};
use mfpsync_backup::smb::Target;
use mfpsync_backup::store::smb::SmbStore;
use mfpsync_backup::store::{ArchiveStore, Cancel, Connection, Protection};
use mfpsync_backup::survey::Survey;
use mfpsync_proto::backup as wire;
use mfpsync_storage::model::{GroupId, PublicKey};
use sha2::{Digest, Sha256};

use super::job::{JobError, Shown};
use super::ledger::Drilled;
use super::tools::Tools;
use super::{Wanted, remember};
use crate::authority::Root;
use crate::clock::unix_millis;
use crate::communication::{Code, Event};
use crate::device::{self, Device};
use crate::fault::{Fault, FaultCode};

/// Times a fetch is tried again when the connection breaks.
const TRIES: u32 = 5;

/// Whose archives are looked for, and by what they are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose {
    /// The group.
    pub group: GroupId,
    /// Its root key; without it nobody can say whether an archive is of the group.
    pub root: Option<PublicKey>,
}

impl Whose {
    /// The group that was named, the kit's, or this device's.
    ///
    /// # Errors
    /// There is none.
    pub async fn of(device: &Device, named: Option<GroupId>, root: Option<&Root>) -> Result<Self, JobError> {
        let own = match device.server.load_full() {
            Some(server) => {
                let head = server.serving.head();
                Some(Self { group: head.group, root: Some(head.root_key) })
            }
            None => {
                let membership = device.membership().await?;
                membership
                    .as_ref()
                    .map(device::anchor)
                    .map(|own| Self { group: own.group, root: Some(own.root) })
            }
        };
        let kits = root.map(Root::anchor).map(|kit| Self { group: kit.group, root: Some(kit.root) });
        let known = [kits, own].into_iter().flatten();
        match named {
            Some(group) => Ok(known.into_iter().find(|whose| whose.group == group).unwrap_or(Self { group, root: None })),
            None => kits.or(own).ok_or_else(|| {
                let what = "this device is in no group: give the recovery kit of the group whose archives are looked for";
                JobError::Refused(what.to_owned())
            }),
        }
    }
}

/// An archive on a share, whose manifest is one.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its id.
    pub id: ArchiveId,
    /// What is said of it.
    pub manifest: Manifest,
    /// Its bytes there; none if it is not there.
    pub size: Option<u64>,
    /// The group's key says so.
    pub verified: bool,
}

impl Listed {
    /// Its bytes are as many as they should be.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.size == Some(self.manifest.archive.bytes)
    }
}

/// The archives of a group by what is said of them, newest first; and those that are none of it, and why.
pub(super) fn usable(survey: &Survey, whose: &Whose) -> (Vec<Listed>, Vec<(ArchiveId, String)>) {
    let (mut good, mut unusable) = (Vec::new(), Vec::new());
    for (id, found) in &survey.archives {
        let Some(bytes) = &found.manifest else { continue };
        let manifest = Manifest::decode(bytes).and_then(|signed| {
            let manifest = signed.record;
            let root = whose.root.unwrap_or(manifest.held.root_key);
            manifest.check_group(whose.group, &root)?;
            Ok(manifest)
        });
        match manifest {
            Ok(manifest) => {
                good.push(Listed { id: *id, manifest, size: found.size, verified: whose.root.is_some() });
            }
            Err(error) => unusable.push((*id, error.to_string())),
        }
    }
    good.sort_by_key(|listed| std::cmp::Reverse((listed.manifest.made_at, listed.id)));
    (good, unusable)
}

/// What lies on a share.
#[derive(Debug)]
pub struct Listing {
    /// Archives, newest first.
    pub archives: Vec<Listed>,
    /// What is none of the group's, and why.
    pub unusable: Vec<(ArchiveId, String)>,
    /// Free bytes, as the server says.
    pub room: u64,
    /// How the connection was protected.
    pub protection: Protection,
}

/// Lists a share. Blocks.
///
/// # Errors
/// The share's; there is no list of a part.
pub fn list(device: &Device, target: Target, whose: &Whose, cancel: &Cancel) -> Result<Listing, JobError> {
    let store = Tools::of(device)?.store(target)?;
    let mut connection = store.connect(cancel)?;
    let survey = Survey::take(&mut *connection)?;
    let (archives, unusable) = usable(&survey, whose);
    Ok(Listing { archives, unusable, room: connection.room()?, protection: connection.protection() })
}

/// An archive as people see it.
#[must_use]
pub fn shown(id: ArchiveId, manifest: &Manifest, size: Option<u64>, verified: bool) -> wire::Archive {
    let counts = &manifest.held.counts;
    wire::Archive {
        id: id.to_string(),
        made_unix_millis: manifest.made_at,
        epoch: manifest.held.at.epoch.number,
        sequence: manifest.held.at.sequence.0,
        bytes: manifest.archive.bytes,
        database_bytes: manifest.database.bytes,
        items: items(&counts.items),
        devices: counts.members,
        device_id: manifest.signer().to_string(),
        program: manifest.program.clone(),
        verified,
        complete: size == Some(manifest.archive.bytes),
    }
}

fn items(items: &BTreeMap<Class, u64>) -> std::collections::HashMap<String, u64> {
    items.iter().map(|(class, count)| (class.as_str().to_owned(), *count)).collect()
}

/// Where an archive comes from.
#[derive(Debug, Clone)]
pub(super) struct From {
    pub tools: Tools,
    pub target: Target,
    pub whose: Whose,
    pub id: Option<ArchiveId>,
    pub shown: Shown,
}

impl From {
    /// The share that is set, and the archive that is wanted there.
    pub(super) async fn of(
        device: &Arc<Device>,
        wanted: Wanted,
        root: Option<&Root>,
        shown: Shown,
    ) -> Result<Self, JobError> {
        let whose = Whose::of(device, wanted.group, root).await?;
        let target = device.archiving.settings().target(whose.group, &device.settings.now().backup)?;
        let making = device.clone();
        let tools = tokio::task::spawn_blocking(move || Tools::of(&making)).await;
        let tools = tools.unwrap_or_else(|_| Err(JobError::Stopped))?;
        Ok(Self { tools, target, whose, id: wanted.id, shown })
    }

    fn store(&self) -> Result<SmbStore, JobError> {
        self.tools.store(self.target.clone())
    }

    /// Finds the archive, and has `open` read it from its beginning; again over a new connection when one breaks. Blocks.
    fn fetch<T>(
        &self,
        mut open: impl FnMut(&Listed, Download<'_>) -> Result<T, JobError>,
    ) -> Result<(Listed, T), JobError> {
        let store = self.store()?;
        let mut tries = 0;
        loop {
            tries += 1;
            let fetched = self.fetch_once(&store, &mut open);
            let kind = match &fetched {
                Err(error) if tries < TRIES && error.passes() => error.of_share().map(|error| error.kind),
                _ => None,
            };
            let Some(kind) = kind else { return fetched };
            self.shown.retrying(kind, tries);
            let wait = std::time::Duration::from_secs(1 << tries);
            self.shown.cancel().sleep(wait).map_err(|_| JobError::Stopped)?;
        }
    }

    fn fetch_once<T>(
        &self,
        store: &SmbStore,
        open: &mut impl FnMut(&Listed, Download<'_>) -> Result<T, JobError>,
    ) -> Result<(Listed, T), JobError> {
        self.shown.step(wire::Step::Connecting, 0, 0);
        let mut connection = store.connect(self.shown.cancel())?;
        self.shown.protected(connection.protection());
        let (good, unusable) = usable(&Survey::take(&mut *connection)?, &self.whose);
        let listed = choose(good, &unusable, self.id)?;
        // Named before it is looked at: whatever is found is found of this one.
        self.shown.tell(|job| {
            job.archive = Some(shown(listed.id, &listed.manifest, listed.size, listed.verified));
        });
        listed.manifest.check_schema()?;
        if !listed.complete() {
            return Err(RestoreError::Truncated.into());
        }
        connection.open(&listed.id.data())?;
        let all = listed.manifest.archive.bytes;
        let download = Download {
            connection: &mut *connection,
            rest: Vec::new(),
            at: 0,
            passed: 0,
            all,
            shown: &self.shown,
        };
        let opened = open(&listed, download)?;
        Ok((listed, opened))
    }

    /// Fetches the archive and makes a database of it. Blocks.
    pub(super) fn restore(&self, key: &Key) -> Result<(Listed, Restored), JobError> {
        let stop = || !self.shown.goes_on();
        self.fetch(|listed, download| {
            let sought = (&listed.manifest).into();
            Ok(self.tools.restore().restore(download, &sought, key, self.tools.data(), &stop)?)
        })
    }

    /// Fetches the archive and opens it for a look. Blocks.
    fn prove(&self, key: &Key) -> Result<Listed, JobError> {
        let stop = || !self.shown.goes_on();
        let (listed, _) = self.fetch(|listed, download| {
            let sought = (&listed.manifest).into();
            Ok(self.tools.restore().prove(download, &sought, key, self.tools.scratch(), &stop)?)
        })?;
        Ok(listed)
    }

    /// Fetches the archive and compares it with what was opened when it was made. Blocks.
    fn compare(&self) -> Result<Listed, JobError> {
        let (listed, ()) = self.fetch(|listed, mut download| {
            let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
            loop {
                match download.read(&mut buffer).map_err(RestoreError::Source)? {
                    0 => break,
                    count => hash.update(&buffer[..count]),
                }
            }
            let is = hash.finalize()[..] == listed.manifest.archive.sha256;
            if is { Ok(()) } else { Err(RestoreError::Tampered.into()) }
        })?;
        Ok(listed)
    }
}

fn choose(
    good: Vec<Listed>,
    unusable: &[(ArchiveId, String)],
    wanted: Option<ArchiveId>,
) -> Result<Listed, JobError> {
    let Some(wanted) = wanted else {
        return good.into_iter().find(Listed::complete).ok_or_else(|| {
            JobError::Refused(
                "there is no archive of this group in the folder (`mfpsync backup list`)".to_owned(),
            )
        });
    };
    if let Some((_, why)) = unusable.iter().find(|(id, _)| *id == wanted) {
        return Err(JobError::Refused(format!("archive {wanted} is not used: {why}; nothing was changed")));
    }
    good.into_iter().find(|listed| listed.id == wanted).ok_or_else(|| {
        JobError::Refused(format!("there is no archive {wanted} in the folder (`mfpsync backup list`)"))
    })
}

/// An archive as it comes from a share.
struct Download<'a> {
    connection: &'a mut dyn Connection,
    rest: Vec<u8>,
    at: usize,
    passed: u64,
    all: u64,
    shown: &'a Shown,
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.rest.len() {
            self.rest = self.connection.read().map_err(io::Error::other)?;
            self.at = 0;
            self.passed += self.rest.len() as u64;
            self.shown.step(wire::Step::Fetching, self.passed, self.all);
        }
        let count = (&self.rest[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

/// Looks at an archive, and remembers what was found.
///
/// # Errors
/// It could not be looked at, or something is wrong with it.
pub(super) async fn drill(
    device: &Arc<Device>,
    wanted: Wanted,
    key: Option<Key>,
    shown: Shown,
) -> Result<(), JobError> {
    let from = From::of(device, wanted, None, shown.clone()).await?;
    let opened = key.is_some();
    let looking = tokio::task::spawn_blocking(move || match key {
        Some(key) => from.prove(&key),
        None => from.compare(),
    });
    let looked = looking.await.unwrap_or(Err(JobError::Stopped));
    let drilled = |wrong| shown.archive().map(|id| Drilled { at: unix_millis(), id, opened, wrong });
    let found = match &looked {
        Ok(_) => drilled(None),
        // What is wrong with the key, the share or this device says nothing of the archive.
        Err(JobError::Open(
            RestoreError::NotAnArchive
            | RestoreError::Truncated
            | RestoreError::Tampered
            | RestoreError::TooLarge
            | RestoreError::Foreign
            | RestoreError::AlteredSchema
            | RestoreError::Damaged(_)
            | RestoreError::Row(_)
            | RestoreError::Differs,
        )) => drilled(looked.as_ref().err().map(ToString::to_string)),
        Err(_) => None,
    };
    if let Some(found) = found {
        let code = if found.wrong.is_none() { Code::ArchiveProven } else { Code::ArchiveWrong };
        if let Some(wrong) = &found.wrong {
            device.faults.set(Fault::with_detail(FaultCode::Backup, format_args!("{}: {wrong}", found.id)));
        }
        remember(device, |ledger| ledger.drilled(found)).await;
        device.communication.record(Event::new(code));
    }
    looked.map(drop)
}
