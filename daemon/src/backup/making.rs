//! Making an archive: taken and sealed into a file of this device, opened in scratch, sent, read back, published; then
//! those that are too old are removed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use mfpsync_backup::archive::{self, ArchiveError, Lock, Taken};
use mfpsync_backup::layout::ArchiveId;
use mfpsync_backup::manifest::{self, Inventory, Maker, Manifest};
use mfpsync_backup::smb::Target;
use mfpsync_backup::store::{ArchiveStore, Connection, smb::SmbStore};
use mfpsync_backup::survey::Survey;
use mfpsync_backup::upload::{Archive, Mark, Patience, Progress, Proven, Source, Spooled, Upload, Whole};
use mfpsync_backup::{prune, retention};
use mfpsync_proto::backup::Step;
use mfpsync_replication::accept::lineage;
use mfpsync_replication::lineage::{Lineage, Standpoint};
use mfpsync_storage::model::{IssuingCertificate, Signed};
use mfpsync_storage::{Error, Store};

use super::Making;
use super::fetching::{Whose, shown as shown_archive, usable};
use super::job::{JobError, Shown};
use super::ledger::{Ledger, Pending};
use super::settings::{Settings, Share};
use super::tools::Tools;
use crate::authority::IssuingKey;
use crate::clock::unix_millis;
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::reign::takeover;

/// Bytes between two marks that are remembered: what is sent twice at the most after a power cut.
const MARK_EVERY: u64 = 32 << 20;
/// How long an upload that ended half-way is left on the share, in seconds.
const GRACE: u64 = 7 * 24 * 60 * 60;
/// Snapshots that are lost to something else of this device before it is called a failure.
const TAKES: u32 = 3;

/// Makes one, or goes on with one that is on its way, and removes old ones.
///
/// # Errors
/// Why there is none. Earlier ones are as they were.
pub(super) async fn make(device: &Arc<Device>, order: Making, shown: Shown) -> Result<(), JobError> {
    let Making { lock, accept_missing } = order;
    let server = device.server.load_full().ok_or_else(|| {
        JobError::Refused(
            "archives are made at the group's server, and this device is not a running one".to_owned(),
        )
    })?;
    server.serving.reigns().map_err(|status| JobError::Refused(status.message().to_owned()))?;
    let head = server.serving.head();
    let settings = device.archiving.settings();
    let target = settings.target(head.group, &device.settings.now().backup)?;
    let read = server.serving.master.read(READ_DEADLINE, |read| Ok((read.issuers()?, lineage(read)?)));
    let (issuers, lineage) = read.await?;
    let by_hand = lock.is_some() || !shown.is_scheduled();
    let (signer, issuer) =
        takeover::issuing(device, &issuers).map_err(|fault| JobError::Refused(fault.to_string()))?;
    let work = Work {
        device: device.clone(),
        master: server.serving.master.store().clone(),
        whose: Whose { group: head.group, root: Some(head.root_key) },
        signer,
        issuer,
        target,
        lineage,
        by_hand,
        place: settings.share.as_ref().map_or_else(String::new, Share::place),
        settings,
        accept_missing,
        shown,
    };
    let done = tokio::task::spawn_blocking(move || work.make(lock)).await;
    done.unwrap_or_else(|_| Err(JobError::Refused("the job ended unexpectedly".to_owned())))
}

struct Work {
    device: Arc<Device>,
    master: Store<mfpsync_storage::master::Master>,
    whose: Whose,
    lineage: Lineage,
    /// Somebody wants one of this moment.
    by_hand: bool,
    signer: IssuingKey,
    issuer: Signed<IssuingCertificate>,
    target: Target,
    /// The share, as it is remembered.
    place: String,
    settings: Settings,
    accept_missing: bool,
    shown: Shown,
}

impl Work {
    fn make(&self, lock: Option<Lock>) -> Result<(), JobError> {
        let tools = Tools::of(&self.device)?;
        self.note(|ledger| ledger.of_group(self.whose.group))?;
        let store = tools.store(self.target.clone())?;
        // Before a second of work: whether it could be sent at all.
        self.shown.step(Step::Connecting, 0, 0);
        drop(self.connect(&store)?);
        let pending = self.device.archiving.remembered(|ledger| ledger.pending().cloned());
        let goes_on = pending.filter(|pending| !self.by_hand && self.goes_on(&tools, pending));
        let resume = goes_on.as_ref().map(Pending::mark);
        let pending = match goes_on {
            Some(pending) => pending,
            None => {
                let sealed_for = if lock.is_some() { Vec::new() } else { self.settings.recipients.clone() };
                self.take(&tools, &lock.map_or_else(|| self.settings.lock(), Ok)?, sealed_for)?
            }
        };
        self.send(&tools, &store, &pending, resume)?;
        self.remove_old(&store)
    }

