//! Coming back from an archive: beside what is here, as the group's data, or item by item.
//!
//! A restore makes a database of the archive beside the master, where it stands for nothing. The one decision is the
//! control file's; the server part then ends, and begins anew with the takeover that `reign::takeover` finishes. Whatever
//! is cut off before that has changed nothing, and what is left of it is removed at the next start. I-18.

use std::sync::Arc;
use std::time::Duration;

use mfpsync_backup::restore::Restored;
use mfpsync_proto::backup::{BroughtBack, Comparison, Step};
use mfpsync_replication::bring_back::{self, Erased, Tally};
use mfpsync_storage::master::{Master, MasterRead};
use mfpsync_storage::model::{
    Cursor, GroupId, IssuingCertificate, ItemKey, Kind, PromotionReason, PublicKey, Scope, Sequence, Signed,
};
use mfpsync_storage::{Error, Inline};

use super::comparing::{alone, compare, living};
use super::fetching::{From, Listed};
use super::job::{JobError, Shown};
use super::ledger::Pending;
use super::tools::Tools;
use super::{BringingBack, Restoring};
use crate::authority::{IssuingKey, Root};
use crate::communication::{Code, Event};
use crate::db::{READ_DEADLINE, SCAN_DEADLINE};
use crate::device::Device;
use crate::group::{self, OPERATOR, RESTORED_FILE};
use crate::reign::{others, takeover};
use crate::role::{Part, Rejected, Role, RoleState, SupervisorHandle, SwitchError};
use crate::server::ServerPart;

/// Items written in one transaction: a push waits for no more than these.
const AT_ONCE: usize = 100;
/// How long the server may take to begin anew.
const BEGINS: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// Removes what jobs of a former life of the process have left.
pub(super) async fn tidy(device: &Arc<Device>) {
    discard(device).await;
    let clearing = device.clone();
    let cleared = tokio::task::spawn_blocking(move || {
        let tools = Tools::of(&clearing)?;
        tools.clear().map_err(JobError::io("remove what a helper has left"))?;
        let pending = clearing.archiving.remembered(|ledger| ledger.pending().and_then(Pending::id));
        tools.tidy(pending).map_err(JobError::io("remove old files of the spool"))
    });
    if let Ok(Err(error)) = cleared.await {
        tracing::warn!(%error, "tidy up after jobs with archives");
    }
}

/// Removes what a restore that was never decided has left.
async fn discard(device: &Arc<Device>) {
    if device.control.current().takeover.is_some() {
        return;
    }
    let staged = device.config.data_dir.join(RESTORED_FILE);
    let removed = tokio::task::spawn_blocking(move || mfpsync_storage::discard(&staged)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "remove what a restore has left");
    }
}

/// Says what a restore would do.
///
/// # Errors
/// The archive is not usable, by name; nothing was changed.
pub(super) async fn preview(device: &Arc<Device>, order: Restoring, shown: Shown) -> Result<(), JobError> {
    let (_, restored) = open(device, &order, &shown).await?;
    let comparison = beside(device, Arc::new(restored), &shown).await?;
    shown.tell(|job| job.comparison = Some(comparison));
    Ok(())
}

async fn open(
    device: &Arc<Device>,
    order: &Restoring,
    shown: &Shown,
) -> Result<(Listed, Restored), JobError> {
    let from = From::of(device, order.wanted, order.root.as_ref(), shown.clone()).await?;
    if from.whose.root.is_none() {
        let what = "the archive is of another group, and without that group's recovery kit nobody can say whether it is \
                    genuine; nothing was changed";
        return Err(JobError::Refused(what.to_owned()));
    }
    let key = order.key.clone();
    let opening = tokio::task::spawn_blocking(move || from.restore(&key));
    opening.await.unwrap_or(Err(JobError::Stopped))
}