    /// Whether an archive on its way is still of use: it lies here, belongs to this history, and is sealed as is set.
    fn goes_on(&self, tools: &Tools, pending: &Pending) -> bool {
        let lies_here = pending.id().is_some_and(|id| tools.spooled(id).exists());
        let manifest = pending.manifest().and_then(|bytes| Manifest::decode(&bytes).ok());
        lies_here
            && pending.recipients == self.settings.recipients
            && manifest
                .is_some_and(|signed| self.lineage.standpoint(&signed.record.held.at) == Standpoint::Continue)
    }

    fn connect(&self, store: &SmbStore) -> Result<Box<dyn Connection>, JobError> {
        let connection = store.connect(self.shown.cancel())?;
        self.shown.protected(connection.protection());
        Ok(connection)
    }

    /// Takes an archive and proves it; from then on it is on its way.
    fn take(&self, tools: &Tools, lock: &Lock, recipients: Vec<String>) -> Result<Pending, JobError> {
        tools.tidy(None).map_err(JobError::io("remove old files of the spool"))?;
        let mut luck = [0; 8];
        let random: &dyn ring::rand::SecureRandom = &*self.device.random;
        random.fill(&mut luck).map_err(|_| JobError::Refused("no random numbers".to_owned()))?;
        let made_at = unix_millis();
        let id = ArchiveId::new(made_at / 1_000, u64::from_le_bytes(luck));
        let path = tools.spooled(id);
        let taken = self.taken(lock, &path)?;
        let proven = self.prove(tools, id, &taken).and_then(|held| {
            let maker =
                Maker { program: env!("CARGO_PKG_VERSION").to_owned(), made_at, issuer: self.issuer.clone() };
            let manifest = self.signer.sign_manifest(Manifest::of(&taken, held, maker));
            let pending = Pending::new(id, &manifest.encode(), recipients);
            self.note(|ledger| ledger.set_out(pending.clone()))?;
            Ok(pending)
        });
        if proven.is_err() {
            // Nobody will send it, and this device may need the room. What stays goes with the next attempt.
            drop(std::fs::remove_file(&path));
        }
        proven
    }

    /// Opens an archive of the spool as for a restore; what it holds.
    fn prove(&self, tools: &Tools, id: ArchiveId, taken: &Taken) -> Result<Inventory, JobError> {
        let bytes = taken.archive.bytes;
        self.shown.step(Step::Proving, 0, bytes);
        let file = File::open(tools.spooled(id)).map_err(JobError::io("read the archive"))?;
        let reading = Counted {
            from: BufReader::new(file),
            passed: 0,
            tell: |passed| {
                self.shown.step(Step::Proving, passed, bytes);
            },
        };
        let stop = || !self.shown.goes_on();
        Ok(tools.restore().prove(reading, &taken.into(), &taken.key, tools.scratch(), &stop)?)
    }

    fn taken(&self, lock: &Lock, path: &std::path::Path) -> Result<Taken, JobError> {
        let mut takes = 0;
        loop {
            let progress = |done, of| {
                self.shown.step(Step::Taking, done, of);
                self.shown.goes_on()
            };
            takes += 1;
            match archive::take(&self.master, lock, path, progress) {
                // Replication was begun or ended meanwhile.
                Err(ArchiveError::Storage(Error::Busy)) if takes < TAKES => {}
                taken => return Ok(taken?),
            }
        }
    }