/// What is in an archive beside what is here: the running server's data, that of a stopped one, or what this device has
/// heard of its group.
async fn beside(
    device: &Arc<Device>,
    restored: Arc<Restored>,
    shown: &Shown,
) -> Result<Comparison, JobError> {
    shown.step(Step::Comparing, 0, 0);
    let both =
        move |here: &MasterRead<'_>, restored: &Restored| restored.read(|archived| compare(here, archived));
    let turn = device.master_at_rest.turn().await;
    if let Some(server) = device.server.load_full() {
        drop(turn);
        let read = server.serving.master.read(SCAN_DEADLINE, move |here| both(here, &restored));
        return Ok(read.await?);
    }
    let read = device.own.db().read(READ_DEADLINE, |read| Ok((read.device()?.cursor, read.lineage()?)));
    let (cursor, lineage) = read.await?;
    let lineage: Vec<_> = lineage.into_iter().map(|signed| signed.record).collect();
    let reading = turn.run(move |path| match Inline::<Master>::open(path, false) {
        Ok(master) if master.read(|read| read.head())?.is_some() => master.read(|here| both(here, &restored)),
        // A damaged one may be why an archive is looked for.
        Ok(_) | Err(Error::Missing(_) | Error::Corrupt(_) | Error::Record(_) | Error::Foreign(_)) => {
            restored.read(|archived| alone(archived, cursor.as_ref(), lineage))
        }
        Err(error) => Err(error),
    });
    Ok(reading.await.unwrap_or(Err(Error::Closed))?)
}

/// Has the group go on with what an archive holds.
///
/// # Errors
/// Why not; nothing was changed then, except when the decision was made and the server has not begun in time.
pub(super) async fn restore(
    device: &Arc<Device>,
    supervisor: &SupervisorHandle,
    order: Restoring,
    shown: Shown,
) -> Result<(), JobError> {
    may_restore(device, supervisor).await?;
    let (listed, restored) = open(device, &order, &shown).await?;
    same_group(device, restored.held().at.group).await?;
    let restored = Arc::new(restored);
    let comparison = beside(device, restored.clone(), &shown).await?;
    let lost = comparison.changes_lost;
    let goes_on = comparison.here_sequence == listed.manifest.held.at.sequence.0 + lost;
    shown.tell(|job| job.comparison = Some(comparison));
    if order.accept_loss_of < lost {
        return Err(JobError::Refused(format!(
            "{lost} changes were made that this archive does not have; devices offer again what they still hold of them; \
             nothing was changed (to go on: `--accept-loss-of {lost}`)"
        )));
    }
    let certificate = certified(device, &restored, order.root.as_ref()).await?;
    let staged = device.config.data_dir.join(RESTORED_FILE);
    let staging = tokio::task::spawn_blocking(move || {
        mfpsync_storage::discard(&staged).map_err(JobError::io("remove what an earlier restore has left"))?;
        let restored = Arc::into_inner(restored)
            .ok_or_else(|| JobError::Refused("the archive is still being read; try again".to_owned()))?;
        restored.stage(&staged)?;
        let mut master = Inline::<Master>::open(&staged, false)?;
        master.write(|write| certificate.iter().try_for_each(|certificate| write.put_issuer(certificate)))?;
        Ok(master.close()?)
    });
    let archived = listed.manifest.held.at;
    let decided = async {
        staging.await.unwrap_or(Err(JobError::Stopped))?;
        shown.check()?;
        shown.step(Step::Switching, 0, 0);
        // Only of a history that goes on from there its numbers say how much is missing.
        let known = Sequence(archived.sequence.0 + if goes_on { lost } else { 0 });
        let decided = device.control.write(move |file| file.begin_restore(OPERATOR, known)).await;
        decided.map_err(|fault| JobError::Refused(fault.to_string()))
    };
    let wanted = match decided.await {
        Ok(wanted) => wanted,
        Err(error) => {
            discard(device).await;
            return Err(error);
        }
    };
    begin_anew(device, supervisor, wanted, archived, &shown).await?;
    device.communication.record(Event::new(Code::Restored));
    Ok(())
}

/// Refuses where the group is served by somebody else, or something newer is here.
async fn may_restore(device: &Arc<Device>, supervisor: &SupervisorHandle) -> Result<(), JobError> {
    if device.control.current().takeover.is_some() {
        let what = "this device is about to become the server already; nothing was changed: see what it waits for \
                    (`mfpsync status`)";
        return Err(JobError::Refused(what.to_owned()));
    }
    if device.server.load().is_some() {
        return Ok(());
    }
    let wanted = supervisor.watch().borrow().wanted();
    if matches!(wanted, Role::Replica | Role::ReplicaClient) {
        let what = "this device holds a copy of the group's data, which is newer than any archive: let it become the server \
                    (`mfpsync role promote --server-is-lost`)";
        return Err(JobError::Refused(what.to_owned()));
    }
    let answers = others::who_answers(device).await?;
    if let Some(first) = answers.first() {
        let name =
            device.roster.member(*first).map_or_else(|| first.to_string(), |member| member.name.clone());
        return Err(JobError::Refused(format!(
            "{name} could serve and answers; nothing was changed: restore there, or let the group go on from there"
        )));
    }
    Ok(())
}

/// Refuses the archive of another group than the one this device is in, or has the data of.
async fn same_group(device: &Arc<Device>, archived: GroupId) -> Result<(), JobError> {
    let membership = device.membership().await?.map(|own| own.group);
    let turn = device.master_at_rest.turn().await;
    let held = match device.server.load_full() {
        Some(server) => Some(server.serving.head().group),
        None => {
            let looking = turn.run(group::head).await;
            match looking.unwrap_or(Err(Error::Closed)) {
                Ok(head) => head.map(|head| head.group),
                // A damaged one may be why an archive is restored.
                Err(Error::Corrupt(_) | Error::Record(_) | Error::Foreign(_)) => None,
                Err(error) => return Err(error.into()),
            }
        }
    };
    let here = [membership, held, device.control.current().group];
    if here.into_iter().flatten().all(|group| group == archived) {
        return Ok(());
    }
    let what = "this device belongs to another group than the archive; nothing was changed: leave that group first, or \
                bring single items back (`mfpsync backup bring-back --group ID`)";
    Err(JobError::Refused(what.to_owned()))
}

/// The certificate by which this device may sign for the group, if the archive does not have one.
async fn certified(
    device: &Arc<Device>,
    restored: &Arc<Restored>,
    root: Option<&Root>,
) -> Result<Option<Signed<IssuingCertificate>>, JobError> {
    if let Some(root) = root {
        let keys = |error: crate::signing::KeyError| JobError::Refused(error.to_string());
        let of_archive: PublicKey = restored.held().root_key;
        if root.anchor().root != of_archive {
            return Err(JobError::Refused(
                "this is the recovery kit of another group; nothing was changed".to_owned(),
            ));
        }
        let key = IssuingKey::load_or_create(&*device.keys, device.identity.device(), &*device.random);
        let key = key.map_err(keys)?;
        return Ok(Some(root.certify(key.device(), key.public_key())));
    }
    let (own, reading) =
        (device.own.db().read(READ_DEADLINE, |read| read.issuers()).await?, restored.clone());
    let archived = tokio::task::spawn_blocking(move || reading.read(|read| read.issuers())).await;
    let archived = archived.unwrap_or(Err(Error::Closed))?;
    let certificates: Vec<_> = archived.into_iter().chain(own).collect();
    takeover::issuing(device, &certificates).map(|(_, certificate)| Some(certificate)).map_err(|fault| {
        JobError::Refused(format!(
            "{fault}; nothing was changed (give the kit: `mfpsync backup restore --kit FILE`)"
        ))
    })
}