    /// Sends what was proven, until it is good; from a mark on, where that was begun before.
    fn send(
        &self,
        tools: &Tools,
        store: &SmbStore,
        pending: &Pending,
        resume: Option<Mark>,
    ) -> Result<(), JobError> {
        let damaged = || JobError::Refused("what was remembered of the archive is damaged".to_owned());
        let id = pending.id().ok_or_else(damaged)?;
        let bytes = pending.manifest().ok_or_else(damaged)?;
        let manifest = Manifest::decode(&bytes)?.record;
        let spooled = Spooled::new(tools.spooled(id)).map_err(JobError::io("read the archive"))?;
        let all = manifest.archive.bytes;
        let mut marked = pending.mark();
        let mut observe = |progress| match progress {
            Progress::Connected(protection) => self.shown.protected(protection),
            Progress::Sending(mark) => {
                self.shown.step(Step::Sending, mark.taken, all);
                if mark.turn != marked.turn || mark.taken >= marked.taken + MARK_EVERY {
                    marked = mark;
                    // Without it the upload begins anew after a power cut.
                    if let Err(error) = self.note(|ledger| ledger.mark(mark)) {
                        tracing::warn!(%error, "remember how far the upload is");
                    }
                }
            }
            Progress::Proving(read) => self.shown.step(Step::ReadingBack, read, all),
            Progress::Publishing => self.shown.step(Step::Publishing, 0, 0),
            Progress::Retrying(kind, times) => self.shown.retrying(kind, times),
        };
        let upload = Upload {
            store,
            cancel: self.shown.cancel(),
            id,
            patience: Patience::default(),
            resume,
            observe: &mut observe,
        };
        let sent = upload.run(&mut Sealed { spooled, manifest: bytes, archive: manifest.archive });
        sent?;
        self.note(|ledger| ledger.arrived(&self.place))?;
        if let Err(error) = tools.tidy(None) {
            tracing::warn!(%error, "remove what was sent from the spool");
        }
        tracing::info!(%id, sequence = manifest.held.at.sequence.0, "an archive was made");
        self.shown.tell(|job| job.archive = Some(shown_archive(id, &manifest, Some(all), true)));
        Ok(())
    }

    /// Removes archives that are too old, and leftovers. That none could be is no failure of the one that was made.
    fn remove_old(&self, store: &SmbStore) -> Result<(), JobError> {
        self.shown.step(Step::Removing, 0, 0);
        let removed = self.removed(store);
        match &removed {
            Ok(number) => self.shown.tell(|job| job.removed = *number),
            Err(error) => tracing::warn!(%error, "old archives were not removed"),
        }
        self.note(|ledger| ledger.not_removed(removed.err().map(|error| error.to_string())))
    }

    fn removed(&self, store: &SmbStore) -> Result<u64, JobError> {
        let mut connection = self.connect(store)?;
        let survey = Survey::take(&mut *connection)?;
        let (good, _) = usable(&survey, &self.whose);
        let found: Vec<retention::Good> = good
            .iter()
            .filter(|listed| listed.complete())
            .map(|listed| {
                let at = listed.manifest.held.at;
                let revision = (at.epoch.number, at.sequence.0);
                retention::Good { id: listed.id, made_at: listed.manifest.made_at, revision }
            })
            .collect();
        let known = self.device.archiving.remembered(|ledger| ledger.known(&self.place));
        let there: BTreeSet<ArchiveId> = found.iter().map(|good| good.id).collect();
        let missing: Vec<ArchiveId> = known.difference(&there).copied().collect();
        let known = if self.accept_missing {
            self.note(|ledger| ledger.removed(&missing))?;
            there
        } else {
            known
        };
        let going = retention::expired(&self.settings.keep.rule(), &found, &known)?;
        // Before they go: whatever cuts this off, none of them is missed.
        self.note(|ledger| ledger.removed(&going))?;
        prune::remove(&mut *connection, &going, &mut |id| tracing::info!(%id, "an old archive was removed"))?;
        let live = self.device.archiving.remembered(|ledger| ledger.pending().and_then(Pending::id));
        let live = live.into_iter().collect();
        prune::sweep(&mut *connection, &survey.leftovers(&live, unix_millis() / 1_000, GRACE))?;
        Ok(going.len() as u64)
    }

    fn note(&self, change: impl FnOnce(&mut Ledger) -> io::Result<()>) -> Result<(), JobError> {
        self.device.archiving.note(change)
    }
}

/// A file that was proven before it is sent: what comes back needs to be the same, and nothing else.
struct Sealed {
    spooled: Spooled,
    manifest: Vec<u8>,
    archive: manifest::File,
}

impl Source for Sealed {
    fn size(&self) -> Option<u64> {
        self.spooled.size()
    }

    fn repeats(&self) -> bool {
        self.spooled.repeats()
    }

    fn open(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        self.spooled.open(offset)
    }
}

impl Proven for Sealed {
    fn prove(&mut self, _read_back: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

impl Archive for Sealed {
    fn manifest(&mut self, whole: &Whole) -> io::Result<Vec<u8>> {
        let is = (whole.size, whole.sha256) == (self.archive.bytes, self.archive.sha256);
        if is { Ok(self.manifest.clone()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// Reads, and tells how much has passed.
struct Counted<R, T> {
    from: R,
    passed: u64,
    tell: T,
}

impl<R: Read, T: FnMut(u64)> Read for Counted<R, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.passed += count as u64;
        (self.tell)(self.passed);
        Ok(count)
    }
}