/// Has the server part begin with what was decided, and waits until it serves.
async fn begin_anew(
    device: &Arc<Device>,
    supervisor: &SupervisorHandle,
    wanted: Role,
    archived: Cursor,
    shown: &Shown,
) -> Result<(), JobError> {
    let goes_on = |why: &str| {
        JobError::Refused(format!("the restore is decided and goes on by itself: {why} (`mfpsync status`)"))
    };
    let begun = async {
        loop {
            let serves = supervisor.watch().borrow().wanted() == wanted;
            let asked =
                if serves { supervisor.restart(Part::Server).await } else { supervisor.switch(wanted).await };
            match asked {
                // Late is not refused: it is on its way.
                Ok(_) | Err(SwitchError::Late) => return Ok(()),
                Err(error @ (SwitchError::Stopped | SwitchError::Rejected(Rejected::Closing))) => {
                    return Err(goes_on(&error.to_string()));
                }
                // Another part is on its way.
                Err(error) => tracing::debug!(%error, "wait to begin anew"),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let serves = async {
        loop {
            if let Some(server) = device.server.load_full()
                && reigns_over(&server, archived).await?
            {
                return Ok(());
            }
            if let RoleState::Faulted { fault, .. } = &*supervisor.watch().borrow()
                && !fault.code.retries()
            {
                return Err(JobError::Refused(format!(
                    "the restore is decided, and the server does not begin: {fault}"
                )));
            }
            if !shown.goes_on() {
                return Err(goes_on("nobody waits for it any more"));
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let both = async {
        begun.await?;
        serves.await
    };
    tokio::time::timeout(BEGINS, both)
        .await
        .unwrap_or_else(|_| Err(goes_on("the server has not begun in time")))
}

/// Whether a server's present reign began over this archive.
async fn reigns_over(server: &ServerPart, archived: Cursor) -> Result<bool, JobError> {
    let lineage = match server.serving.master.read(READ_DEADLINE, |read| read.lineage()).await {
        Ok(lineage) => lineage,
        // The one of before is being closed.
        Err(Error::Closed) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    Ok(lineage.last().is_some_and(|last| {
        let parent = last.record.parent.as_ref();
        last.record.reason == PromotionReason::Restored
            && parent.is_some_and(|parent| (parent.epoch, parent.chain) == (archived.epoch, archived.chain))
    }))
}

/// Brings single items back, as changes of their own.
///
/// # Errors
/// Why not. What was written before stays, and doing it again goes on.
pub(super) async fn bring_back(
    device: &Arc<Device>,
    order: BringingBack,
    shown: Shown,
) -> Result<(), JobError> {
    let server = device.server.load_full().ok_or_else(|| {
        JobError::Refused("items are brought back at the group's server; nothing was done here".to_owned())
    })?;
    let from = From::of(device, order.wanted, None, shown.clone()).await?;
    let (key, wanted) = (order.key.clone(), Places { scope: order.scope.clone(), kind: order.kind.clone() });
    let group = server.serving.head().group;
    let opening = tokio::task::spawn_blocking(move || {
        let (_, restored) = from.restore(&key)?;
        let (places, marks) = restored.read(|read| Ok((wanted.of(read)?, read.erasures()?)))?;
        let marks = marks.into_iter().map(|(id, erasure)| (id, erasure.mark.generation)).collect();
        // Another group's marks have other names.
        let known = if restored.held().at.group == group { Erased::Until(marks) } else { Erased::Unknown };
        Ok::<_, JobError>((restored, places, known))
    });
    let (restored, places, erased) = opening.await.unwrap_or(Err(JobError::Stopped))?;
    let restored = Arc::new(restored);
    let (mut sum, mut last) = (Tally::default(), None);
    let all = places.len() as u64;
    for (done, place) in places.into_iter().enumerate() {
        shown.step(Step::Writing, done as u64, all);
        let reading = restored.clone();
        let read = tokio::task::spawn_blocking(move || reading.read(|read| living(read, &place))).await;
        let mut items: Vec<_> = read.unwrap_or(Err(Error::Closed))?.into_iter().collect();
        items.retain(|(key, _)| order.item.as_ref().is_none_or(|item| is(key, item)));
        for some in items.chunks(AT_ONCE) {
            shown.check()?;
            let (some, replace, operator) = (some.to_vec(), order.replace, order.operator.clone());
            let erased = erased.clone();
            let tally = if order.dry_run {
                let read = move |read: &MasterRead<'_>| bring_back::preview(read, &some, &erased, replace);
                server.serving.master.read(READ_DEADLINE, read).await?
            } else {
                let written = server
                    .serving
                    .change(move |write| bring_back::bring_back(write, &operator, &some, &erased, replace));
                let (tally, revision) =
                    written.await.map_err(|status| JobError::Refused(status.message().to_owned()))?;
                last = revision.or(last);
                tally
            };
            sum.add(&tally);
        }
    }
    shown.tell(|job| job.brought_back = Some(brought_back(&sum, last.map_or(0, |last| last.sequence.0))));
    if sum.items > 0 && !order.dry_run {
        device.communication.record(Event::new(Code::BroughtBack).count("items", sum.items));
    }
    Ok(())
}

/// Which scopes and kinds.
struct Places {
    scope: Option<Scope>,
    kind: Option<Kind>,
}

impl Places {
    fn of(&self, read: &MasterRead<'_>) -> Result<Vec<(Scope, Kind)>, Error> {
        let wanted = |(scope, kind): &(Scope, Kind)| {
            self.scope.as_ref().is_none_or(|wanted| wanted == scope)
                && self.kind.as_ref().is_none_or(|wanted| wanted == kind)
        };
        Ok(read.content_hashes()?.into_keys().filter(wanted).collect())
    }
}

fn is(key: &ItemKey, (id, device): &(String, String)) -> bool {
    key.id == *id && key.device == *device
}

fn brought_back(sum: &Tally, sequence: u64) -> BroughtBack {
    let Tally { items, restored, differ, same, left, no_room } = *sum;
    BroughtBack { items, restored, differ, same, left, no_room, sequence }
}
